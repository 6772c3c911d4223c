"""Turns in notebook files: read out of the metadata of outputs, and written as cells.

A notebook that is read may be somebody else's: only the turns in it are looked at, as data, and
each fault of the file is told in one line.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Message
from kimi_magic.core.text import clip, why_not_written
from kimi_magic.core.turn_record import TurnRecord

__all__ = [
    "KEY",
    "MAX_BYTES",
    "SavedCell",
    "notebook_text",
    "parse_notebook",
    "read_bytes",
    "read_turns",
    "write_whole",
]

KEY = "kimi_magic"  # in the metadata of an output
MAX_BYTES = 200_000_000
MOST_CONTAINERS = 2_000_000  # lists and objects, each of which takes 64 bytes and more
MAX_TURN = 50_000_000  # characters: a message may repeat a step by its number alone
MAX_NAME = 200
_CELL_ID = re.compile(r"[a-zA-Z0-9-_]{1,64}")


class SavedCell(NamedTuple):
    """A cell to write: its source, and what its output shows."""

    source: str
    data: dict[str, Any]
    metadata: dict[str, Any]


def read_turns(path: Path) -> list[TurnRecord]:
    """Return the turns that a notebook carries, in the order of its cells, each with its cell's id.

    Raises
    ------
    KimiError
        It is no such file, or a turn in it is none; the message names the file and the cell.
    """
    notebook = parse_notebook(read_bytes(path), path.name)
    turns = []
    for number, cell in enumerate(notebook["cells"], 1):
        for carried in _carried_in(cell):
            try:
                turns.append(_turn_of(carried, cell.get("id")))
            except (KimiError, RecursionError) as error:
                why = str(error) or "it is nested too deeply"
                raise KimiError(f"{path.name}, cell {number}: {why}") from None
    return [turn for turn in turns if turn.messages]


def read_bytes(path: Path) -> bytes:
    """Read a file of bounded size.

    Raises
    ------
    KimiError
        There is none, or it is too long.
    """
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise KimiError(f"{path.name} is not a file.")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise KimiError(f"{path} cannot be read: {why_not_written(error)}.") from None
    if len(data) > MAX_BYTES:
        most = f"{MAX_BYTES // 1_000_000} MB"
        raise KimiError(f"{path.name} is larger than {most}: clear outputs that are large.")
    return data


def parse_notebook(data: bytes, name: str, **numbers: Any) -> dict[str, Any]:
    """Read the JSON of a notebook of version 4: an object with a list of cells, all objects.

    Nothing else of it is checked. ``numbers`` go to ``json.loads``.

    Raises
    ------
    KimiError
        It is none.
    """
    if data.count(b"{") + data.count(b"[") > MOST_CONTAINERS:
        raise KimiError(f"{name} holds more than {MOST_CONTAINERS:,} lists and objects.")
    try:
        whole: Any = json.loads(data.decode("utf-8-sig"), **numbers)
    except RecursionError:
        raise KimiError(f"{name} is no notebook: it is nested too deeply.") from None
    except ValueError:
        raise KimiError(f"{name} is no notebook: it is not JSON, or not whole.") from None
    version = whole.get("nbformat") if isinstance(whole, dict) else None
    if type(version) is not int:
        raise KimiError(f"{name} is no notebook.")
    if version != 4:
        hint = " `jupyter nbconvert --to notebook --inplace` brings it up to date."
        raise KimiError(
            f"{name} is a notebook of version {clip(str(version), 12)}; kimi-magic reads version 4."
            f"{hint if version < 4 else ''}"
        )
    cells = whole.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise KimiError(f"{name} is no notebook: it has no cells.")
    return dict(whole)


def _carried_in(cell: dict[str, Any]) -> Iterator[Any]:
    """Yield what the outputs of a cell carry as their turns."""
    outputs = cell.get("outputs")
    if cell.get("cell_type") != "code" or not isinstance(outputs, list):
        return
    for output in outputs:
        place = output.get("metadata") if isinstance(output, dict) else None
        facts = place.get(KEY) if isinstance(place, dict) else None
        if isinstance(facts, dict) and "turn" in facts:
            yield facts["turn"]


def _turn_of(carried: Any, given_id: object) -> TurnRecord:
    if not isinstance(carried, dict):
        raise KimiError("This is no record of a turn: it is no object.")
    record = TurnRecord.from_dict(carried)
    if problem := _problem(record):
        raise KimiError(f"This is no record of a turn: {problem}.")
    # nbformat 4.4 and earlier gives cells no ids.
    cell_id = given_id if isinstance(given_id, str) and _CELL_ID.fullmatch(given_id) else ""
    return replace(record, cell=cell_id, run="")


def _problem(record: TurnRecord) -> str:
    """Return why a record cannot be part of a chat; "" where it can.

    Its messages go to the server again, which takes a call only with its result.
    """
    texts = (len(m.text) + len(m.reasoning_text or "") for m in record.messages)
    if sum(texts) > MAX_TURN:
        return "its messages are too long"
    if record.chat is not None and not 0 < len(record.chat) <= MAX_NAME:
        return "the name of its chat does not fit"
    if record.sent < 0 or record.sent > len(record.messages) or not record.messages:
        # A form that was cut to nothing has no messages at all.
        return "" if record.sent == 0 == len(record.messages) else "sent does not fit"
    head, own = record.messages[: record.sent - 1], record.messages[record.sent - 1 :]
    if record.sent == 0 or own[0].role != "user" or any(m.role != "system" for m in head):
        return "its messages are in no order"
    return "" if _is_dialogue(own) else "its messages are in no order"


def _is_dialogue(own: Sequence[Message]) -> bool:
    """Return True if each call is followed by its result, and each result follows its call."""
    open_calls: list[str] = []
    for message in own:
        if message.role == "system" or message.partial:
            return False
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                return False
            open_calls.remove(message.tool_call_id or "")
            continue
        if open_calls or (message.tool_calls and message.role != "assistant"):
            return False
        open_calls = [call.id for call in message.tool_calls]
    return not open_calls


def notebook_text(cells: Iterable[SavedCell]) -> str:
    """Return a notebook of cells, as Jupyter would write it; the same cells give the same text."""
    import nbformat as half_typed

    nbformat: Any = half_typed
    v4 = nbformat.v4
    first = SavedCell("%load_ext kimi_magic\nimport kimi_magic as kimi", {}, {})
    nodes = []
    for number, cell in enumerate([first, *cells]):
        shown = [v4.new_output("display_data", cell.data, metadata=cell.metadata)]
        name = sha256(f"{number}\n{cell.source}".encode("utf-8", "replace")).hexdigest()[:16]
        nodes.append(v4.new_code_cell(cell.source, id=name, outputs=shown if cell.data else []))
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = v4.new_notebook(cells=nodes, metadata=metadata)
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


def write_whole(path: Path, data: bytes, *, replace_it: bool = False) -> None:
    """Write a file as a whole or not at all; one that exists is replaced only if it is asked for.

    Raises
    ------
    KimiError
        It exists, or cannot be written.
    """
    target = Path(os.path.realpath(path))  # the file that a link leads to
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace_it:
                with suppress(FileNotFoundError):
                    beside.chmod(stat.S_IMODE(target.stat().st_mode))
                beside.replace(target)
            else:
                _link(beside, target)
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError:
        raise KimiError(f"{path} exists already; --force (force=True) replaces it.") from None
    except OSError as error:
        raise KimiError(f"{path} cannot be written: {why_not_written(error)}.") from None


def _link(beside: Path, target: Path) -> None:
    """Give a file its name, unless another has it."""
    try:
        os.link(beside, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        target.open("xb").close()
        beside.replace(target)
