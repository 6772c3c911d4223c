"""Every verb of ``%kimi`` against every option of the one table: known, or refused by its name."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

from kimi_magic.core.errors import MagicError
from kimi_magic.jupyter.commands import REGISTRY, run_verb
from kimi_magic.jupyter.line_parser import parse_prompt
from kimi_magic.jupyter.options import OPTIONS
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

ALL = (*OPTIONS, *(option for verb in REGISTRY.values() for option in verb.options))
WORDS = {"ask": "Hi", "tool": "f", "explain": "1"}


@pytest.mark.parametrize("name", REGISTRY)
def test_an_option_is_known_or_refused_by_name(name: str) -> None:
    verb = REGISTRY[name]
    known = {flag for option in verb.options for flag in option.flags} | {"-h", "--help"}
    notebook = MagicMock()
    for flag, option in {flag: each for each in ALL for flag in each.flags}.items():
        value = f" {option.choices[0]}" if option.choices else " f" if option.value else ""
        value = {int: " 2", float: " 1"}.get(option.type, value)
        word = WORDS.get(name, "x")
        if flag in known:
            if verb.prompt and flag not in ("-h", "--help"):
                found, _ = parse_prompt(name, f"{flag}{value} {word}", place=verb.prompt)
                assert found[option.name], flag
            continue
        lines = [f"{name} {flag}{value}", f"{name} {flag}{value} {word}", f"{name} {flag}"]
        lines += [] if verb.prompt == "behind" else [f"{name} {word} {flag}{value}"]
        for line in lines:
            with pytest.raises(MagicError) as caught:
                run_verb(notebook, line)
            assert f"%kimi {name} has no option {flag}." in str(caught.value)
            assert "\n" not in str(caught.value)
    assert notebook.mock_calls == []


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_verb_shows_its_help(
    name: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = MagicMock()
    assert run_verb(notebook, f"{name} {flag}") is None
    assert f"%kimi {name}" in capsys.readouterr().out
    assert notebook.mock_calls == []


@pytest.mark.parametrize(
    ("line", "options", "prompt"),
    [
        ("What is 2 - 2?", {}, "What is 2 - 2?"),
        ("-m kimi-k3 --seed 5 What's  'up'?", {"model": "kimi-k3", "seed": 5}, "What's  'up'?"),
        ("-s 'be brief' -5 + 3?", {"system": "be brief"}, "-5 + 3?"),
        ("-v a, b What?", {"var": ["a", "b"]}, "What?"),
        ("-R -- --seed is which option?", {"hide_reasoning": True}, "--seed is which option?"),
        ("-- -R", {}, "-R"),
        ("what does -R mean # here", {}, "what does -R mean # here"),
        ("# what is it?", {}, "# what is it?"),
        ("--dry-run", {"dry_run": True}, ""),
        ("", {}, ""),
    ],
)
def test_options_in_front_of_a_prompt(line: str, options: dict[str, Any], prompt: str) -> None:
    found, text = parse_prompt("ask", line)
    assert {n: v for n, v in found.items() if v not in (None, False)} == options
    assert text == prompt


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ("use polars", {}, "use polars"),
        ("use polars --dry-run", {"dry_run": True}, "use polars"),
        ("-m k3 use --seed 5 'the lib'", {"model": "k3", "seed": 5}, "use 'the lib'"),
        ("see issue #5", {}, "see issue #5"),
        ("-R -- -R and  --dry-run", {"hide_reasoning": True}, "-R and  --dry-run"),
    ],
)
def test_options_between_words(line: str, options: dict[str, Any], words: str) -> None:
    found, text = parse_prompt("fix", line, place="between")
    assert {n: v for n, v in found.items() if v not in (None, False)} == options
    assert text == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ask --nope What?", "`%kimi ask -- …` takes it as text."),
        ("ask What? --dry-run", "`%kimi ask --dry-run …`"),
        ("fix use --polars", "has no option --polars"),
        ("fix -T f --no-tools", "leave one of them out"),
        ("ask --api-key=abc Hi", "does not belong on the magic line"),
        ("ask -m sk-0123456789abcdef Hi", "does not belong on the magic line"),
        ("tool f --seed 5", "%kimi tool has no option --seed"),
        ("reset --all", "%kimi reset has no option --all"),
    ],
)
def test_refused_before_anything_is_sent(line: str, words: str) -> None:
    notebook = MagicMock()
    with pytest.raises(MagicError) as caught:
        run_verb(notebook, line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert notebook.mock_calls == []


def test_all_mistakes_of_a_line_at_once() -> None:
    with pytest.raises(MagicError) as caught:
        run_verb(MagicMock(), "ask --sed 5 --top-p 7 --seed x -T f --no-tools Hi")
    for words in ("no option --sed. Did you mean --seed?", "--top-p is a number from 0 to 1",
                  "--seed takes a whole number", "-T offers tools"):  # fmt: skip
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("line", "guess"),
    [
        ("what is 2+2?", "To ask one line: `%kimi ask what is 2+2?`"),
        ("snipet curl", "Did you mean `%kimi snippet`?"),
        ("why", "`%kimi ask why`"),
    ],
)
def test_an_unknown_verb_may_be_a_question(line: str, guess: str) -> None:
    with pytest.raises(MagicError) as caught:
        run_verb(MagicMock(), line)
    assert guess in str(caught.value)
    assert "%kimi chat" not in str(caught.value)


def test_fix_and_explain_take_options_and_words(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run("numbers, other = [3, 1], 'also'")
    kernel.run("total = sum(numbers) / zero", ok=False)
    for line in ("%kimi fix --dry-run", "%kimi fix use polars --dry-run", "%kimi ask --dry-run Hi",
                 "%kimi explain --dry-run"):  # fmt: skip
        ran = kernel.run(line)
        assert "Nothing was sent." in ran.stdout
        assert not [p for p in ran.reply["payload"] if p["source"] == "set_next_input"]
    assert asked.requests == []
    asked.reply("```python\ntotal = 4\n```")
    ran = kernel.run("%kimi fix -v other -o answer --seed 5 use polars, please")
    (sent,) = asked.requests
    text = sent.body["messages"][-1]["content"]
    assert text.endswith("use polars, please")
    assert "The variable `numbers`" in text
    assert "The variable `other`" in text
    assert sent.body["seed"] == 5
    assert [p["text"] for p in ran.reply["payload"]] == ["total = 4"]
    assert kernel.run("print(answer.text[:9])").stdout == "```python\n"
    asked.reply("It fails.")
    kernel.run("%kimi explain 2 --no-history briefly")
    text = asked.requests[1].body["messages"][-1]["content"]
    assert "In[2]" in text
    assert text.endswith("briefly")
    asked.reply("Five.")
    kernel.run("%kimi ask -s 'be brief' --no-history What's 2+3?")
    assert asked.requests[2].body["messages"][0]["content"] == "be brief"
    assert asked.requests[2].body["messages"][-1]["content"] == "What's 2+3?"
