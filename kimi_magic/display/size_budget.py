"""The segments of a turn, cut to the size that a notebook keeps.

Half of the characters are for answers, a quarter is for reasoning, and a quarter for tool calls,
their results and notices. Images are counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from kimi_magic.core.messages import Output, ToolResult
from kimi_magic.core.text import clean, without_blank_lines
from kimi_magic.display.html.tool_results import IMAGES, shown_as
from kimi_magic.display.segments import UNBOUNDED, Kind, Op, Segment

__all__ = ["BoundedSegments", "cut_note"]

SEGMENT_CHARS = 50  # what the markup around a segment counts
IMAGE_SHARE = 20  # base64 characters of images for one of text
# An HTML parser's time grows with the square of the depth of elements.
MAX_HTML = 50_000
SETTING = "(setting max_output_chars)"


def cut_note(missing: int) -> str:
    """Say how many characters are missing; "" if none are."""
    return f"… and {missing:,} more characters, which are not kept {SETTING}" if missing else ""


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

    def admit(self, segment: Segment, ops: list[Op]) -> int | None:
        """Begin a segment if the budget allows, and return its index."""
        pool = _pool(segment.kind)
        if self._left[pool] >= SEGMENT_CHARS:
            self._left[pool] -= SEGMENT_CHARS
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
        self.segments.append(segment)
        index = len(self.segments) - 1
        facts = {"kind": segment.kind, "title": segment.title}
        ops.append({"op": "segment", "segment": index, **facts})
        return index

    def append(self, index: int, text: str, ops: list[Op]) -> None:
        """Add as much of a text as fits."""
        segment = self.segments[index]
        limit = segment.limit - segment.length
        kept = text[:limit] if segment.guaranteed else self._take(segment.kind, text, limit)
        if kept:
            at = segment.append(kept)
            ops.append({"op": "append", "segment": index, "at": at, "text": kept})
        if len(kept) < len(text):
            segment.missing += len(text) - len(kept)
            ops.append({"op": "cut", "segment": index, "text": cut_note(segment.missing)})

    def complete(self, index: int, text: str, ops: list[Op]) -> None:
        """Add the rest of a text whose beginning the segment has."""
        segment = self.segments[index]
        received = segment.length + segment.missing
        if received < len(text) and text.startswith(segment.text):
            self.append(index, text[received:], ops)

    def finish(self, index: int, ops: list[Op]) -> None:
        self.segments[index].done = True
        ops.append({"op": "done", "segment": index})

    def restore_last_answer(self, text: str, ops: list[Op]) -> None:
        """Show the final answer even if earlier ones have used the budget up."""
        text = without_blank_lines(clean(text))[: self._max_last_answer]
        answers = [i for i, segment in enumerate(self.segments) if segment.kind == "answer"]
        last = self.segments[answers[-1]] if answers else None
        if last and last.missing and text.startswith(last.text):
            index = answers[-1]
        elif self._refused["answer"] and text:
            index = self.begin(Segment("answer"), ops)
        else:
            return
        segment = self.segments[index]
        if rest := text[segment.length :]:
            segment.missing = max(segment.missing - len(rest), 0)
            at = segment.append(rest)
            ops.append({"op": "append", "segment": index, "at": at, "text": rest})
            ops.append({"op": "cut", "segment": index, "text": cut_note(segment.missing)})
            self.finish(index, ops)

    def cut_text(self, text: str) -> str:
        """Cut a text that belongs to a tool call, with a note on what is missing."""
        kept = self._take("tool", text, self.tool_limit)
        return kept if len(kept) == len(text) else f"{kept}\n{cut_note(len(text) - len(kept))}"

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
        kept = self._take("tool", content, min(self.tool_limit, MAX_HTML))
        plain = output.data.get("text/plain", f"({kind})")
        yield Output({kind: kept, "text/plain": str(plain)[: len(kept)]}, {})
        if len(kept) < len(content):
            yield Output({"text/plain": cut_note(len(content) - len(kept))}, {})

    def _take(self, kind: Kind, text: str, limit: int) -> str:
        pool = _pool(kind)
        kept = text[: max(min(self._left[pool], limit), 0)]
        self._left[pool] -= len(kept)
        return kept


def _pool(kind: Kind) -> str:
    return kind if kind in ("answer", "reasoning") else ""
