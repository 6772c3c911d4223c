"""Tools of the model: functions of the notebook, and whatever else can be called."""
