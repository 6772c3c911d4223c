"""Conversations: turns, what of them is sent again, and what fits into the context window."""
