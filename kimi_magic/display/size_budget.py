"""The segments of a turn, cut to the size that a notebook keeps.

Half of the characters are for answers, a quarter is for reasoning, and a quarter for tool calls,
their results and notices. Images are counted apart. Of a text that is too long its beginning and
its end are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from kimi_magic.core.messages import Output, ToolResult
from kimi_magic.core.text import clean, cut_note, keep_ends, split_ends, without_blank_lines
from kimi_magic.display.html.tool_results import IMAGES, shown_as
from kimi_magic.display.segments import UNBOUNDED, Kind, Op, Segment

__all__ = ["BoundedSegments"]

SEGMENT_CHARS = 50  # what the markup around a segment counts
IMAGE_SHARE = 20  # base64 characters of images for one of text
# An HTML parser's time grows with the square of the depth of elements.
MAX_HTML = 50_000
SETTING = "(setting max_output_chars)"


class BoundedSegments:
    """A list of segments that share a budget of characters.

    Methods that change a segment append the operations for it to ``ops``.
    """

    def __init__(self, max_chars: int = UNBOUNDED) -> None:
        quarter = max_chars // 4
        self.segments: list[Segment] = []
        self.left_out = ""  # sentence that counts the segments that did not fit
        self._left = {"answer": 2 * quarter, "reasoning": quarter, "": quarter}
        self._images_left = max_chars * IMAGE_SHARE
        self._max_last_answer = quarter
        self._refused: Counter[Kind] = Counter()

    @property
    def tool_limit(self) -> int:
        """Characters for a call's arguments or one output: half of what is left, as more follow."""
        return self._left[""] // 2

    def give_half(self) -> int:
        """Give half of what is left away; return how many characters that is."""
        self._left = {pool: left // 2 for pool, left in self._left.items()}
        self._images_left //= 2
        self._max_last_answer = min(self._max_last_answer, self._left["answer"])
        return sum(self._left.values())

    def admit(self, segment: Segment, ops: list[Op]) -> int | None:
        """Begin a segment if the budget allows, and return its index."""
        pool = _pool(segment.kind)
        if self._left[pool] >= SEGMENT_CHARS:
            self._left[pool] -= SEGMENT_CHARS
            segment.limit = min(segment.limit, self._left[pool])
            return self.begin(segment, ops)
        self._refused[segment.kind] += 1
        counts = ", ".join(
            f"{count:,} × {'tool call' if kind == 'tool' else kind}"
            for kind, count in self._refused.items()
        )
        self.left_out = f"Not kept {SETTING}: {counts}."
        ops.append({"op": "cut", "text": self.left_out})
        return None

    def begin(self, segment: Segment, ops: list[Op]) -> int:
        """Begin a segment whatever the budget is, and return its index."""
        segment.limit, segment.end_limit = split_ends(segment.limit)
        self.segments.append(segment)
        index = len(self.segments) - 1
        facts = {"kind": segment.kind, "title": segment.title}
        ops.append({"op": "segment", "segment": index, **facts})
        return index

    def append(self, index: int, text: str, ops: list[Op]) -> None:
        """Add as much of a text as fits, and keep the end of the rest."""
        segment = self.segments[index]
        limit = 0 if segment.beyond else segment.limit - segment.length
        kept = text[:limit] if segment.guaranteed else self._take(segment.kind, text, limit)
        if kept:
            self._extend(index, kept, ops)
        if len(kept) < len(text):
            if not segment.beyond and not segment.guaranteed:
                segment.end_limit = self._reserve(segment.kind, segment.end_limit)
            segment.skip(text[len(kept) :])
            ops.append({"op": "cut", "segment": index, "text": cut_note(segment.beyond)})

    def complete(self, index: int, text: str, ops: list[Op]) -> None:
        """Add the rest of a text whose beginning the segment has."""
        segment = self.segments[index]
        received = segment.length + segment.beyond
        if received < len(text) and text.startswith(segment.text):
            self.append(index, text[received:], ops)

    def finish(self, index: int, ops: list[Op]) -> None:
        segment = self.segments[index]
        if segment.beyond and not segment.done:
            self._settle(index, ops)
        segment.done = True
        ops.append({"op": "done", "segment": index})

    def restore_last_answer(self, text: str, ops: list[Op]) -> None:
        """Show the final answer even if earlier ones have used the budget up."""
        text = without_blank_lines(clean(text))
        answers = [i for i, segment in enumerate(self.segments) if segment.kind == "answer"]
        last = self.segments[answers[-1]] if answers else None
        if last and last.missing and text.startswith(last.text):
            head, end = split_ends(self._max_last_answer)
            if rest := text[last.length : head]:
                self._extend(answers[-1], rest, ops)
                last.skip_to(text[last.length :], end)
                last.done = False
                self.finish(answers[-1], ops)
        elif self._refused["answer"] and text:
            segment = Segment("answer", limit=self._max_last_answer, guaranteed=True)
            index = self.begin(segment, ops)
            self.append(index, text, ops)
            self.finish(index, ops)

    def cut_text(self, text: str) -> str:
        """Cut a text that belongs to a tool call, with a note on what is missing."""
        return keep_ends(text, self._reserve("tool", min(self.tool_limit, len(text))))

    def cut_result(self, result: ToolResult) -> ToolResult:
        """Cut a tool's result to what is shown of it."""
        shown = result.stdout.strip() or result.outputs or result.error
        return replace(
            result,
            value=None,
            content="" if shown else self.cut_text(result.content),
            error=result.error and self.cut_text(result.error),
            traceback=self.cut_text(result.traceback),
            outputs=tuple(cut for output in result.outputs for cut in self._cut_output(output)),
            stdout=self.cut_text(result.stdout),
        )

    def _cut_output(self, output: Output) -> Iterator[Output]:
        kind, content = shown_as(output)
        if kind in IMAGES:
            if len(content) > self._images_left:
                note = f"An image of {len(content) * 3 // 4:,} bytes is not kept {SETTING}."
                yield Output({"text/plain": note}, {})
                return
            self._images_left -= len(content)
            label = str(output.data.get("text/plain", "Image"))
            yield Output({kind: content, "text/plain": self.cut_text(label)}, output.metadata)
            return
        if kind == "text/plain":
            yield Output({kind: self.cut_text(content)}, {})
            return
        kept = self._reserve("tool", min(self.tool_limit, MAX_HTML, len(content)))
        plain = str(output.data.get("text/plain", f"({kind})"))
        if kept == len(content):
            yield Output({kind: content, "text/plain": plain[:kept]}, {})
            return
        head, end = split_ends(kept)
        yield Output({kind: content[:head], "text/plain": plain[:head]}, {})
        yield Output({"text/plain": cut_note(len(content) - kept)}, {})
        last = content[len(content) - end :]
        last = _rows(last) if kind == "text/html" else last
        yield Output({kind: last, "text/plain": plain[max(len(plain) - end, head) :]}, {})

    def _extend(self, index: int, text: str, ops: list[Op]) -> None:
        at = self.segments[index].append(text)
        ops.append({"op": "append", "segment": index, "at": at, "text": text})

    def _settle(self, index: int, ops: list[Op]) -> None:
        """Give back what the end did not need, and join it to the text if nothing is missing."""
        segment = self.segments[index]
        if not segment.guaranteed:
            self._left[_pool(segment.kind)] += max(segment.end_limit - segment.beyond, 0)
        if not segment.missing:
            self._extend(index, segment.end, ops)
            segment.skip_to("", 0)
        ops.append({"op": "cut", "segment": index, "text": cut_note(segment.missing)})

    def _reserve(self, kind: Kind, number: int) -> int:
        """Take up to that many characters off the budget, and return their number."""
        pool = _pool(kind)
        taken = max(min(self._left[pool], number), 0)
        self._left[pool] -= taken
        return taken

    def _take(self, kind: Kind, text: str, limit: int) -> str:
        return text[: self._reserve(kind, min(len(text), limit))]


def _pool(kind: Kind) -> str:
    return kind if kind in ("answer", "reasoning") else ""


def _rows(html: str) -> str:
    """Return the end of a table as a table of its own, from its first whole row on."""
    _, row, rest = html.partition("<tr")
    return f"<table>{row}{rest}" if row else html.partition(">")[2]
