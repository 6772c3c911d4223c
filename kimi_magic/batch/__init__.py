"""Prompts over the rows of a frame, on this machine or on a cluster."""
