"""JSON Schema for tools and answers: made from types, normalized for servers, used on values."""
