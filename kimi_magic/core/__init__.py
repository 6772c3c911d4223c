"""Values, events, errors and small tools that every room uses; it imports no other room."""
