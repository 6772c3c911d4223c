"""One value as bounded text for a model: what holds whatever its type."""

from __future__ import annotations

import abc
import enum
import importlib
import sys
import threading
import time
import types
import warnings
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_magic.context.summaries.reprs import bounded_repr
from kimi_magic.context.summaries.summary import summarize, summarizer
from kimi_magic.core.text import count, cut, cut_middle, plain
from kimi_magic.tools.results import to_text

np: Any = importlib.import_module("numpy")
pd: Any = importlib.import_module("pandas")


class SaysItself:
    def _repr_llm_(self) -> str:
        return "seventeen parts"


class SaysNothing:
    def _repr_llm_(self) -> None:
        return None

    def __repr__(self) -> str:
        return "SaysNothing()"


class FailsToSay:
    def _repr_llm_(self) -> str:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        return "FailsToSay()"


class SaysInTokens(SaysItself):
    def __kimi_summary__(self, tokens: int) -> Any:
        return f"in {tokens} tokens: " + "long " * 10_000


class FailsInTokens(SaysItself):
    def __kimi_summary__(self, tokens: int) -> Any:
        raise SystemExit(tokens)


class SaysNoText(SaysItself):
    def __kimi_summary__(self, tokens: int) -> Any:
        return {"tokens": tokens}


class AnswersToAnything:
    def __getattr__(self, name: str) -> Any:
        return lambda: name

    def __repr__(self) -> str:
        return "a proxy"


class Broken:
    def __repr__(self) -> str:
        raise SystemExit(1)


class Recursive:
    def __repr__(self) -> str:
        return repr(self)


class Endless:
    def __repr__(self) -> str:
        while True:
            time.sleep(0.001)


class Waiting:
    def __repr__(self) -> str:
        threading.Event().wait()
        return ""


class Talkative:
    def __repr__(self) -> str:
        print("out")
        print("err", file=sys.stderr)
        return "Talkative()"


class NoText:
    def __repr__(self) -> str:
        return 3  # type: ignore[return-value]


class Long:
    def __repr__(self) -> str:
        return "<" + "long " * 10**6 + ">"


class Liar:
    """Says that it is something else, and fails at whatever is asked of it."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "Liar()"


class EndlessList(list[int]):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1

    def __len__(self) -> int:
        return 10**12


@dataclass
class Point:
    x: float
    tags: list[str] = field(default_factory=list)
    hidden: str = field(default="secret", repr=False)


@dataclass
class OwnRepr:
    x: int

    def __repr__(self) -> str:
        return "OwnRepr"


class Pair(NamedTuple):
    left: int
    right: int


class Colour(enum.Enum):
    RED = "red"


Plain = namedtuple("Plain", "a")  # noqa: PYI024 - a plain one is meant

SUMMARIES = [
    ("a text", "a text"),
    ("", ""),
    (3.5, "3.5"),
    (None, "None"),
    (SaysItself(), "seventeen parts"),
    ([SaysItself()], "[seventeen parts]"),
    (SaysNothing(), "SaysNothing()"),
    (FailsToSay(), "FailsToSay()"),
    (FailsInTokens(), "seventeen parts"),
    (SaysNoText(), "seventeen parts"),
    (AnswersToAnything(), "a proxy"),
    (Broken(), "<Broken object; its repr raises SystemExit>"),
    (NoText(), "<NoText object; its repr raises TypeError>"),
    ([Recursive()], "[<Recursive object; its repr raises RecursionError>]"),
    (Liar(), "Liar()"),
    ({Liar(): [Liar()]}, "{Liar(): [Liar()]}"),
    (object(), "<object object>"),
    ({"a": [(1,), set()], "b": deque([1])}, "{'a': [(1,), set()], 'b': deque([1])}"),
    ([(), {}, frozenset(), deque()], "[(), {}, frozenset(), deque([])]"),
    (frozenset({1}), "frozenset({1})"),
    ({"b", "a", "c"}, "{'a', 'b', 'c'}"),
    ({2, "a"}, "{2, 'a'}"),
    (Counter("aab"), "Counter({'a': 2, 'b': 1})"),
    (defaultdict(list, a=[1]), "defaultdict({'a': [1]})"),
    (OrderedDict(a=1), "OrderedDict({'a': 1})"),
    (EndlessList([1, 2]), "EndlessList([1, 2])"),
    (Point(1.0, ["a"]), "Point(x=1.0, tags=['a'])"),
    (OwnRepr(1), "OwnRepr"),
    (Pair(1, 2), "Pair(left=1, right=2)"),
    (Plain([1]), "Plain(a=[1])"),
    (types.SimpleNamespace(a=1), "SimpleNamespace(a=1)"),
    (Colour.RED, "<Colour.RED: 'red'>"),
    (Decimal("1.50"), "Decimal('1.50')"),
    (10**6000, "<an integer of 19,932 bits>"),
    (range(10), "range(0, 10)"),
]


@pytest.mark.parametrize(("value", "text"), SUMMARIES, ids=[str(i) for i in range(len(SUMMARIES))])
def test_summaries(value: object, text: str) -> None:
    found = summarize(value)
    if found != text and found.replace("{'a', 2}", "{2, 'a'}") != text:
        pytest.fail(f"{found!r} is not {text!r}")  # an assertion would show the value's own repr


def test_own_words_may_fill_the_room_that_they_are_told_of() -> None:
    text = summarize(SaysInTokens(), tokens=60)
    assert text.startswith("in 60 tokens: long long ")
    assert len(text) <= 240
    assert "[in 51 tokens: long" in summarize([SaysInTokens()], tokens=60)
    # Looked up in the class: it describes objects, not itself.
    assert summarize(SaysInTokens).startswith("class SaysInTokens")
    assert to_text([SaysInTokens()], 1000).startswith('["in 100 tokens')


def test_an_object_of_the_notebooks_own_class_shows_its_attributes() -> None:
    """Python's repr says nothing of it. Of other people's classes nothing is looked into."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("class Model:\n    def __init__(self): self.size, self._key = 3, 'x'", names)
    assert summarize(names["Model"]()) == "Model(size=3)"
    own = type("Client", (), {})()
    own.api_key = "abc"
    assert "abc" not in summarize(own)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert summarize([Talkative()]) == "[Talkative()]"
    assert capsys.readouterr() == ("", "")


class Warning_:
    def __repr__(self) -> str:
        warnings.warn("deprecated", stacklevel=1)
        return "Warning_()"


def test_nothing_is_warned_of_and_the_filters_stay() -> None:
    filters = list(warnings.filters)
    threads = [threading.Thread(target=summarize, args=([Warning_()],)) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert summarize([Warning_()]) == "[Warning_()]"
    for thread in threads:
        thread.join(60)
    assert list(warnings.filters) == filters
    with pytest.warns(UserWarning, match="deprecated"):
        repr(Warning_())


@pytest.mark.parametrize("kind", [Endless, Waiting])
def test_what_never_ends_is_given_up(kind: type) -> None:
    text = summarize({"a": kind(), "b": 2})
    assert text == f"{{'a': <{kind.__name__} object; its repr takes too long>, 'b': 2}}"


def test_what_never_ends_is_given_up_in_other_threads_too() -> None:
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(summarize([Endless(), 2])))
    thread.start()
    thread.join(60)
    assert texts == ["[<Endless object; its repr takes too long>, 2]"]


def test_nothing_is_printed_from_other_threads_either(capsys: pytest.CaptureFixture[str]) -> None:
    thread = threading.Thread(target=lambda: summarize([Talkative()]))
    thread.start()
    thread.join(60)
    assert capsys.readouterr() == ("", "")


def test_many_that_never_end_take_no_longer_than_a_few() -> None:
    began = time.monotonic()
    text = summarize([Endless()] * 1000)
    assert "takes too long" in text
    assert time.monotonic() - began < 30


def test_own_words_that_never_end_leave_the_repr() -> None:
    class Thinking:
        def _repr_llm_(self) -> str:
            while True:
                time.sleep(0.001)

        def __repr__(self) -> str:
            return "Thinking()"

    assert summarize(Thinking()) == "Thinking()"


def test_an_interrupt_goes_through() -> None:
    class Interrupted:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        summarize([Interrupted()])


class Shape:
    pass


class Square(Shape):
    def __repr__(self) -> str:
        return "Square()"


class Sized(abc.ABC):  # noqa: B024 - what registers with it counts
    pass


def test_registered_summarizers() -> None:
    @summarizer(Shape)
    def describe(shape: Shape) -> str:
        return f"a shape: {type(shape).__name__}"

    assert describe(Square()) == "a shape: Square"
    assert summarize(Square()) == "a shape: Square"
    assert summarize({"s": Square()}) == "{'s': a shape: Square}"

    @summarizer(Square)
    def with_room(square: Square, tokens: int) -> str | None:
        return f"{tokens} tokens" if tokens > 10 else None

    assert summarize(Square(), tokens=50) == "50 tokens"
    assert summarize(Square(), tokens=5) == "Square()"
    assert summarize(Shape()) == "a shape: Shape"


def test_a_summarizer_may_fail_or_be_of_an_abstract_class() -> None:
    class Thing:
        def __repr__(self) -> str:
            return "Thing()"

    Sized.register(Thing)
    assert summarize(Thing()) == "Thing()"

    @summarizer(Sized)
    def describe(thing: Thing) -> str:
        return "x" * 10_000

    assert 190 <= len(summarize(Thing(), tokens=50)) <= 200

    @summarizer(Thing)
    def fails(thing: Thing) -> str:
        raise RuntimeError

    assert summarize(Thing()) == "Thing()"


def test_own_words_win_over_a_registered_summarizer() -> None:
    class Both(SaysItself):
        pass

    @summarizer(Both)
    def describe(both: Both) -> str:
        return "registered"

    assert summarize(Both()) == "seventeen parts"


CIRCLE: list[Any] = [1]
CIRCLE.append(CIRCLE)
DEEP: list[Any] = []
for _ in range(10_000):
    DEEP = [DEEP]
HUGE = [
    list(range(10**6)),
    {i: [i] * 1000 for i in range(1000)},
    "x" * 10**6,
    b"x" * 10**6,
    [["y" * 10**5] * 100] * 100,
    DEEP,
    CIRCLE,
    Long(),
    Point(1.0, ["z" * 1000] * 1000),
    pd.DataFrame({"a": ["z" * 1000] * 50}),
    pd.DataFrame({("x" * 1000, i): [i] for i in range(300)}),
    np.zeros((20,) * 4),
    np.zeros(300, dtype=[("a" * 100, int), ("b", float)]),
    summarize,
    pytest,
    RuntimeError("x" * 10**5),
]


@pytest.mark.parametrize("tokens", [1, 3, 10, 30, 250, 1500])
@pytest.mark.parametrize("value", HUGE, ids=[str(i) for i in range(len(HUGE))])
def test_huge_values_are_bounded(value: object, tokens: int) -> None:
    assert 0 < len(summarize(value, tokens=tokens)) <= tokens * 4


def test_a_container_says_what_it_is_and_how_much_is_in_it() -> None:
    assert summarize({i: str(i) for i in range(10**6)}).startswith(
        "dict of 1,000,000 items (int → str): {0: '0', 1: '1', "
    )
    text = summarize([1, "a", None, 2.0] * 10**5, tokens=50)
    assert text.startswith("list of 400,000 items (int | str | NoneType | …): [1, 'a', ")
    assert text.endswith(" more]")


def test_a_large_member_leaves_room_for_those_after_it() -> None:
    text = bounded_repr({"log": "x" * 10**6, "rows": list(range(10**6)), "last": True}, 400)
    assert "(1,000,000 long)" in text
    assert "'rows': [0, 1, 2" in text
    assert text.endswith("'last': True}")


def test_a_container_says_how_many_more_there_are() -> None:
    text = bounded_repr(list(range(1000)), 300)
    shown = text.count(", ")
    assert text.startswith("[0, 1, 2, ")
    assert text.endswith(f"… {1000 - shown:,} more]")


def test_cut_counts_what_is_missing_and_keeps_to_its_limit() -> None:
    assert cut("abc", 3) == "abc"
    text = cut("x" * 5000, 100, "ask")
    kept = text.count("x")
    assert len(text) <= 100
    assert text.endswith(f"… [cut: {5000 - kept:,} of 5,000 characters are missing; ask]")
    assert cut("x" * 100, 10) == "xxxxxxxxx…"
    assert cut("x" * 100, 0) == ""


def test_cut_middle_keeps_both_ends() -> None:
    text = cut_middle("a" * 1000 + "b" * 1000, 200)
    assert text.startswith("aaa")
    assert text.endswith("b" * 60)
    assert "of 2,000 characters are missing" in text


@given(st.text(), st.integers(0, 200))
def test_cuts_keep_to_their_limits(text: str, limit: int) -> None:
    long = text * 20
    assert len(cut(long, limit)) <= max(limit, 0)
    assert len(cut_middle(long, limit)) <= max(limit, 0)
    assert cut_middle(long, len(long)) == cut(long, len(long)) == long


def test_counts() -> None:
    assert (count(1, "row"), count(1000, "row")) == ("1 row", "1,000 rows")


def test_what_a_terminal_would_show() -> None:
    assert plain("\x1b[31mred\x1b[0m 10%\r 99%\ndone\r\n") == " 99%\ndone\n"


hashable = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
hostile = st.sampled_from([Broken, Talkative, NoText, Long, AnswersToAnything])
leaves = hashable | hostile.map(lambda kind: kind()) | st.booleans().map(lambda _: 10**5000)


def as_column(value: object) -> Any:
    array = np.empty(2, dtype=object)
    array[0] = array[1] = value
    return pd.Series(array, dtype=object)  # else pandas 2 makes floats of what is too large


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.lists(inner).map(deque)
        | st.frozensets(hashable)
        | st.dictionaries(hashable, inner)
        | inner.map(lambda value: Point(1.0, [value]))
        | inner.map(Plain)
        | inner.map(lambda value: EndlessList([value]))
        | inner.map(as_column)
        | inner.map(lambda value: [value] * 1000)
    )


@settings(max_examples=200)
@given(st.recursive(leaves, containers, max_leaves=20), st.integers(1, 300))
def test_the_budget_holds_for_any_nesting(value: Any, tokens: int) -> None:
    size = len(summarize(value, tokens=tokens))
    if size > tokens * 4:
        pytest.fail(f"{size} characters for {tokens} tokens")
    if not size and not isinstance(value, str):
        pytest.fail("nothing was said")
