"""The live view: one widget a turn."""
