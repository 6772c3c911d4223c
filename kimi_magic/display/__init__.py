"""How a turn is shown: live, as a frozen record, in a terminal, as plain text."""
