"""A turn in a terminal: the reasoning dim as it comes, the answer block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markdown import Markdown
from rich.rule import Rule
from rich.segment import Segment as RichSegment
from rich.segment import Segments
from rich.status import Status
from rich.text import Text

from kimi_magic.core.text import clean, clip, without_stacks
from kimi_magic.display.calls import call_text
from kimi_magic.display.html.markdown import Blocks, parser
from kimi_magic.display.html.tool_results import OUTCOMES
from kimi_magic.display.plain import PlainView
from kimi_magic.display.record import confidence_line
from kimi_magic.display.segments import Segment
from kimi_magic.display.timeline import Op
from kimi_magic.display.view import Throttle, ViewOptions

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["TerminalView"]


class TerminalView(PlainView):
    """Prints text as it comes, and Markdown as soon as a block is finished."""

    def __init__(
        self, options: ViewOptions, console: Console | None = None, throttle: Throttle | None = None
    ) -> None:
        super().__init__(options, throttle)
        self._console = console or Console(force_jupyter=False)
        self._style = ""
        self._blocks: Blocks | None = None
        self._status: Status | None = None

    def _prepare(self, text: str) -> None:
        if text and self._status is None:
            self._status = self._console.status(Text(text))
            self._status.start()
        elif text and self._status:
            self._status.update(Text(text))
        elif self._status:
            self._status.stop()
            self._status = None

    def _take(self, op: Op) -> None:
        if op["op"] == "head":
            self._console.print(Rule(Text(op["text"]), align="left", style="dim"))
            return
        if op["op"] in {"tape", "sent", "retry"}:
            self._console.print(Text(op["text"], "dim"), end="\n\n", soft_wrap=True)
        if op["op"] == "vote":
            self._console.print(Text(op["text"], "bold"), soft_wrap=True)
        elif "segment" in op:
            self._take_of(op)

    def _take_of(self, op: Op) -> None:
        """Show the change of a segment."""
        segment = self._timeline.segments[op["segment"]]
        if op["op"] == "ask":
            self._flush()
        elif self._take_call(op, op["segment"]):
            pass
        elif op["op"] == "run":
            self._prepare(self._timeline.state)
        elif op["op"] == "segment":
            self._begin(segment)
        elif op["op"] == "done":
            self._end(segment)
        elif op["op"] == "append" and segment.kind in {"reasoning", "answer"}:
            self._grow(op["text"])

    def _begin(self, segment: Segment) -> None:
        rendered = segment.kind == "answer" and self._options.format == "markdown"
        self._blocks = Blocks() if rendered else None
        self._style = "dim" if segment.kind == "reasoning" else ""
        if segment.kind == "reasoning":
            self._console.print(Text("Reasoning", style="dim bold"))

    def _grow(self, text: str) -> None:
        if self._blocks is None:
            self._pending.append(text)
            return
        for block in self._blocks.feed(text):
            self._render(block)

    def _end(self, segment: Segment) -> None:
        self._flush()
        if self._blocks is not None:
            for block in self._blocks.finish():
                self._render(block)
            self._blocks = None
        elif segment.kind == "notice":
            self._console.print(Text(without_stacks(segment.text), style="yellow"), end="\n\n")
        elif segment.kind == "tool":
            text = Text(without_stacks(call_text(segment)), "cyan")
            if outcome := OUTCOMES.get(segment.state):
                text.stylize(outcome.terminal, 0, len(text.plain.partition("\n")[0]))
            self._console.print(text, end="\n\n")
        else:
            self._console.print("" if segment.ends_line else "\n")

    def _write_call(self, text: str, end: str = "\n") -> None:
        if text:
            text = without_stacks(text.removeprefix("\n"))
            self._console.print(Text(text, "cyan"), end=end, soft_wrap=True)

    def _print(self, finished: str, line: str) -> None:
        # Whole lines: the status, which shows the one under way, is drawn below them.
        self._write_call(self._transcript.grow(finished))
        printed = self._timeline.segments[self._printing or 0].printed
        if self._status is not None and printed is not None:
            line = clip(printed.line.strip(), max(self._console.width // 2, 20))
            self._status.update(Text(f"{self._timeline.state} {line}".rstrip()))

    def _finish_call(self, rest: str) -> None:
        self._write_call(rest, end="")
        self._console.print("\n" if rest else "")

    def _flush(self) -> None:
        text, self._pending = without_stacks("".join(self._pending)), []
        if text:
            self._console.print(Text(text, self._style), end="", soft_wrap=True)

    def _render(self, block: str) -> None:
        # An ansi_… theme uses the terminal's own colours on its own background.
        markdown = Markdown("", code_theme="ansi_dark", hyperlinks=False)
        markdown.parsed = _visible_tokens(parser().parse(without_stacks(block)))
        lines = [_without_padding(line) for line in self._console.render_lines(markdown, pad=False)]
        while lines and not lines[0]:
            del lines[0]
        while lines and not lines[-1]:
            del lines[-1]
        if not lines:
            return
        for line in lines:
            self._console.print(Segments([*line, RichSegment.line()]), end="", soft_wrap=True)
        self._console.print()

    def _footer(self) -> None:
        timeline, facts = self._timeline, [self._timeline.head]
        if timeline.reply is not None:
            usage = timeline.reply.usage
            if usage.total_tokens:
                facts.append(f"{usage.total_tokens:,} tokens")
            facts.append(f"{usage.seconds:.1f} s")
            if self._options.usage:
                facts[1:] = [str(usage)]
            facts += filter(None, [timeline.usage_mark])
        facts += filter(None, [timeline.tape])
        if line := confidence_line(timeline):
            self._console.print(Text(without_stacks(line), style="dim"), end="\n\n")
        self._console.print(Text(" · ".join(facts), style="dim"))


def _without_padding(line: list[RichSegment]) -> list[RichSegment]:
    """Remove the spaces that rich appends to fill the line."""
    while line and not line[-1].text.strip() and not (line[-1].style and line[-1].style.bgcolor):
        line = line[:-1]
    return line


def _visible_tokens(tokens: list[Token]) -> list[Token]:
    """Turn maths, footnotes and images, which rich drops, into code and text."""
    for token in tokens:
        if token.type == "math_block":
            token.type, token.info = "fence", "latex"
        for child in token.children or []:
            if child.type.startswith("math_inline"):
                dollars = "$$" if child.type.endswith("double") else "$"
                child.type, child.content = "text", f"{dollars}{child.content}{dollars}"
            elif child.type == "footnote":
                child.type, child.content = "text", f"[{child.content}]"
            elif child.type == "image":
                child.type, child.content = "text", f"{child.content} ({child.attrs['src']})"
            child.content = without_stacks(clean(child.content))  # entities have become characters
    return tokens
