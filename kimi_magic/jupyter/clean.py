"""``kimi-magic clean``: take out of notebooks what is not to be published.

Everything else in a file keeps its bytes, as far as its JSON is laid out by any rule: it is
written again with the indentation, the separators and the escapes that it came with.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from kimi_magic.chats.notebook_file import KEY, parse_notebook, read_bytes, write_whole
from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import count

__all__ = ["Mode", "clean_files", "clean_notebook"]

Mode = Literal["turns", "keep-answers", "all"]
"""To be removed: the turns in the metadata; reasoning and tool calls as well; our outputs."""

PIPE = "-"
_DETAILS = re.compile(r"</?details\b[^>]*>")
_KIMI_CELL = re.compile(r"\s*%%kimi\b")
_KIMI_LINE = re.compile(r"\s*(?:[^\W\d]\w*\s*=\s*)?%kimi\b")
_BLOCK_END = re.compile(r"</(?:p|li|h\d|pre|tr|div|table|blockquote)>|<br\s*/?>")
_TAG = re.compile(r"<[^>]*>")
_LINE_BREAKS = re.compile(r"\n{3,}")
_INDENT = re.compile(r"\{\r?\n([ \t]+)\"")
_HALF = re.compile("[\ud800-\udfff]")  # of a code point; UTF-8 cannot hold it


def clean_files(names: Sequence[str], mode: Mode) -> int:
    """Clean files in their place, or stdin to stdout for ``-``; return the exit code."""
    failed = 0
    for name in names:
        try:
            if name == PIPE:
                data = sys.stdin.buffer.read()
                # Of an empty file git asks, too.
                sys.stdout.buffer.write(clean_notebook(data, "stdin", mode)[0] if data else data)
                sys.stdout.buffer.flush()
                continue
            path = Path(name)
            cleaned, number = clean_notebook(read_bytes(path), path.name, mode)
            if number:
                write_whole(path, cleaned, replace_it=True)
            said = f"{name}: {count(number, 'output')} cleaned"
            print(said, file=sys.stderr if PIPE in names else sys.stdout)
        except KimiError as error:
            failed = 1
            print(f"kimi-magic: {error}", file=sys.stderr)
    return failed


def clean_notebook(data: bytes, name: str, mode: Mode = "turns") -> tuple[bytes, int]:
    """Return a cleaned notebook, and the number of its outputs that were changed or removed.

    Raises
    ------
    KimiError
        It is no notebook.
    """
    text = data.decode("utf-8", "replace")
    lower = text.lower()
    private = ((f"\\u{number:04x}", chr(number)) for number in range(0xE000, 0xF8FF))
    mark = next(char for escape, char in private if char not in text and escape not in lower)
    notebook = parse_notebook(
        data,
        name,
        parse_float=lambda n: mark + n,
        parse_constant=lambda n: mark + n,
        parse_int=lambda n: int(n) if len(n) < 16 and n != "-0" else mark + n,
    )
    layout = _layout(text, notebook, mark)
    changed = sum(_clean_cell(cell, mode) for cell in notebook["cells"])
    return (layout.write(notebook).encode() if changed else data), changed


@dataclass(frozen=True, slots=True)
class _Layout:
    """A way to write JSON; by default Jupyter's.

    ``mark`` stands before numbers, which keep their digits.
    """

    mark: str
    indent: str | None = " "
    comma: str = ","
    colon: str = ": "
    ascii_only: bool = False
    newline: str = "\n"
    before: str = ""  # a byte order mark
    end: str = "\n"

    def write(self, value: Any) -> str:
        text = json.dumps(
            value,
            indent=self.indent,
            separators=(self.comma, self.colon),
            ensure_ascii=self.ascii_only,
        )
        number = f'"(?:{self.mark}|\\\\u{ord(self.mark):04x})([-+.\\w]+)"'
        text = re.sub(number, r"\1", text)
        text = _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
        return self.before + text.replace("\n", self.newline) + self.end


def _layout(text: str, notebook: dict[str, Any], mark: str) -> _Layout:
    """Return the layout of a notebook's text, or Jupyter's where it has none of its own."""
    before = "\ufeff" if text.startswith("\ufeff") else ""
    newline = "\r\n" if "\r\n" in text else "\n"
    body = text.removeprefix(before)
    found = _INDENT.match(body)
    indent, end = found[1] if found else None, body[len(body.rstrip()) :]
    commas = (",",) if found else (", ", ",")
    for comma, colon, ascii_only in product(commas, (": ", ":"), (False, True)):
        layout = _Layout(mark, indent, comma, colon, ascii_only, newline, before, end)
        if layout.write(notebook) == text:
            return layout
    return _Layout(mark)


def _clean_cell(cell: dict[str, Any], mode: Mode) -> int:
    """Clean the outputs of a cell, and return how many were changed or removed."""
    outputs = cell.get("outputs")
    if not isinstance(outputs, list):
        return 0
    asks = _is_ours(cell)
    if mode == "all":
        kept = [output for output in outputs if not (asks or _carries(output) or _drawn(output))]
        removed = len(outputs) - len(kept)
        outputs[:] = kept
        return removed
    changed = 0
    for output in outputs:
        ours = _carries(output)
        stripped = mode == "keep-answers" and (ours or asks or _drawn(output)) and _strip(output)
        if ours:
            del output["metadata"][KEY]
        changed += ours or stripped
    return changed


def _is_ours(cell: dict[str, Any]) -> bool:
    """Return True if all that a cell shows is ours."""
    source = _joined(cell.get("source"))
    lines = [line for line in source.splitlines() if line.strip()]
    return bool(_KIMI_CELL.match(source)) or bool(lines and all(map(_KIMI_LINE.match, lines)))


def _carries(output: Any) -> bool:
    metadata = output.get("metadata") if isinstance(output, dict) else None
    return isinstance(metadata, dict) and KEY in metadata


def _page(output: Any) -> str:
    data = output.get("data") if isinstance(output, dict) else None
    return _joined(data.get("text/html")) if isinstance(data, dict) else ""


def _drawn(output: Any) -> bool:
    """Return True for a record whose metadata were removed."""
    from kimi_magic.display.record import is_record

    return is_record(_page(output))


def _strip(output: dict[str, Any]) -> bool:
    """Remove reasoning and tool calls from what an output shows; False if there are none."""
    page = _page(output)
    kept = "".join(_outside_details(page))
    if kept == page:
        return False
    data = output["data"]
    for kind, text in (("text/html", kept), ("text/plain", _text_of(kept))):
        lines = isinstance(data.get(kind), list)
        data[kind] = text.splitlines(keepends=True) if lines or kind not in data else text
    return True


def _outside_details(page: str) -> Iterator[str]:
    """Yield the pieces of a page around what is folded; they end where that began."""
    depth = end = 0
    for tag in _DETAILS.finditer(page):
        if tag[0].startswith("</"):
            depth = max(depth - 1, 0)
            if not depth:
                end = tag.end() + (page[tag.end() :][:1] == "\n")
        else:
            if not depth:
                yield page[end : tag.start()]
            depth += 1
    if not depth:
        yield page[end:]


def _text_of(page: str) -> str:
    text = html.unescape(_TAG.sub("", _BLOCK_END.sub("\n", page)))
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return _LINE_BREAKS.sub("\n\n", lines).strip()


def _joined(text: Any) -> str:
    """Return a text that nbformat may have split into lines."""
    if isinstance(text, list):
        return "".join(line for line in text if isinstance(line, str))
    return text if isinstance(text, str) else ""
