"""Magic lines that are understood, and the errors for all others."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from keyword import iskeyword
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kimi_magic.config import BOUNDS, Bounds
from kimi_magic.core.errors import MagicError
from kimi_magic.jupyter.line_parser import parse_line
from kimi_magic.jupyter.options import OPTIONS, Option
from kimi_magic.secrets.patterns import holds_key


def given_in(line: str) -> dict[str, Any]:
    return {name: value for name, value in parse_line(line).items() if value not in (None, False)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("-m kimi-k2.5 -e moonshot", {"model": "kimi-k2.5", "endpoint": "moonshot"}),
        ("--model=x", {"model": "x"}),
        ('-s "You are a poet"', {"system": "You are a poet"}),
        ("-s 'it is \"so\"'", {"system": 'it is "so"'}),
        (r"-o answer -s C:\temp", {"out": "answer", "system": r"C:\temp"}),
        ("answer <<", {"out": "answer"}),
        ("answer << -R", {"out": "answer", "hide_reasoning": True}),
        ("-s '-x' --stop '---'", {"system": "-x", "stop": ["---"]}),
        ("-R -u", {"hide_reasoning": True, "usage": True}),
        ("--stop END --stop '###'", {"stop": ["END", "###"]}),
        ("--temperature 0.5 --top-p .9", {"temperature": 0.5, "top_p": 0.9}),
        (
            "--max-tokens 100 --seed 7 --no-stream",
            {"max_tokens": 100, "seed": 7, "no_stream": True},
        ),
        ("-f text # a comment -m x", {"format": "text"}),
        ("# don't", {}),
        ('-s "# no comment"', {"system": "# no comment"}),
        ("-v a,", {"var": ["a"]}),
        ("-T f,", {"tool": ["f"]}),
        ("-v a, -m x", {"var": ["a"], "model": "x"}),
        ("-v a, b , c ,d", {"var": ["a", "b", "c", "d"]}),
        ("-v a,,b -v c", {"var": ["a", "b", "c"]}),
        ("-va,b -Tf", {"var": ["a", "b"], "tool": ["f"]}),
        ("--tool=f, g", {"tool": ["f", "g"]}),
        ('-T "f, g"', {"tool": ["f", "g"]}),
        ("-T f(a, b), g, -m x", {"tool": ["f(a,b)", "g"], "model": "x"}),
        ('-T "m.f(a, b)",g -m x', {"tool": ["m.f(a, b)", "g"], "model": "x"}),
        ("-T f( a , b ) , g() -R", {"tool": ["f(a,b)", "g()"], "hide_reasoning": True}),
        ("-v m[0, 1], runs['a,b'].x", {"var": ["m[0,1]", "runs[a,b].x"]}),
        ("-Ru", {"hide_reasoning": True, "usage": True}),
        ("-Rm x", {"hide_reasoning": True, "model": "x"}),
        ("-mx -m=y", {"model": "y"}),
        ('--system="-x"', {"system": "-x"}),
        ("--stop --- --seed -7", {"stop": ["---"], "seed": -7}),
        ("--stop '--' --stop=\"--raw\" --stop '-R'", {"stop": ["--", "--raw", "-R"]}),
    ],
)
def test_lines(line: str, expected: dict[str, Any]) -> None:
    assert given_in(line) == expected


def test_an_empty_system_prompt_is_one() -> None:
    assert parse_line('-s ""')["system"] == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--temprature 1", "Did you mean --temperature?"),
        ("what's bigger?", "the prompt goes into the cell's body"),
        ("-f pdf", "markdown"),
        ("--max-tokens many", "--max-tokens"),
        ("-m", "-m"),
        ("--key sk-123", "does not belong on the magic line"),
        ("--api-key=sk-123", "does not belong on the magic line"),
        ("nvapi-0123456789abcdef", "does not belong on the magic line"),
        ("-m x -e sk-0123456789abcdef", "does not belong on the magic line"),
        ("-o 2x", "name of a variable"),
        ("-o class", "name of a variable"),
        ("--temperature nan", "--temperature is a number"),
        ("--temp 1", "no option --temp"),
        ("-m -R", "-m takes a value (ID)"),
        ("-s --dry-run", "quote one that begins with a dash"),
        ("-m --temprature 1", "-m takes a value"),
        ("-v --cells 1-2", "-v takes a value (NAMES), and --cells is an option; quote one"),
        ("-v=--cells 1-2", "-v takes a value (NAMES), and --cells is an option; quote one"),
        ("--cells --seed=-1", "--cells takes a value (3-5), and --seed is an option; quote one"),
        ("-o -- x", "-o takes a value (NAME); quote one"),
        ("--cells= 1-2", "--cells takes a value (3-5)."),
        ("-v , -R", "-v takes names"),
        ("-v a b", "'b' is not an option"),
        ("--raw=yes", "--raw takes no value"),
        ("-Rx", "no option -Rx"),
        ("--seed 1.5", "--seed takes a whole number"),
        ("--temperature hot", "--temperature takes a number"),
    ],
)
def test_complaints_take_one_line(line: str, words: str) -> None:
    with pytest.raises(MagicError) as caught:
        parse_line(line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "123" not in str(caught.value)


@pytest.mark.parametrize("name", ["xai-grok-code-fast-1", "oci/xai-grok-code-fast-1"])
def test_a_models_name_is_no_key(name: str) -> None:
    assert parse_line(f"-m {name}")["model"] == name


WORDS = [flag for option in OPTIONS for flag in option.flags]
WORDS += [
    "",
    ",",
    ",,",
    "a",
    "a,",
    ",b",
    "=",
    "'",
    '"',
    "''",
    '" "',
    "<<",
    "#",
    "-",
    "--",
    "-1",
    "x[0",
    "]",
]
ANY_LINE = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from(WORDS) | st.text("-=, 'x\"", max_size=3)
).flatmap(lambda words: st.sampled_from([" ", "=", ",", ""]).map(lambda by: by.join(words)))


@given(ANY_LINE)
def test_any_line_is_understood_or_refused_in_our_words(line: str) -> None:
    with at_most(5.0), suppress(MagicError):
        assert set(parse_line(line)) == {option.name for option in OPTIONS}


@pytest.mark.parametrize("line", ["'" * 20_001, "-v" + " a," * 20_000, "-v " + "[" * 20_000,
                                  "sk-" * 10_000, "-" * 20_000, "--x" * 10_000])  # fmt: skip
def test_long_lines_take_no_time(line: str) -> None:
    with at_most(5.0), suppress(MagicError):
        parse_line(line)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail after a time, also what never returns."""

    def fail(*_: object) -> None:
        raise AssertionError(f"still parsing after {seconds} s")

    signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


NAME = st.from_regex(r"[a-z_]{1,5}(\.[a-z]{1,3})?", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["C"], exclude_characters='"#'), max_size=12)
NEVER_TOGETHER = [{"tool", "no_tools"}, {"no_history", "chat"}, {"no_history", "fresh"}]


@st.composite
def values(draw: st.DrawFn, option: Option) -> Any:
    if not option.value:
        return True
    if option.listed:
        return draw(st.lists(NAME, min_size=1, max_size=4))
    if option.choices:
        return draw(st.sampled_from(option.choices))
    if option.name == "out":
        return draw(NAME.filter(lambda name: name.isidentifier() and not iskeyword(name)))
    if option.type is str:
        text = draw(TEXT)
        return [text, draw(TEXT)] if option.repeat else text
    bounds = BOUNDS.get(option.name, Bounds(-1000))
    least, most = bounds.least, 10_000 if bounds.most is None else bounds.most
    if option.type is int:
        return draw(st.integers(int(least), int(most)))
    return draw(st.floats(least, most))


@st.composite
def written(draw: st.DrawFn, option: Option, value: Any) -> str:
    """One of the ways to write an option on a line."""
    flag = draw(st.sampled_from(option.flags))
    if value is True:
        return flag
    by = draw(st.sampled_from([" ", "  ", "="] + ([] if flag.startswith("--") else [""])))
    if option.listed and not draw(st.booleans()):
        comma = draw(st.sampled_from([",", ", ", " ,", " , ", ",,"]))
        return f"{flag}{by}{comma.join(value)}{draw(st.sampled_from(['', ',', ' ,']))}"
    several = value if option.repeat else [value]
    if any(str(v)[:1] in ("", "=") for v in several):
        by = by or "="  # `-m""` is `-m`, and `-m"=x"` is `-m=x`, as in a shell
    bare = (v if re.fullmatch(r"[\w.]+|-\d+", v) else f'"{v}"' for v in map(str, several))
    return " ".join(f"{flag}{by}{v}" for v in bare)


@given(st.data())
def test_what_is_written_is_what_is_read(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(OPTIONS), unique=True))
    names = {option.name for option in chosen}
    assume(not any(pair <= names for pair in NEVER_TOGETHER))
    wanted = {option.name: data.draw(values(option)) for option in chosen}
    line = " ".join(data.draw(written(option, wanted[option.name])) for option in chosen)
    assume(not re.search(r"--?(api[-_]?)?key\b", line, re.IGNORECASE))
    assume(not any(holds_key(str(value)) for value in wanted.values()))
    everything = {option.name: None if option.value else False for option in OPTIONS}
    assert parse_line(line) == everything | wanted


MUST_HAVE = [option for option in OPTIONS if option.value and not option.default]


@given(st.sampled_from(MUST_HAVE), st.sampled_from(OPTIONS), st.data())
def test_no_value_is_the_next_option(one: Option, other: Option, data: st.DataObject) -> None:
    flag = data.draw(st.sampled_from(one.flags))
    follows = data.draw(written(other, data.draw(values(other))))
    with pytest.raises(MagicError, match=rf"^{flag} takes a value \(.*\), and -"):
        parse_line(f"{flag} {follows}")


@pytest.mark.parametrize(
    ("line", "count"),
    [("--heavy", 8), ("--heavy 3", 3), ("--heavy=4", 4), ("--heavy -R", 8), ("-R --heavy", 8)],
)
def test_how_many_may_be_left_out(line: str, count: int) -> None:
    assert parse_line(line)["heavy"] == count


@pytest.mark.parametrize("line", ["--heavy 1", "--heavy=0", "--heavy 65", "--until-agree 1"])
def test_how_many_has_bounds(line: str) -> None:
    with pytest.raises(MagicError, match="a number from 2 to 64"):
        parse_line(line)
