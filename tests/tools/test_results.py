"""What a call gave: the text for the model, the outputs for the reader."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import importlib
import json
import pathlib
import sqlite3
import uuid
from collections import deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.messages import Output, ToolResult
from kimi_magic.secrets.fields import names_secret
from kimi_magic.tools.call import run_call
from kimi_magic.tools.function_tool import make_tool
from kimi_magic.tools.results import as_outputs, compose, fit_for_notebooks, to_text
from kimi_magic.tools.tool import ToolOptions

np: Any = importlib.import_module("numpy")
pd: Any = importlib.import_module("pandas")

NAN = float("nan")
PNG = b"\x89PNG\r\n\x1a\n1234"


def returned(value: object, max_chars: int = 4000) -> ToolResult:
    """The result of a tool that returns just this."""
    tool = make_tool(lambda: value, name="give", options=ToolOptions(max_chars=max_chars))
    return run_call(tool, "", {})


@dataclasses.dataclass
class Point:
    x: float
    label: str


class Model(pydantic.BaseModel):
    at: dt.date
    points: list[Point]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - a plain one is meant


class OwnWords(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


class Said(dict[str, int]):
    def _repr_llm_(self) -> str:
        return "three rows"


def row() -> sqlite3.Row:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    found: sqlite3.Row = connection.execute("select 1 as a, 'x' as b").fetchone()
    connection.close()
    return found


TEXTS = [
    ("plain\ntext", "plain\ntext"),
    (OwnWords("this"), "this"),
    ("", ""),
    (True, "true"),
    (3, "3"),
    (2.5, "2.5"),
    (NAN, "NaN"),
    (-float("inf"), "-Infinity"),
    ([1, None, NAN, "ü"], '[1,null,"NaN","ü"]'),
    ({"a": {"b": ()}}, '{"a":{"b":[]}}'),
    ({2: "x", None: "y", (1, 2): "z", True: "w"}, '{"2":"x","null":"y","(1, 2)":"z","true":"w"}'),
    ({1: "x", "1": "y"}, '{"1":"x","\'1\'":"y"}'),
    ({3, 1, 2}, "[1,2,3]"),
    (frozenset({"b", "a"}), '["a","b"]'),
    (deque([1, 2]), "[1,2]"),
    (range(3), "[0,1,2]"),
    (Pair(1, "r"), '{"left":1,"right":"r"}'),
    (Decimal("1.50"), "1.50"),
    ([Decimal("NaN")], '["NaN"]'),
    (Fraction(1, 3), "1/3"),
    (dt.datetime(2024, 1, 2, 3, 4, tzinfo=dt.UTC), "2024-01-02T03:04:00+00:00"),
    ([dt.date(2024, 1, 2), dt.time(3, 4)], '["2024-01-02","03:04:00"]'),
    (dt.timedelta(hours=1), "1:00:00"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (pathlib.PurePosixPath("/a/b"), "/a/b"),
    (Colour.RED, "red"),
    ([Level.HIGH], "[3]"),
    (Point(NAN, "p"), '{"x":"NaN","label":"p"}'),
    (
        Model(at=dt.date(2024, 1, 2), points=[Point(1.0, "p")]),
        '{"at":"2024-01-02","points":[{"x":1.0,"label":"p"}]}',
    ),
    (b"\x89PNG", r"b'\x89PNG'"),
    ([b"x"], "[\"b'x'\"]"),
    (row(), '{"a":1,"b":"x"}'),
    (np.float32(1.5), "1.5"),
    (np.float64("nan"), "NaN"),
    ([np.int64(3), np.bool_(True), np.str_("s")], '[3,true,"s"]'),
    (np.datetime64("2024-01-01"), "2024-01-01"),
    (np.longdouble(1), "1.0"),
    (pd.NaT, "NaT"),
    (pd.NA, "<NA>"),
    (pd.Timestamp("2024-01-02"), "2024-01-02T00:00:00"),
    ({"t": pd.NaT, "n": pd.NA}, '{"t":"NaT","n":"<NA>"}'),
    (Said(a=1), "three rows"),
    ([Said(a=1)], '["three rows"]'),
    (object(), "<object object>"),
    ({"o": object()}, '{"o":"<object object>"}'),
    (10**5000, "an integer of 16,610 bits"),
    (map(str, [1, 2]), '["1","2"]'),
    (Point, "@dataclasses.dataclass\nclass Point:\n    x: float\n    label: str"),
    ("a\ud800b", "a\\ud800b"),
    (["\udcff"], '["\\udcff"]'),
    (None, "Done; it returned None."),
]


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=[str(i) for i in range(len(TEXTS))])
def test_what_the_model_is_told_of_a_value(value: object, text: str) -> None:
    result = returned(value)
    assert result.content == text
    assert result.error is None
    assert result.value is value or isinstance(value, map)


def test_frames_and_arrays_are_summarised() -> None:
    frame = pd.DataFrame({"n": range(1000)})
    text = "DataFrame, 1,000 rows × 1 column\n"
    assert returned(frame).content.startswith(
        f"{text}columns, with figures:\n- n (int64): 0 to 999"
    )
    nested = json.loads(returned({"f": frame}).content)["f"]
    assert nested.startswith(f"{text}columns (int64): n\nfirst 5 rows:\n")
    assert returned(np.zeros((9, 9))).content.startswith("ndarray, shape (9, 9), dtype float64")


class Hostile:
    """Its repr prints, and then raises what it was made with."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        print("noise")
        raise self.error


class Recursive(dict[str, Any]):
    def items(self) -> Any:
        return self.items()


class Liar:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("I have none")


CIRCLE: dict[str, Any] = {"a": 1}
CIRCLE["self"] = CIRCLE
DEEP: list[Any] = []
for _ in range(10_000):
    DEEP = [DEEP]

HOSTILE = {
    "raises": (Hostile(ValueError("x")), "its repr raises ValueError"),
    "exits": (Hostile(SystemExit(1)), "its repr raises SystemExit"),
    "inside": ([1, Hostile(ValueError("x"))], "its repr raises ValueError"),
    "recursive": (Recursive(a=1), "{'a': 1}"),
    "circular": (CIRCLE, '{"a":1,"self":"… (contains itself)"}'),
    "deep": (DEEP, "… (nested deeper)"),
    "deep in frames": (pd.DataFrame({"a": [Hostile(SystemExit(1))]}), "its repr raises SystemExit"),
}


@pytest.mark.parametrize(("value", "part"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_values_are_described(
    value: object, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = returned(value)
    assert part in result.content
    assert result.error is None
    assert result.value is value
    assert capsys.readouterr() == ("", ""), "what a repr prints is nobody's output"


def test_an_object_without_a_class_is_no_crash() -> None:
    assert "I have none" in returned(Liar()).content


HUGE = {
    "text": "x" * 10**6,
    "list": list(range(10**6)),
    "long texts": ["x" * 10**5] * 1000,
    "wide": {f"key {i}": i for i in range(10**5)},
    "nested": [[[1] * 1000] * 1000] * 1000,
    "bytes": b"x" * 10**7,
    "frame": pd.DataFrame(np.zeros((10**5, 50))),
    "long repr": pd.Series(["x" * 10**5] * 100),
    "escapes": "\ud800" * 5000,
    "quotes": ['"' * 3000] * 3,
    "drained": (i for i in range(10**5)),
}


@pytest.mark.parametrize("max_chars", [0, 300, 4000])
@pytest.mark.parametrize("name", HUGE)
def test_huge_values_are_bounded(name: str, max_chars: int) -> None:
    result = returned(HUGE[name], max_chars)
    assert len(result.content) <= max(max_chars, 200)
    for output in result.outputs:
        assert len(json.dumps(output.data)) < 500_000


def test_cut_text_says_how_much_and_how_to_ask() -> None:
    text = returned("x" * 5000, 300).content
    assert text.endswith(
        f"[cut: {5000 - text.count('x'):,} of 5,000 characters are missing; "
        "call again for a smaller part to see the rest]"
    )
    first, _, last = returned(list(range(10**6)), 300).content.partition("\n")
    items = json.loads(first)
    assert items[-1] == f"… {10**6 - len(items) + 1:,} more"
    assert last == "[Cut; call again for a smaller part to see the rest]"


def test_a_long_member_leaves_room_for_the_others() -> None:
    text = returned({"rows": ["abc"] * 1000, "total": 5}, 300).content
    found = json.loads(text.partition("\n")[0])
    assert found["total"] == 5
    assert found["rows"][-1] == f"… {1000 - len(found['rows']) + 1} more"


def test_what_fits_is_not_touched() -> None:
    value = {"rows": ["abc", [1, {}]] * 300, "more": {"a": 1}, "b": None, "c": "d"}
    text = json.dumps(value, separators=(",", ":"))
    assert returned(value, len(text)).content == text
    assert returned(value, len(text) - 1).content != text


NAMES = st.text().filter(lambda name: not names_secret(name))  # the texts of others are masked
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner | st.text()) | st.dictionaries(NAMES, inner | st.text()),
)
ANYTHING = st.recursive(
    st.none()
    | st.floats()
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.timedeltas()
    | st.complex_numbers()
    | st.fractions()
    | st.text(st.characters()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text() | st.tuples(st.booleans()), inner)
        | st.builds(Pair, inner, inner)
    ),
)


@given(JSON)
def test_json_is_json(value: object) -> None:
    assert json.loads(to_text(value, 10**6)) == value


@given(ANYTHING, st.integers(0, 500))
def test_any_value_has_a_bounded_text_that_can_be_sent(value: object, max_chars: int) -> None:
    text = to_text(value, max_chars)
    assert len(text) <= max(max_chars, 200)
    text.encode()


COMPOSED = [
    ("", "", (), ""),
    ("3", "", (), "3"),
    ("", "hi\n", (), "Printed:\nhi"),
    ("3", "hi\n\n", (), "3\n\nPrinted:\nhi"),
    ("3", " \n", (), "3"),
    ("", "", (Output({"image/png": "…"}, {}),), "A figure was shown to the user."),
    ("", "", (Output({"text/plain": "42"}, {}),), "Shown to the user:\n42"),
    ("", "", (Output({"text/html": "<b>"}, {}),), "Shown to the user: text/html."),
    (
        "",
        "",
        (Output({"text/plain": "<IPython.core.display.HTML object>", "text/html": "<b>"}, {}),),
        "Shown to the user: text/plain, text/html.",
    ),
]


@pytest.mark.parametrize(("text", "printed", "displays", "content"), COMPOSED)
def test_printed_and_shown_are_told(
    text: str, printed: str, displays: tuple[Output, ...], content: str
) -> None:
    assert compose(text, printed, displays, 1000) == content


def test_prints_give_way_to_the_value_but_not_wholly() -> None:
    content = compose("v" * 5000, "p" * 5000, (), 1000)
    assert len(content) <= 1000
    assert content.count("v") > 500
    assert content.count("p") > 50
    assert compose("short", "p" * 5000, (), 1000).count("p") > 800


def test_many_displays_are_counted() -> None:
    content = compose("", "", (Output({"image/png": "…"}, {}),) * 9, 1000)
    assert content.endswith("4 more outputs were shown to the user.")


# What the reader sees


def test_without_ipython_the_reader_sees_the_repr() -> None:
    assert returned([1, "a"]).outputs == (Output({"text/plain": "[1, 'a']"}, {}),)
    assert returned(None).outputs == ()
    assert as_outputs("x")[0].data == {"text/plain": "'x'"}


FIT = [
    ({"image/png": PNG}, {"image/png": base64.b64encode(PNG).decode()}),
    ({"image/png": base64.b64encode(PNG).decode() + "\n"}, {"image/png": "iVBORw0KGgoxMjM0"}),
    ({"image/png": base64.b64encode(b"<script>").decode()}, None),
    ({"image/jpeg": 'x" onerror="alert(1)'}, None),
    ({"image/jpeg": b"\xff\xd8\xff\xe0"}, {"image/jpeg": "/9j/4A=="}),
    ({"text/html": "<script>1</script>"}, {"text/html": "<script>1</script>"}),
    ({"text/plain": "\ud800", "text/html": None}, {"text/plain": "\\ud800"}),
    ({"text/html": "x" * 6_000_000, "text/plain": "t"}, {"text/plain": "t"}),
    ({"application/json": {"a": [1]}}, {"application/json": {"a": [1]}}),
    ({"application/json": {"a": object()}, "text/plain": 3}, None),
    ({"application/json": CIRCLE}, None),
    ({"application/json": NAN}, None),
]


@pytest.mark.parametrize(("data", "kept"), FIT, ids=[str(i) for i in range(len(FIT))])
def test_only_what_a_notebook_can_hold_is_kept(
    data: dict[str, Any], kept: dict[str, Any] | None
) -> None:
    fit = fit_for_notebooks(Output(data, {"isolated": True, "bad": object()}))
    assert fit == (None if kept is None else Output(kept, {"isolated": True}))
