"""Views of a turn: live, as a frozen record, in a terminal, as plain text."""
