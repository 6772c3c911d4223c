"""Functions of the notebook as tools of the model."""
