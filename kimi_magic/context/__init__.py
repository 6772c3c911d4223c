"""What the model is told of the notebook's values."""
