"""Summaries of values: one module for each kind of value."""
