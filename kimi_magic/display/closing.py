"""How a turn ended, in words."""

from __future__ import annotations

from kimi_magic.core.reply import Reply
from kimi_magic.display.segments import Kind, clean

__all__ = ["closing_of", "first_line"]

FIRST_LINE = 300


def closing_of(reply: Reply, kinds: set[Kind]) -> tuple[str, str]:
    """The last notice of a turn, "" for none, and its last state."""
    answered = "answer" in kinds
    came = bool(kinds - {"notice"})
    on = _how_to_go_on(reply) if came else ""
    if isinstance(reply.error, KeyboardInterrupt):
        kept = "what had arrived is kept" if came else "nothing had arrived"
        return f"Stopped: {kept}.{on}", "Stopped"
    if reply.error is not None:
        name, line = type(reply.error).__name__, first_line(str(reply.error))
        return (f"{name}: {line}" if line else name) + on, "Failed"
    if reply.finish_reason == "length":
        cut = "The answer was cut" if answered else "Cut before an answer began, the limit reached"
        return f"{cut} at max_tokens; raise it with --max-tokens.{on}", "Done"
    if reply.finish_reason == "content_filter":
        return f"The provider's content filter ended the answer.{on}", "Done"
    if reply.finish_reason not in ("stop", "tool_calls", "max_steps", "repetition"):
        reason = clean(first_line(reply.finish_reason or "it gave no reason"))
        return f"The server ended the answer early ({reason}).{on}", "Done"
    return ("" if answered else "The answer is empty."), "Done"


def _how_to_go_on(reply: Reply) -> str:
    if reply.chat is None:
        return ""
    name = "" if reply.chat == "main" else f" {clean(first_line(reply.chat))}"
    return f" (%kimi continue{name} goes on.)"


def first_line(text: str) -> str:
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= FIRST_LINE else line[: FIRST_LINE - 1] + "…"
