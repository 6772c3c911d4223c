"""The notebook's entry points: magics, options, verbs, tab completion, and the command line."""
