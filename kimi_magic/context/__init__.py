"""What the model is told of the notebook's values."""

from kimi_magic.context.summaries import bounded_repr, cut, summarize

__all__ = ["bounded_repr", "cut", "summarize"]
