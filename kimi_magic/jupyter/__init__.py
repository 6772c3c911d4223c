"""The doors of the notebook: magics, their options and verbs, completion, and the command line."""
