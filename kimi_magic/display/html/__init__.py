"""Safe HTML from text that a model or a tool wrote."""
