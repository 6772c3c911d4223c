"""Keys: where they come from, what they look like, and how they are redacted."""
