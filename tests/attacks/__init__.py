"""Attacks: an aim a module, each with its input and what must hold."""
