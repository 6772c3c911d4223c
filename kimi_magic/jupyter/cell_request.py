"""Ask with the options of a line: they and the prompt become a ``TurnRequest``.

A request is asked, or shown for ``--dry-run``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kimi_magic.core.errors import MagicError
from kimi_magic.core.frontend import has_kernel
from kimi_magic.core.messages import ImagePart, Part, join_parts
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import Attached
from kimi_magic.core.text import reveal
from kimi_magic.display.view import ViewOptions
from kimi_magic.jupyter.fix_explain import MOST_TOKENS, ONLY_CODE, Question, code_of
from kimi_magic.jupyter.notebook import Notebook
from kimi_magic.turn.dry_run import DryRun
from kimi_magic.turn.request import TurnRequest

__all__ = ["run_cell", "run_line", "run_question"]

MAP_IN_CELLS = "--map stands in a cell, `%%kimi --map df`: the prompt below is asked for each row."
REQUEST_FIELDS = frozenset(field.name for field in fields(TurnRequest))


def run_cell(notebook: Notebook, options: Mapping[str, Any], body: str) -> Any:
    """Ask what a cell asks, with the options of its line; return a reply, or a frame."""
    if not body.strip():
        raise MagicError("The cell is empty: write the prompt below the %%kimi line.")
    with _taped(notebook, options):
        if options["map"]:
            from kimi_magic.jupyter.map_commands import run_map

            tools = None if options["no_tools"] else _tools(notebook, options["tool"])
            return run_map(notebook, options, body.strip("\n"), tools)
        return _ask_or_show(notebook, options, _filled(notebook, options, body.strip("\n")))


def run_question(
    notebook: Notebook, options: Mapping[str, Any], question: Question, *, puts_code: bool
) -> Reply | None:
    """Ask about a cell; the code of the answer goes into the next cell where that is wanted."""
    tokens = options["var_tokens"] or min(notebook.settings.summary_tokens, MOST_TOKENS)
    named = [*question.variables, *(options["var"] or ())]
    whole = {**options, "var": list(dict.fromkeys(named)) or None, "var_tokens": tokens}
    prompt = _Prompt(question.prompt, cells=question.cells)
    with _taped(notebook, options):
        return _ask_or_show(notebook, whole, prompt, puts_code=puts_code)


def run_line(notebook: Notebook, options: Mapping[str, Any], prompt: str) -> Reply | None:
    """Ask a prompt of one line, as it was typed."""
    with _taped(notebook, options):
        return _ask_or_show(notebook, options, _Prompt(prompt))


def _taped(notebook: Notebook, options: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Return what holds to the options of tapes while a turn runs."""
    if not any(options[name] for name in ("tape", "strict", "frozen_tools", "again")):
        return nullcontext()
    from kimi_magic.jupyter.tape_commands import with_tape

    return with_tape(notebook, options)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt with its expressions filled in, and the numbers of cells that go along.

    ``typed`` is its text before that.
    """

    content: str | tuple[Part, ...]
    typed: str = ""
    expressions: tuple[str, ...] = ()
    attached: tuple[Attached, ...] = ()
    filled: tuple[str, ...] = ()
    cells: tuple[int, ...] = ()


def _ask_or_show(
    notebook: Notebook, options: Mapping[str, Any], prompt: _Prompt, *, puts_code: bool = False
) -> Reply | None:
    """Ask; None after ``--dry-run``, which shows the request, and where ``--out`` takes it."""
    if options["map"]:
        raise MagicError(MAP_IN_CELLS)
    request = _request(notebook, options, prompt)
    if options["dry_run"]:
        _show(notebook, notebook.session.dry_run(request))
        return None
    view = ViewOptions(
        format=options["format"] or "markdown",
        hide_reasoning=options["hide_reasoning"],
        usage=options["usage"],
    )
    reply = notebook.ask(request, view)
    if puts_code or options["format"] == "code":
        notebook.put_in_next_cell(code_of(reply))
    if options["out"]:
        notebook.variables[options["out"]] = reply
        return None
    return reply


def _show(notebook: Notebook, dry: DryRun) -> None:
    """Show a dry run; where there is a page, its history is folded."""
    from kimi_magic.display.record import publish, show_folded, thumbnail

    if dry.history and has_kernel(notebook.shell):
        notebook.say(dry.summary)
        whole = reveal(notebook.session.redact(dry.history_text))
        lines = reveal(notebook.session.redact("\n".join(dry.history_lines)))
        publish(show_folded(dry.history_title, whole, lines))
        notebook.say(dry.rest)
    else:
        notebook.say(dry.text)
    for image in dry.images:
        publish(thumbnail(image))


def _request(notebook: Notebook, options: Mapping[str, Any], prompt: _Prompt) -> TurnRequest:
    """Translate the options; those that a request has under the same name go over as they are."""
    from kimi_magic.context.cells import parse_numbers
    from kimi_magic.schema.output import ANY_JSON

    same = {name: options[name] for name in REQUEST_FIELDS & options.keys()}
    numbers = [*prompt.cells, *(parse_numbers(options["cells"]) if options["cells"] else ())]
    translated = {
        "chat": None if options["no_history"] else options["chat"] or notebook.current_chat,
        "tools": None if options["no_tools"] else _tools(notebook, options["tool"]),
        "variables": options["var"],
        "cells": notebook.read_cells(dict.fromkeys(numbers)),
        "stream": not options["no_stream"],
        "typed": prompt.typed,
        "filled": prompt.filled,
    }
    if options["image"]:
        from kimi_magic.context.pictures import read_picture

        translated["images"] = tuple(map(read_picture, options["image"]))
    if options["format"] == "json" and options["schema"] is None:
        translated["schema"] = ANY_JSON
    content = prompt.content
    if options["format"] == "code":
        texts = [content] if isinstance(content, str) else content
        content = join_parts([*texts, f"\n\n{ONLY_CODE}"])
    images = (Attached("image", Path(file).name) for file in options["image"] or ())
    told: dict[str, Any] = {"attached": (*prompt.attached, *images)}
    return TurnRequest(content, expressions=prompt.expressions, **same | translated | told)


def _filled(notebook: Notebook, options: Mapping[str, Any], body: str) -> _Prompt:
    """Evaluate the expressions of a cell's prompt."""
    from kimi_magic.context.summaries.detail import Detail
    from kimi_magic.context.template import Expression, fill, in_namespace, parse

    pieces = [body] if options["raw"] else parse(body)
    tokens = options["var_tokens"] or notebook.settings.summary_tokens
    evaluate = in_namespace(notebook.variables, Err=notebook.cell_errors)
    detail = Detail.of(notebook.settings.summary_values, options["var_rows"])
    draw = _drawer(notebook, options, tokens) if detail.values == "rows" else None
    attached: list[Attached] = []
    filled: list[str] = []
    content = fill(
        pieces, evaluate, tokens=tokens, draw=draw, detail=detail, attached=attached, texts=filled
    )
    sources = tuple(piece.source for piece in pieces if isinstance(piece, Expression))
    return _Prompt(content, body, sources, tuple(attached), tuple(filled))


def _drawer(
    notebook: Notebook, options: Mapping[str, Any], tokens: int
) -> Callable[[object], ImagePart | None]:
    """Return what draws a figure for a model that sees."""

    def draw(value: object) -> ImagePart | None:
        from kimi_magic.context.pictures import is_picture, picture

        asked = (options["endpoint"], options["model"])
        if is_picture(value) and notebook.session.sees(*asked):
            return picture(value, tokens=tokens)
        return None

    return draw


def _tools(notebook: Notebook, names: list[str] | None) -> list[Any]:
    """Return the named tools, or those that are offered to every cell."""
    from kimi_magic.tools.decorator import offered

    if names:
        return [offered.resolve(name, notebook.variables) for name in names]
    return [*offered, *offered.servers]
