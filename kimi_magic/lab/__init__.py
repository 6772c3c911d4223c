"""The reasoning lab: replies compared, settings swept, a turn played back."""
