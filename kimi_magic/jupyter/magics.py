"""The front door: a line and a cell → calls of the session."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tokenize import TokenInfo
from typing import Any

from IPython.core.inputtransformer2 import TokenTransformBase
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    magics_class,
    no_var_expand,
)

from kimi_magic.config import Settings
from kimi_magic.context.cell_errors import CellErrors
from kimi_magic.core.errors import ConfigError, MagicError, ToolInterrupted
from kimi_magic.core.frontend import can_answer
from kimi_magic.core.messages import ToolResult
from kimi_magic.core.reply import Reply
from kimi_magic.display.view import Format, ViewOptions
from kimi_magic.jupyter.fix_explain import EXPLAIN, FIX, ONLY_CODE, code_of, variables_of
from kimi_magic.jupyter.line_parser import parse_line, parse_snippet, split_verb
from kimi_magic.jupyter.options import help_text
from kimi_magic.secrets.redact import without_secrets
from kimi_magic.session import Session, current
from kimi_magic.turn.request import TurnRequest

__all__ = ["KimiMagics", "QuestionLine", "cell_without_body"]

FIX_TOKENS = 600
_ENDS_IN_QUESTION = re.compile(r"(\s*(?:[^\W\d]\w*\s*=\s*)?)%kimi\s(.*\?)\s*$")


@magics_class
class KimiMagics(Settings, Magics):
    """``%%kimi`` and ``%kimi``; their settings are the traits of ``Settings``."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell=shell, parent=shell)
        self._shell = shell
        before = current().settings
        for name, trait in Settings.class_traits(config=True).items():
            if (value := getattr(before, name)) != trait.default(before):
                setattr(self, name, value)  # set before the extension was loaded
        self.session: Session = current(self)
        self.cell_errors = CellErrors()

    @classmethod
    def of(cls, shell: Any) -> KimiMagics:
        """The magics of a shell, with what was set before the extension was loaded again."""
        known = current().settings
        return known if isinstance(known, cls) and known.shell is shell else cls(shell)

    @no_var_expand
    @line_cell_magic
    def kimi(self, line: str, cell: str | None = None) -> Reply | None:
        """Ask a reasoning model: `%%kimi` asks the cell, `%kimi help` lists the verbs."""
        if cell is not None:
            return self._ask_cell(line, cell)
        verb, rest = split_verb(line)
        run: Callable[[str], Reply | None] = getattr(self, f"_{verb}")
        return run(rest)

    def _ask_cell(self, line: str, cell: str) -> Reply | None:
        from kimi_magic.context.template import Expression, fill, in_namespace, parse
        from kimi_magic.schema.output import ANY_JSON

        given = parse_line(line)
        if given.pop("help"):
            self._help("")
            return None
        if not cell.strip():
            raise MagicError("The cell is empty: write the prompt below the %%kimi line.")
        out, dry_run = given.pop("out"), given.pop("dry_run")
        shape: Format = given.pop("format") or "markdown"
        options = ViewOptions(
            format=shape,
            hide_reasoning=given.pop("hide_reasoning"),
            usage=given.pop("usage"),
        )
        if not given.pop("no_history"):
            given["chat"] = given["chat"] or self.session.chats.current
        no_tools, names = given.pop("no_tools"), given.pop("tool")
        given["tools"] = None if no_tools else _tools(names, self._shell.user_ns)
        given["stream"] = not given.pop("no_stream")
        given["variables"] = given.pop("var")
        given["cells"] = self._cells(given.pop("cells"))
        prompt = cell.strip("\n")
        if not given.pop("raw"):
            pieces = parse(prompt)
            expressions = (piece for piece in pieces if isinstance(piece, Expression))
            given["expressions"] = tuple(expression.source for expression in expressions)
            prompt = fill(pieces, in_namespace(self._shell.user_ns, Err=self.cell_errors))
        if shape == "json" and given["schema"] is None:
            given["schema"] = ANY_JSON
        if shape == "code":
            prompt = f"{prompt}\n\n{ONLY_CODE}"
        question = TurnRequest(prompt, **given)
        if dry_run:
            self._say(self.session.dry_run(question))
            return None
        reply = self._ask_session(question, options)
        if shape == "code":
            self._offer_code(reply)
        if out:
            self._shell.user_ns[out] = reply
            return None
        return reply

    def _cells(self, numbers: str | None) -> tuple[Any, ...]:
        from kimi_magic.context.cells import parse_numbers, read_cell

        wanted = parse_numbers(numbers) if numbers else []
        return tuple(read_cell(number, self._shell, self.cell_errors) for number in wanted)

    def _ask(self, prompt: str) -> Reply:
        if not prompt:
            raise MagicError("What do you want to ask? `%kimi ask Why is the sky blue?`")
        chat = self.session.chats.current
        return self._ask_session(
            TurnRequest(prompt, chat=chat, tools=_tools(None, {})), ViewOptions()
        )

    def _ask_session(self, question: TurnRequest, options: ViewOptions) -> Reply:
        return self.session.ask(question, show=True, options=options)

    def _fix(self, _: str) -> Reply:
        if self.cell_errors.latest is None:
            raise MagicError("No cell has failed since the extension was loaded.")
        reply = self._ask_about(self.cell_errors.latest, FIX)
        self._offer_code(reply)
        return reply

    def _explain(self, number: str) -> Reply:
        if number and not number.isdecimal():
            raise MagicError("Which cell? `%kimi explain` takes its number, or the last one.")
        latest = len(self._shell.history_manager.input_hist_raw) - 2  # the last is this one
        if not number and latest < 1:
            raise MagicError("No cell has run before this one.")
        return self._ask_about(int(number or latest), EXPLAIN)

    def _ask_about(self, number: int, words: str) -> Reply:
        """Ask about a cell; the variables that it reads go along."""
        from kimi_magic.context.cells import read_cell

        cell = read_cell(number, self._shell, self.cell_errors)
        question = TurnRequest(
            words.format(number),
            chat=self.session.chats.current,
            cells=(cell,),
            variables=variables_of(self._shell.transform_cell(cell.source), self._shell.user_ns),
            var_tokens=min(self.session.settings.summary_tokens, FIX_TOKENS),
        )
        return self._ask_session(question, ViewOptions())

    def _offer_code(self, reply: Reply) -> None:
        """Put the code of an answer into the next cell, where the front end takes it."""
        code = code_of(reply)
        if code:
            self._shell.set_next_input(code)

    def _snippet(self, words: str) -> None:
        from kimi_magic.display.record import publish
        from kimi_magic.display.transcript import show_code
        from kimi_magic.export import FORMS

        given = parse_snippet(words)
        form = given["form"]
        code = self.session.snippet(self._reply_of(given["chat"], given["turn"]), form)
        if given["out"]:
            Path(given["out"]).expanduser().write_text(code, "utf-8", newline="\n")
            self._say(f"Written to {given['out']}.")
            return
        publish(show_code(code, FORMS[form].language))
        if FORMS[form].suffix == ".py":
            self._shell.set_next_input(code)

    def _reply_of(self, chat: str | None, turn: int | None) -> Reply:
        """The reply of a chat's turn, counted from 1; without either the latest of all."""
        if chat is None and turn is None:
            if self.session.last is None:
                raise MagicError("There is no turn yet: a %%kimi cell makes one.")
            return self.session.last
        turns = self.session.chats.known(chat or self.session.chats.current).turns
        number = turn or len(turns)
        if not 1 <= number <= len(turns):
            raise MagicError(f"That chat has {len(turns)} turns: --turn counts from 1.")
        return turns[number - 1].reply

    def _continue(self, words: str) -> Reply:
        question = self.session.to_continue(words or self.session.chats.current)
        return self._ask_session(question, ViewOptions())

    def _chats(self, _: str) -> None:
        rows = [("", "chat", "turns", "tokens")]
        for chat in self.session.chats:
            mark = "→" if chat.name == self.session.chats.current else ""
            rows.append((mark, chat.name, str(len(chat.turns)), f"{chat.usage.total_tokens:,}"))
        self._say(
            _table(rows) if len(rows) > 1 else "There is no chat yet: a %%kimi cell begins one."
        )

    def _chat(self, words: str) -> None:
        from kimi_magic.display.record import publish
        from kimi_magic.display.transcript import show_chat

        names = [word for word in words.split() if word != "--all"]
        if len(names) > 1:
            raise MagicError("Which chat? `%kimi chat NAME` shows one, `%kimi chats` lists them.")
        name = names[0] if names else self.session.chats.current
        chat = self.session.chats.get(name)
        self.session.chats.current = name
        aside = chat.set_aside if "--all" in words.split() else ()
        publish(show_chat(chat.turns, aside, max_chars=self.max_output_chars))

    def _reset(self, name: str) -> None:
        chat = self.session.chats.known(name or self.session.chats.current)
        count = len(chat.turns)
        chat.reset()
        self._say(f"Chat {chat.name}: {count} turn{'' if count == 1 else 's'} forgotten.")

    def _models(self, endpoint: str) -> None:
        connector, settings = self.session.connector, self.session.settings
        chosen = connector.choose(endpoint, settings)
        key = self.session.find_key(chosen)
        self._say("\n".join(connector.models(chosen, key, settings, print)))

    def _endpoints(self, _: str) -> None:
        session = self.session
        rows = [("", "endpoint", "key", "model", "address")]
        chosen = None
        with suppress(ConfigError):
            chosen = session.connector.choose(None, session.settings)
        for endpoint in session.connector.catalogue:
            key = "none needed"
            if endpoint.key_env:
                found = session.connector.key_at_hand(endpoint)
                key = f"{endpoint.key_env}: {'yes' if found else 'no'}"
            mark = "→" if endpoint == chosen else ""
            rows.append((mark, endpoint.name, key, endpoint.model, endpoint.base_url or "embedded"))
        self._say(_table(rows))

    def _tools(self, words: str) -> None:
        from kimi_magic.jupyter.tool_commands import change_offer, list_offered

        self._say(change_offer(words, self._shell.user_ns) if words else list_offered())

    def _tool(self, line: str) -> None:
        from kimi_magic.jupyter.tool_commands import describe, tool_named
        from kimi_magic.turn.approval import Approval, ask_with_input

        if not line:
            raise MagicError("Which function? `%kimi tool NAME` shows it, `%kimi tools` lists.")
        name, *arguments = line.split(None, 1)
        toolset = tool_named(name, self._shell.user_ns)
        (tool,) = toolset.tools
        if not arguments:
            self._say(describe(tool))
            return
        approval = Approval(toolset.namespace, {}, ask_with_input, lambda _: None)
        try:
            approve = approval if can_answer() else None
            result = toolset.call(tool.name, arguments[0], approve=approve)
            _show(self._redact(result))
        except ToolInterrupted as interrupt:
            _show(self._redact(interrupt.result))
            raise

    def _redact(self, result: ToolResult) -> ToolResult:
        return without_secrets(result, self.session.connector.known_keys())

    def _say(self, text: str) -> None:
        """Print it; a name that somebody gave, or a server, may hold a key."""
        print(self.session.redact(text))

    def _help(self, verb: str) -> None:
        print(help_text(split_verb(verb)[0] if verb else ""))


def cell_without_body(lines: list[str]) -> list[str]:
    """A cleanup transformer: ``%%kimi`` without a body, which IPython refuses before we are asked.

    So ``%%kimi -h`` shows its help, and an empty cell says what to write.
    """
    if len(lines) == 1 and (found := re.match(r"%%kimi(\s.*)?$", lines[0].rstrip())):
        return [f"get_ipython().run_cell_magic('kimi', {found[1] or ''!r}, '\\n')\n"]
    return lines


# Else it takes part in the question whether a cell is complete, and a terminal's first line is.
cell_without_body.has_side_effects = True  # type: ignore[attr-defined]


class QuestionLine(TokenTransformBase):
    """A token transformer: the ``?`` that ends a ``%kimi`` line is the prompt's, no help syntax."""

    priority = 1  # before IPython's own, which sees the question mark

    @classmethod
    def find(cls, tokens_by_line: list[list[TokenInfo]]) -> QuestionLine | None:
        for tokens in tokens_by_line:
            if tokens and _ENDS_IN_QUESTION.match(tokens[0].line):
                return cls(tokens[0].start)
        return None

    def transform(self, lines: list[str]) -> list[str]:
        found = _ENDS_IN_QUESTION.match(lines[self.start_line])
        assert found, "find has seen it"
        call = f"{found[1]}get_ipython().run_line_magic('kimi', {found[2].strip()!r})\n"
        return [*lines[: self.start_line], call, *lines[self.start_line + 1 :]]


def _show(result: ToolResult) -> None:
    """Show what a call on the bench gave, as a call in a cell of one's own would."""
    from IPython.display import display

    from kimi_magic.jupyter.tool_commands import told_to_the_model

    if result.stdout:
        print(result.stdout, end="" if result.stdout.endswith("\n") else "\n")
    for output in result.outputs:
        display(output.data, raw=True, metadata=output.metadata)  # type: ignore[no-untyped-call]
    if result.traceback:
        print(result.traceback.rstrip())
    print(told_to_the_model(result))


def _tools(names: list[str] | None, space: Mapping[str, Any]) -> list[Any]:
    """The tools of these names; without any, all that are offered to every cell."""
    from kimi_magic.tools.decorator import offered

    return [offered.meant(name, space) for name in names] if names else list(offered)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
