"""The question of each row: its turn, and the key under which its answer is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from types import CellType, CodeType
from typing import Any

from kimi_magic.batch.prompts import RowPrompt
from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import interruptible
from kimi_magic.core.tabular import to_json
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.heavy import HeavyTurn, plain_turn
from kimi_magic.turn.prompt import compose
from kimi_magic.turn.runner import PreparedTurn
from kimi_magic.turn.sameness import facts_of

__all__ = ["WHOLE", "Questions", "row_key"]

WHOLE = "data"
"""The column of answers that are no objects."""

RowKey = Callable[[Mapping[str, Any]], Any]
# An answer depends on these of the request beside `facts_of`.
_OF_MAPS = ("seed", "heavy", "judge")


def row_key(key: Any) -> RowKey | None:
    """Return the function that identifies a row: the given one, or one that reads columns.

    Raises
    ------
    KimiError
        It is no function, no name and no list of names.
    """
    if key is None:
        return None
    if callable(key):
        function: RowKey = key
        return function
    names = [key] if isinstance(key, str) else key
    are_names = isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)
    if not (are_names and names):
        raise KimiError(f"key= takes a column, several, or a function of a row; got {key!r:.60}.")
    return partial(_columns, list(names))


def _columns(names: list[str], row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in names}  # 3 in one column is not 3 in another


class Questions:
    """Makes the prompt, the turn and the key of rows.

    Attributes
    ----------
    mark : str
        The same for the same prompt, model, schema, tools and parameters, in another kernel too.
    turn : PreparedTurn or HeavyTurn
        The turn that each row's is made of.
    """

    def __init__(
        self, turn: PreparedTurn | HeavyTurn, prompt: Any, fill: RowPrompt, key: RowKey | None
    ) -> None:
        self.turn = turn
        self._fill = fill
        self._key = key
        request = self.one.request
        facts = {name: getattr(request, name) for name in _OF_MAPS} | facts_of(self.one)
        self._common = _Hash(json.dumps(facts, sort_keys=True, default=repr))
        self.mark = self._common.with_(prompt if isinstance(prompt, str) else _source(prompt))

    @property
    def one(self) -> PreparedTurn:
        """The turn as one request asks it."""
        return plain_turn(self.turn)

    @property
    def fields(self) -> list[str]:
        """The fields of the schema; ``data`` where it is no object, none where there is none."""
        schema = self.one.schema
        if schema is None:
            return []
        names = list(schema.json_schema.get("properties", ()))
        return [WHOLE] if schema.wraps or not names else names

    def prompt(self, row: Mapping[str, Any]) -> Any:
        with interruptible():  # expressions and functions are the user's
            return self._fill(row)

    def key(self, row: Mapping[str, Any], prompt: Any) -> str:
        """Return the key of a row's answer: of what is sent or, with ``key=``, of the row.

        Rows in which all that ``key=`` names is missing are not the same row.
        """
        named = None
        if self._key is not None:
            with interruptible():
                named = self._key(row)
        if _is_missing(named):
            return self._common.with_(_json(prompt))
        return _Hash(self.mark).with_(_json(named))

    def ask(self, prompt: Any) -> PreparedTurn | HeavyTurn:
        """Return the turn that asks a prompt.

        Raises
        ------
        KimiError
            The prompt is empty, or of a type that cannot be sent.
        """
        if isinstance(self.turn, HeavyTurn):
            judge = self._with(self.turn.judge, prompt)
            return replace(self.turn, turn=self._with(self.turn.turn, prompt), judge=judge)
        return self._with(self.turn, prompt)

    def _with(self, turn: PreparedTurn, prompt: Any) -> PreparedTurn:
        request = replace(turn.request, prompt=prompt)
        composed = compose(
            request,
            {},
            None if request.allow_secrets else Redactor(turn.keys, shapes=True),
            tokens=turn.settings.summary_tokens,
            instruction=turn.schema.instruction if turn.schema else "",
        )
        return replace(turn, request=request, prompt=composed)


def _is_missing(value: Any) -> bool:
    """Return True for None, NaN, NaT and NA, and for a list or a mapping of nothing else."""
    if isinstance(value, list | tuple | Mapping):
        return all(map(_is_missing, value.values() if isinstance(value, Mapping) else value))
    try:
        return value is None or bool(value != value)  # noqa: PLR0124 - as only NaN and NaT are
    except (TypeError, ValueError):  # NA has no truth value, neither has an array
        return type(value).__name__ == "NAType"


def _source(prompt: Any) -> str:
    """Tell functions apart by their code and the plain values that they hold.

    The source of the same function is the same in another kernel.
    """
    function = prompt
    held: list[Any] = []
    while isinstance(function, partial):
        held.append([function.args, function.keywords])
        function = function.func
    defaults = (getattr(function, name, None) for name in ("__defaults__", "__kwdefaults__"))
    held += [each for each in defaults if each]
    held += [_contents(cell) for cell in getattr(function, "__closure__", None) or ()]
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return name + (_code(code) if code else "") + (_stable(held) if held else "")


def _code(code: CodeType) -> str:
    constants = [_constant(constant) for constant in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _constant(constant: Any) -> str:
    if isinstance(constant, CodeType):  # its representation holds its address
        return _code(constant)
    if isinstance(constant, frozenset):  # that of another kernel may have another order
        return f"frozenset({{{', '.join(sorted(map(repr, constant)))}}})"
    return repr(constant)


def _contents(cell: CellType) -> Any:
    with suppress(ValueError):  # a name without a value yet
        return cell.cell_contents
    return None


def _stable(value: Any) -> str:
    """Write plain values as JSON; of others, such as models and frames, the type alone."""
    with suppress(TypeError, ValueError, RecursionError):  # odd keys, or a circle
        return json.dumps(value, sort_keys=True, default=lambda other: type(other).__qualname__)
    return ""


def _json(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    return json.dumps(to_json(value), sort_keys=True, default=repr)


class _Hash:
    """The hash of a text that many texts follow: it is read once."""

    def __init__(self, text: str) -> None:
        self._begun = sha256(_bytes(text))

    def with_(self, text: str) -> str:
        whole = self._begun.copy()
        whole.update(_bytes("\0" + text))
        return whole.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
