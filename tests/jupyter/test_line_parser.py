"""What is understood on a magic line, and what is said of the rest."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.errors import MagicError
from kimi_magic.jupyter.line_parser import parse_line
from kimi_magic.jupyter.options import OPTIONS


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


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_line_is_understood_or_refused_in_our_words(line: str) -> None:
    with suppress(MagicError):
        assert set(parse_line(line)) == {option.name for option in OPTIONS}
