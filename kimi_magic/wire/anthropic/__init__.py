"""The Messages API, as Anthropic made it and others serve it."""
