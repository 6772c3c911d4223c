"""What the model is told of the notebook's values."""

from kimi_magic.context.reprs import bounded_repr
from kimi_magic.context.summaries import summarize, summarizer
from kimi_magic.context.text import cut

__all__ = ["bounded_repr", "cut", "summarize", "summarizer"]
