"""Walking values runs no code of theirs but what is meant: no properties, no attributes."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from kimi_magic.context.summaries.reprs import bounded_repr
from kimi_magic.context.summaries.summary import summarize
from kimi_magic.tools.results import to_text

ran: list[str] = []


def watched(name: str) -> Any:
    def get(_: object) -> object:
        ran.append(name)
        return 1

    return property(get)


class Watched:
    """Each attribute that is read leaves a trace, those that a proxy computes among them."""

    __class__ = watched("__class__")
    value = watched("value")
    shape = watched("shape")
    dtype = watched("dtype")
    columns = watched("columns")
    schema = watched("schema")
    name = watched("name")

    def __getattr__(self, name: str) -> Any:
        ran.append(name)
        raise AttributeError(name)

    def __repr__(self) -> str:
        return "Watched()"


@dataclasses.dataclass
class Record:
    kind: str
    computed: Any = dataclasses.field(default=None)

    def __post_init__(self) -> None:
        self.kind = "record"


Record.computed = watched("computed")


class Level(enum.Enum):
    HIGH = 3
    value = watched("value")


class Options(dict[str, object]):
    extra = watched("extra")


OPENED = [
    Watched(),
    [Watched()],
    {"a": Watched()},
    {Watched(): 1},
    Record.__new__(Record),
    Level.HIGH,
    Options(a=Watched()),
]


@pytest.mark.parametrize("describe", [summarize, bounded_repr, to_text])
@pytest.mark.parametrize("value", OPENED, ids=[str(i) for i in range(len(OPENED))])
def test_no_property_runs(value: object, describe: Any) -> None:
    ran.clear()
    if isinstance(value, Record):
        vars(value)["kind"] = "record"
    ran.clear()
    text = describe(value) if describe is summarize else describe(value, 1000)
    assert text
    assert ran == []


class EndlessMapping(Mapping[int, int]):
    def __iter__(self) -> Iterator[int]:
        number = 0
        while True:
            yield (number := number + 1)

    def __getitem__(self, key: int) -> int:
        return key

    def __len__(self) -> int:
        return 3


class Blocking(Sequence[int]):
    def __getitem__(self, index: Any) -> Any:
        while True:
            pass

    def __len__(self) -> int:
        return 5

    def __repr__(self) -> str:
        return "Blocking()"


def test_what_has_no_end_or_blocks_is_given_up() -> None:
    assert len(to_text(EndlessMapping(), 300)) <= 300
    assert to_text({"a": Blocking(), "b": 1}, 300) == '{"a":"Blocking()","b":1}'


@pytest.mark.parametrize("room", range(200, 420, 7))
def test_what_is_cut_is_still_json(room: int) -> None:
    value = {
        "rows": [{"name": 'a "name"', "n": n} for n in range(100)],
        "total": 100,
        "ü": "x" * 99,
    }
    text, _, note = to_text(value, room).partition("\n")
    found = json.loads(text)
    assert found["total"] == 100
    assert found["rows"][-1].endswith(" more")
    assert note.startswith("[Cut; ")


def test_equal_names_of_an_object_are_told_apart_when_it_is_cut() -> None:
    value = {str(n): n for n in range(3)} | {n: n for n in range(1000)}
    found = json.loads(to_text(value, 400).partition("\n")[0])
    assert [found[name] for name in ("0", "int 0", "2", "int 2", "3")] == [0, 0, 2, 2, 3]
    assert " more: 1" in found["…"] or " more: " in found["…"]
