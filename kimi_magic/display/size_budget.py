"""What a notebook keeps of one turn, whatever a model or a tool sends.

Half of the characters are for answers, a quarter is for reasoning, and a quarter for calls, their
results and notices. Images are counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from kimi_magic.core.messages import Output, ToolResult
from kimi_magic.display.html.tool_results import IMAGES, shown_as
from kimi_magic.display.segments import UNBOUNDED, Kind

__all__ = ["SizeBudget", "cut_note"]

PART = 50  # characters that a part takes for what stands around it
IMAGE_SHARE = 20  # characters of images in base64 for one of text
# The HTML parser's time grows with the square of the depth of elements.
MOST_HTML = 50_000
SETTING = "(setting max_output_chars)"


def cut_note(missing: int) -> str:
    """Say how much is missing; "" for nothing."""
    return f"… and {missing:,} more characters, which are not kept {SETTING}" if missing else ""


class SizeBudget:
    """The room that is left.

    Parameters
    ----------
    chars : int
        How many characters the turn may take.
    """

    def __init__(self, chars: int = UNBOUNDED) -> None:
        quarter = chars // 4
        self._left = {"answer": 2 * quarter, "reasoning": quarter, "": quarter}
        self._images = chars * IMAGE_SHARE
        self._left_out: Counter[Kind] = Counter()
        self.of_the_last_answer = quarter

    def admits(self, kind: Kind) -> bool:
        """Whether one more part has room; those that have none are counted."""
        pool = _pool(kind)
        if self._left[pool] < PART:
            self._left_out[kind] += 1
            return False
        self._left[pool] -= PART
        return True

    def lacks(self, kind: Kind) -> bool:
        """Whether a part of this kind had no room."""
        return kind in self._left_out

    def left_out(self) -> str:
        """Say which parts had no room; "" for none."""
        counted = ", ".join(
            f"{count:,} × {'tool call' if kind == 'tool' else kind}"
            for kind, count in self._left_out.items()
        )
        return f"Not kept {SETTING}: {counted}." if counted else ""

    def half(self) -> int:
        """What a call's arguments or one of its outputs may take: others want room too."""
        return self._left[""] // 2

    def take(self, kind: Kind, text: str, most: int = UNBOUNDED) -> str:
        """As much of the text as there is room for."""
        pool = _pool(kind)
        kept = text[: max(min(self._left[pool], most), 0)]
        self._left[pool] -= len(kept)
        return kept

    def text(self, text: str) -> str:
        """A text of a call, with a word on what is missing."""
        kept = self.take("tool", text, self.half())
        return kept if len(kept) == len(text) else f"{kept}\n{cut_note(len(text) - len(kept))}"

    def result(self, result: ToolResult) -> ToolResult:
        """A call's result as far as it is shown."""
        shown = result.stdout.strip() or result.outputs or result.error
        return replace(
            result,
            value=None,
            content="" if shown else self.text(result.content),
            error=result.error and self.text(result.error),
            traceback=self.text(result.traceback),
            outputs=tuple(kept for output in result.outputs for kept in self._outputs(output)),
            stdout=self.text(result.stdout),
        )

    def _outputs(self, output: Output) -> Iterator[Output]:
        """What is shown of an output, and a word on what is missing."""
        kind, content = shown_as(output)
        if kind in IMAGES:
            if len(content) > self._images:
                note = f"An image of {len(content) * 3 // 4:,} bytes is not kept {SETTING}."
                yield Output({"text/plain": note}, {})
                return
            self._images -= len(content)
            label = str(output.data.get("text/plain", "Image"))
            yield Output({kind: content, "text/plain": self.text(label)}, output.metadata)
            return
        if kind == "text/plain":
            yield Output({kind: self.text(content)}, {})
            return
        kept = self.take("tool", content, min(self.half(), MOST_HTML))
        plain = output.data.get("text/plain", f"({kind})")
        yield Output({kind: kept, "text/plain": str(plain)[: len(kept)]}, {})
        if len(kept) < len(content):
            yield Output({"text/plain": cut_note(len(content) - len(kept))}, {})


def _pool(kind: Kind) -> str:
    return kind if kind in ("answer", "reasoning") else ""
