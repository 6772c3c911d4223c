"""JSON Schema for tools and answers: from type hints, for servers, and back to values."""
