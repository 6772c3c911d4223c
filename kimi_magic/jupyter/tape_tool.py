"""``kimi-magic tape``: list the exchanges of a tape, verify it, drop or rename some.

A tape may come from anybody: of its texts nothing reaches the terminal that it would obey.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import TapeError
from kimi_magic.core.text import clean, clip, columns, count, cut, without_stacks

if TYPE_CHECKING:
    from kimi_magic.wire.tape_file import Header, Recording, TapeContent, TapeFile

__all__ = ["add_tape_commands", "run_tape_command"]

HEAD = ("n", "model", "step", "prompt", "asks for", "status", "size", "tokens", "time")
MAX_CELL, MAX_PROMPT, MAX_LINE = 28, 44, 200
MOST_LISTED = 1000
MOST_FOUND = 100  # problems that are said one by one
MAX_TEXT = 20_000  # characters of one message
# Fields of a request or of its answer that a tape never holds.
NEVER_KEPT = frozenset(
    "authorization proxy-authorization cookie set-cookie x-api-key api-key api_key "
    "openai-organization openai-project".split()
)
_PICTURE = re.compile(r"data:image/[a-z.+-]+;base64,[A-Za-z0-9+/=]+")  # shapes hit it by chance
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


def add_tape_commands(commands: Any) -> None:
    """Add ``tape`` and its commands to the parser's."""
    tape = commands.add_parser(
        "tape", help="list, verify or edit the exchanges of a tape", allow_abbrev=False
    )
    verbs = tape.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    show = verbs.add_parser("show", help="list the exchanges, or show one", allow_abbrev=False)
    show.add_argument("file", metavar="FILE")
    show.add_argument("number", nargs="?", type=int, metavar="N", help="show this one, whole")
    show.add_argument(
        "--all", action="store_true", help=f"list more than the first {MOST_LISTED:,}"
    )
    check = verbs.add_parser(
        "check",
        help="verify that a tape is whole and holds no key",
        description="Say where a line is damaged, or something looks like a key; then the exit "
        "code is 1. It is 2 for what is no tape.",
        allow_abbrev=False,
    )
    check.add_argument("files", nargs="+", metavar="FILE")
    edit = verbs.add_parser(
        "edit",
        help="drop exchanges, rename their model or endpoint",
        description="Change a tape in its place, all of it or nothing.",
        allow_abbrev=False,
    )
    edit.add_argument("file", metavar="FILE")
    edit.add_argument("--drop", nargs="+", default=[], metavar="N|N-M", help="drop these exchanges")
    edit.add_argument(
        "--drop-damaged", action="store_true", help="drop the lines that are not whole"
    )
    edit.add_argument(
        "--rename-model",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="for a model whose id has changed; the tape tells under which it was recorded",
    )
    edit.add_argument(
        "--rename-endpoint", nargs=2, metavar=("OLD", "NEW"), help="name the endpoint otherwise"
    )
    edit.add_argument(
        "--scripted",
        action="store_true",
        help="mark the tape as one that no model made; there is no way back",
    )


def run_tape_command(given: argparse.Namespace) -> int:
    """Run one of the commands; 1 where ``check`` found something, 2 for what cannot be used."""
    try:
        if given.verb == "check":
            return max([_check(name) for name in given.files])
        (_show if given.verb == "show" else _edit)(given)
    except TapeError as error:
        return _refuse(str(error))
    return 0


def _refuse(why: str) -> int:
    print(f"kimi-magic: {_line(why)}", file=sys.stderr)
    return 2


def _line(text: str) -> str:
    return clip(without_stacks(clean(" ".join(text.split()))), 3 * MAX_LINE)


def _opened(name: str) -> TapeFile:
    from kimi_magic.wire.tape_file import TapeFile

    try:
        file = TapeFile(name)
        if file.path.is_file():
            return file
        why = "it is no file" if file.exists else "there is no such file"
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, a home of nobody's
        why = str(getattr(error, "strerror", None) or error)
    raise TapeError(f"{name} cannot be read: {why}.")


def _read(file: TapeFile) -> tuple[Header, TapeContent]:
    content = file.read()
    if content.header is None:
        raise TapeError((*content.problems, f"{file.name} is no tape: it is empty.")[0])
    return content.header, content


def _show(given: argparse.Namespace) -> None:
    file = _opened(given.file)
    header, content = _read(file)
    total = len(content.recordings)
    if given.number is not None:
        if not 1 <= given.number <= total:
            raise TapeError(f"{file.name} has {count(total, 'exchange')}, from 1 on.")
        recording = content.recordings[given.number - 1]
        print(f"{_line(file.name)}, exchange {given.number:,} of {total:,}")
        print("\n".join(_whole(recording)))
        return
    made_by = _made_by(header.made_by)
    print(f"{_line(file.name)}: version {header.version}, {count(total, 'exchange')}, {made_by}")
    shown = content.recordings if given.all else content.recordings[:MOST_LISTED]
    if shown:
        print(columns([HEAD, *(_row(number, each) for number, each in enumerate(shown, 1))]))
    if more := total - len(shown):
        print(f"{count(more, 'more exchange')}: --all lists them.")
    for problem in content.problems[:MOST_FOUND]:
        print(_line(problem), file=sys.stderr)


def _row(number: int, recording: Recording) -> tuple[str, ...]:
    from kimi_magic.wire.recorded_answer import answer_in

    answer = answer_in(recording.body)
    meaning, cue = recording.meaning, recording.cue
    calls = ", ".join(call.name for call in answer.message.tool_calls) if answer else ""
    usage = answer.usage if answer else None
    known = usage is not None and usage.total_tokens > 0
    step = cue.get("step")
    lane = f"{recording.lane}:" if recording.lane else ""
    return (
        str(number),
        _cell(meaning.get("model")),
        f"{lane}{step}" if type(step) is int else lane,
        clip(_cell(_prompt(recording), MAX_PROMPT), MAX_PROMPT),
        _cell(calls),
        "" if recording.status == 200 else str(recording.status),
        _size(sum(len(data) for _, data in recording.pieces)),
        f"{usage.prompt_tokens:,} → {usage.completion_tokens:,}" if known and usage else "",
        f"{recording.seconds:.1f} s",
    )


def _cell(text: object, most: int = MAX_CELL) -> str:
    if not isinstance(text, str):
        return ""
    words = " ".join(text[: 4 * most].split())
    return clip(without_stacks(clean(words)), most)


def _size(number: int) -> str:
    return f"{number:,} B" if number < 10_000 else f"{number / 1000:,.0f} kB"


def _made_by(made_by: Mapping[str, Any]) -> str:
    """Say what was recorded, in words."""
    model, endpoint, date, before = (
        _cell(made_by.get(name)) for name in ("model", "endpoint", "date", "recorded_as")
    )
    said = "scripted, no model made it" if made_by.get("scripted") else ""
    said = said or (f"recorded from {model or 'an unknown model'}")
    said += f" (then {before})" if before else ""
    said += f" at {endpoint}" if endpoint else ""
    said += ", the practice model" if made_by.get("engine") else ""
    return f"{said}, {date}" if date else said


def _prompt(recording: Recording) -> str:
    """Return what was asked: the prompt as typed, else the last message of the user's."""
    if isinstance(prompt := recording.cue.get("prompt"), str) and prompt.strip():
        return prompt
    asked = [m for m in _list(recording.meaning.get("messages")) if m.get("role") == "user"]
    return _text(asked[-1].get("content")) if asked else ""


def _list(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(content: object) -> str:
    """Return a message's content as text."""
    if isinstance(content, str):
        return content
    parts = [
        str(part["text"]) if isinstance(part.get("text"), str) else f"[{part.get('type')}]"
        for part in _list(content)
    ]
    return "\n".join(parts)


def _whole(recording: Recording) -> Iterator[str]:
    """Yield the lines that show an exchange."""
    from kimi_magic.wire.recorded_answer import answer_in

    meaning, cue = recording.meaning, recording.cue
    made_by = _made_by(recording.made_by)
    yield made_by[0].upper() + made_by[1:]
    yield _facts(step=cue.get("step"), trajectory=recording.lane or None)
    known = ("messages", "tools")
    parameters = {name: value for name, value in meaning.items() if name not in known}
    yield _block("Request", _pretty(parameters))
    for tool in _list(meaning.get("tools")):
        yield _block("Tool", _pretty(tool.get("function", tool)))
    for message in _list(meaning.get("messages")):
        yield from _message(message)
    status = f"{recording.status}, {count(len(recording.pieces), 'piece')}"
    size = _size(len(recording.body))
    yield f"\nAnswer: status {status}, {size} in {recording.seconds:.1f} s"
    for name, value in recording.headers.items():
        yield f"  {_line(name)}: {_line(value)}"
    answer = answer_in(recording.body)
    if answer is None:
        yield _block("Body", recording.body.decode("utf-8", "replace"))
        return
    if answer.message.reasoning_text:
        yield _block("Reasoning", answer.message.reasoning_text)
    if answer.message.text:
        yield _block("Text", answer.message.text)
    for call in answer.message.tool_calls:
        yield _block("Tool call", f"{call.name}({call.arguments})")
    usage = answer.usage if answer.usage.total_tokens else None
    tokens = f"{usage.prompt_tokens:,} in, {usage.completion_tokens:,} out" if usage else None
    yield _facts(model=answer.model, finish_reason=answer.finish_reason, tokens=tokens)


def _message(message: Mapping[str, Any]) -> Iterator[str]:
    role = _cell(message.get("role"))
    for name in ("reasoning", "reasoning_content"):
        if isinstance(message.get(name), str):
            yield _block(f"{role}, reasoning", message[name])
    for block in _list(message.get("thinking_blocks")):
        if isinstance(block.get("thinking"), str):
            yield _block(f"{role}, reasoning", block["thinking"])
    if text := _text(message.get("content")):
        name = _cell(message.get("name"))
        yield _block(f"{role} {name}".strip(), text)
    for call in _list(message.get("tool_calls")):
        function = call.get("function")
        made = function if isinstance(function, dict) else call
        arguments = made.get("arguments")
        written = arguments if isinstance(arguments, str) else _pretty(arguments, None)
        yield _block(f"{role}, tool call", f"{made.get('name')}({written})")


def _facts(**facts: object) -> str:
    said = [f"{name.replace('_', ' ')}: {_line(str(v))}" for name, v in facts.items() if v]
    return "  ".join(said)


def _block(title: str, text: str) -> str:
    shown = without_stacks(clean(cut(text.rstrip(), MAX_TEXT)))
    return f"\n[{title}]\n{shown}"


def _pretty(value: object, indent: int | None = 2) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent)
    except RecursionError:
        return "(nested too deeply)"


def _check(name: str) -> int:
    """Verify a tape; return 0, 1 where something is wrong with it, or 2 for what is none."""
    try:
        file = _opened(name)
        header, content = _read(file)
        lines = file.lines()
    except TapeError as error:
        return _refuse(str(error))
    found = [*content.problems, *(f"{file.name}, {each}" for each in _leaks(lines))]
    for problem in found[:MOST_FOUND]:
        print(_line(problem))
    if len(found) > MOST_FOUND:
        print(f"{_line(file.name)}: {len(found) - MOST_FOUND:,} more problems.")
    total = count(len(content.recordings), "exchange")
    if not found:
        said = f"version {header.version}, {total}, whole, nothing that looks like a key"
        print(f"{_line(file.name)}: {said}.")
    return 1 if found else 0


def _leaks(lines: Sequence[bytes]) -> Iterator[str]:
    """Yield where something looks like a key, and the fields that a tape never holds."""
    from kimi_magic.secrets.redact import Redactor
    from kimi_magic.session import current
    from kimi_magic.wire.apis import wire_of_body
    from kimi_magic.wire.tape_file import read_line
    from kimi_magic.wire.tape_secrets import find_secret

    keys = current().connector.known_keys()

    def found_in(text: str) -> tuple[str, ...]:
        redactor = Redactor(keys, shapes=True)
        redactor.text(_PICTURE.sub("", text))
        return redactor.found

    for number, line in enumerate(lines, 1):
        data = read_line(line)
        if data is None:
            yield from (
                f"line {number}: {found}" for found in found_in(line.decode("utf-8", "replace"))
            )
            continue
        yield from (f"line {number}, {name}: a tape never holds it" for name in _forbidden(data))
        body = _body(data.pop("pieces", None))
        for place, text in _texts(data):
            yield from (f"line {number}, {place}: {found}" for found in found_in(text))
        in_body = found_in(body.decode("utf-8", "replace"))
        # A key that came in pieces is whole in the answer only.
        spoken = [found for text in _spoken(body) for found in found_in(text)]
        if not (in_body or spoken) and (
            place := find_secret(((0.0, body),), keys, wire_of_body(body))
        ):
            spoken = [f"{place} holds a key, or what looks like one"]
        for found in dict.fromkeys([*in_body, *spoken]):
            yield f"line {number}, pieces: {found}"


def _forbidden(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of headers that are on the line, with their places."""
    for where in ("", "headers", "made_by", "facts"):
        part = data.get(where) if where else data
        for name in part if isinstance(part, dict) else ():
            if name.lower() in NEVER_KEPT:
                yield f"{where}.{name}".lstrip(".")


def _texts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each text in a line, names of fields included, with its place."""
    waiting: list[tuple[str, Any]] = [("", data)]  # not by recursion: somebody may nest it deeply
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            yield clip(place, MAX_LINE), value
        elif isinstance(value, dict):
            below = [(f"{place}.{name}".lstrip("."), item) for name, item in value.items()]
            waiting += reversed(below)
            yield clip(place, MAX_LINE), "\n".join(value)
        elif isinstance(value, list):
            waiting += reversed([(f"{place}[{i}]", item) for i, item in enumerate(value)])


def _body(pieces: object) -> bytes:
    """Return as much of a body as its pieces hold, whatever else they may be."""
    whole = bytearray()
    for piece in pieces if isinstance(pieces, list) else ():
        data = piece[1] if isinstance(piece, list) and len(piece) > 1 else None
        if isinstance(data, dict) and isinstance(data.get("base64"), str):
            with suppress(ValueError):
                whole += b64decode(data["base64"])
        elif isinstance(data, str):
            whole += data.encode("utf-8", "replace")
    return bytes(whole)


def _spoken(body: bytes) -> Iterator[str]:
    from kimi_magic.wire.recorded_answer import answer_in

    if (answer := answer_in(body)) is not None:
        yield answer.message.reasoning_text or ""
        yield answer.message.text
        for call in answer.message.tool_calls:
            yield f"{call.name} {call.arguments}"


def _edit(given: argparse.Namespace) -> None:
    file = _opened(given.file)
    _try_lock(file)
    try:
        header, content = _read(file)
        if content.problems and not given.drop_damaged:
            lost = count(len(content.problems), "line")
            raise TapeError(
                f"{content.problems[0]} Nothing was changed: {lost} would be lost. "
                "--drop-damaged drops what is not whole."
            )
        kept, header, done = _edited(given, header, content.recordings)
        if content.problems:
            done.append(f"{count(len(content.problems), 'problem')} mended")
        if not done:
            raise TapeError("Nothing to do: --drop, --rename-model, --rename-endpoint, --scripted.")
        file.rewrite(kept, header)
    finally:
        file.unlock()
    print(f"{_line(file.name)}: {', '.join(done)}; {count(len(kept), 'exchange')} left.")


def _try_lock(file: TapeFile) -> None:
    try:
        file.lock()
    except TapeError:
        raise TapeError(
            f"A kernel records into {file.name}: nothing was changed. Shut it down first."
        ) from None


def _edited(
    given: argparse.Namespace, header: Header, recordings: Sequence[Recording]
) -> tuple[list[Recording], Header, list[str]]:
    """Return what is left, and what was done in words."""
    done: list[str] = []
    dropped = _numbers(given.drop, len(recordings))
    kept = [each for number, each in enumerate(recordings, 1) if number not in dropped]
    if dropped:
        done.append(f"{count(len(dropped), 'exchange')} dropped")
    for kind, names in (("model", given.rename_model), ("endpoint", given.rename_endpoint)):
        if names:
            old, new = names
            kept, header, changed = _renamed(kept, header, kind, old, _checked(new))
            if not changed:
                raise TapeError(f"The tape has no {kind} {old}: nothing was changed.")
            done.append(f"{kind} {_cell(old)} is now {_cell(new)}")
    if given.scripted:
        mark = {"scripted": True}
        header = replace(header, made_by={**header.made_by, **mark})
        kept = [replace(each, made_by={**each.made_by, **mark}) for each in kept]
        done.append("marked as scripted")
    return kept, header, done


def _numbers(ranges: Sequence[str], total: int) -> set[int]:
    numbers = set[int]()
    for text in ranges:
        found = _RANGE.fullmatch(text)
        first = int(found[1]) if found else 0
        last = int(found[2]) if found and found[2] else first
        if not 1 <= first <= last <= total:
            raise TapeError(f"--drop {text}: the tape has {count(total, 'exchange')}, from 1 on.")
        numbers.update(range(first, last + 1))
    return numbers


def _checked(name: str) -> str:
    from kimi_magic.secrets.patterns import holds_key

    if not name.strip() or not name.isprintable() or len(name) > MAX_LINE:
        raise TapeError("A name is one line of text.")
    if holds_key(name):
        raise TapeError("The new name looks like a key: nothing was changed.")
    return name


def _renamed(
    recordings: Sequence[Recording], header: Header, kind: str, old: str, new: str
) -> tuple[list[Recording], Header, bool]:
    """Rename a model or an endpoint; of a model, the tape tells its first name still."""
    changed = 0

    def maker(made_by: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal changed
        if made_by.get(kind) != old:
            return dict(made_by)
        changed += 1
        first = {"recorded_as": made_by.get("recorded_as", old)} if kind == "model" else {}
        return {**made_by, kind: new, **first}

    def meaning(given: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal changed
        if kind != "model" or given.get(kind) != old:
            return given
        changed += 1
        return {**given, kind: new}

    renamed = [
        replace(each, made_by=maker(each.made_by), meaning=meaning(each.meaning))
        for each in recordings
    ]
    return renamed, replace(header, made_by=maker(header.made_by)), changed > 0
