"""Summaries of the objects of libraries: one module for each family, imported at its first use."""
