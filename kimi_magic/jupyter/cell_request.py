"""Run a ``%%kimi`` cell: its line and body become a ``TurnRequest``, which is asked or shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from kimi_magic.core.errors import MagicError
from kimi_magic.core.messages import ImagePart, join_parts
from kimi_magic.core.reply import Reply
from kimi_magic.display.view import ViewOptions
from kimi_magic.jupyter.commands import help_text
from kimi_magic.jupyter.fix_explain import ONLY_CODE, code_of
from kimi_magic.jupyter.line_parser import parse_line
from kimi_magic.jupyter.notebook import Notebook
from kimi_magic.turn.request import TurnRequest

__all__ = ["run_cell"]

REQUEST_FIELDS = frozenset(field.name for field in fields(TurnRequest))


def run_cell(notebook: Notebook, line: str, body: str) -> Reply | None:
    """Ask what a cell asks; None after ``--help``, ``--dry-run`` and where ``--out`` takes it."""
    options = parse_line(line)
    if options["help"]:
        print(help_text())
        return None
    if not body.strip():
        raise MagicError("The cell is empty: write the prompt below the %%kimi line.")
    if not (options["tape"] or options["strict"] or options["frozen_tools"]):
        return _run(notebook, options, body)
    from kimi_magic.jupyter.tape_commands import with_tape

    with with_tape(notebook, options):
        return _run(notebook, options, body)


def _run(notebook: Notebook, options: Mapping[str, Any], body: str) -> Reply | None:
    request = _request(notebook, options, body.strip("\n"))
    if options["dry_run"]:
        dry = notebook.session.dry_run(request)
        notebook.say(dry.text)
        if dry.images:
            from kimi_magic.display.record import publish, thumbnail

            for image in dry.images:
                publish(thumbnail(image))
        return None
    view = ViewOptions(
        format=options["format"] or "markdown",
        hide_reasoning=options["hide_reasoning"],
        usage=options["usage"],
    )
    reply = notebook.ask(request, view)
    if options["format"] == "code":
        notebook.put_in_next_cell(code_of(reply))
    if options["out"]:
        notebook.variables[options["out"]] = reply
        return None
    return reply


def _request(notebook: Notebook, options: Mapping[str, Any], body: str) -> TurnRequest:
    """Translate the options; those that a request has under the same name go over as they are."""
    from kimi_magic.context.cells import parse_numbers
    from kimi_magic.context.template import Expression, fill, in_namespace, parse
    from kimi_magic.schema.output import ANY_JSON

    same = {name: options[name] for name in REQUEST_FIELDS & options.keys()}
    translated = {
        "chat": None if options["no_history"] else options["chat"] or notebook.current_chat,
        "tools": None if options["no_tools"] else _tools(notebook, options["tool"]),
        "variables": options["var"],
        "cells": notebook.read_cells(parse_numbers(options["cells"]) if options["cells"] else ()),
        "stream": not options["no_stream"],
        "typed": body,
    }
    if options["image"]:
        from kimi_magic.context.pictures import read_picture

        translated["images"] = tuple(map(read_picture, options["image"]))
    if options["format"] == "json" and options["schema"] is None:
        translated["schema"] = ANY_JSON
    pieces = [body] if options["raw"] else parse(body)
    tokens = options["var_tokens"] or notebook.settings.summary_tokens
    evaluate = in_namespace(notebook.variables, Err=notebook.cell_errors)
    prompt = fill(pieces, evaluate, tokens=tokens, draw=_drawer(notebook, same, tokens))
    if options["format"] == "code":
        texts = [prompt] if isinstance(prompt, str) else prompt
        prompt = join_parts([*texts, f"\n\n{ONLY_CODE}"])
    expressions = tuple(piece.source for piece in pieces if isinstance(piece, Expression))
    return TurnRequest(prompt, expressions=expressions, **same | translated)


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

    return [offered.resolve(name, notebook.variables) for name in names] if names else list(offered)
