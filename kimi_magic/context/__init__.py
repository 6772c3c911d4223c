"""Write the notebook's values, cells and errors for the model to read."""
