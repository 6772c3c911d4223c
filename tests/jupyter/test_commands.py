"""The verbs of ``%kimi``: found by their names, all of them in the help, and what they say."""

from __future__ import annotations

import pytest

from kimi_magic.core.errors import MagicError
from kimi_magic.jupyter import commands
from kimi_magic.jupyter.commands import REGISTRY, help_text, split_verb, verb
from kimi_magic.jupyter.completion import completions
from kimi_magic.jupyter.notebook import Notebook
from kimi_magic.jupyter.options import OPTIONS
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel
from tests.tables import tables


def test_the_rest_of_a_verb_is_raw() -> None:
    assert split_verb("""ask What's "8 \\ 2"?""") == ("ask", """What's "8 \\ 2"?""")
    assert split_verb("") == ("help", "")
    assert split_verb("ask\ta  b ") == ("ask", "a  b")


def test_an_unknown_verb_names_the_nearest() -> None:
    with pytest.raises(MagicError, match="Did you mean `%kimi reset`"):
        split_verb("rest")
    with pytest.raises(MagicError, match="To ask one line: `%kimi ask"):
        split_verb("why is it so")


def test_help_names_every_option_and_verb() -> None:
    text = help_text()
    for option in OPTIONS:
        assert option.usage in text
        assert option.help in text
    for known in REGISTRY.values():
        assert f"%kimi {known.usage}" in text
        assert known.example in help_text(known.name)


def test_the_options_of_a_verb_are_in_its_help() -> None:
    assert "    -c CHAT         the chat of the turn\n" in help_text("snippet")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%kimi chat --al", "Did you mean --all? `%kimi help chat` shows its usage."),
        ("%kimi chat one two", "'two' is one word too many"),
        ("%kimi chats one", "'one' is one word too many"),
        ("%kimi usage today", "'today' is one word too many"),
        ("%kimi explain last", "takes the number of one"),
        ("%kimi explain 3-5", "--cells 3-5 attaches others"),
        ("%kimi explain 1, 2", "--cells 3-5 attaches others"),
        (
            "%kimi explain In[9999] briefly",
            "No cell In[9999] has run in this kernel. The latest is In[",
        ),
        ("%kimi --dry-run ask hi", "Options stand behind a verb: `%kimi ask --dry-run …`."),
        ("%kimi ASK it", "Did you mean `%kimi ask it`? To ask one line: `%kimi ask ASK it`."),
        ("%kimi fxi use polars", "Did you mean `%kimi fix use polars`?"),
        ("%kimi help rest", "Did you mean `%kimi reset`"),
    ],
)
def test_mistakes_take_one_line(kernel: Kernel, line: str, words: str) -> None:
    error = kernel.run(line, ok=False).error
    assert words in error
    assert len(error.splitlines()) == 1
    assert kernel.run("%kimi chats").stdout.startswith("There is no chat yet")


def test_a_verb_is_added_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "REGISTRY", registry := dict(REGISTRY))
    monkeypatch.setattr("kimi_magic.jupyter.completion.REGISTRY", registry)
    monkeypatch.setattr("tests.tables.REGISTRY", registry)

    @verb("doctor [WORD]", "find out what ails", example="doctor now", completes=("now|later",))
    def doctor(_: Notebook, rest: str) -> None:
        raise MagicError(rest)

    assert split_verb("doctor  x ") == ("doctor", "x")
    assert registry["doctor"].run is doctor
    assert "%kimi doctor [WORD]" in help_text()
    assert "for example: %kimi doctor now" in help_text("doctor")
    assert "%kimi doctor now" in tables()["verbs"]
    assert completions("%kimi doc", {}) == ["doctor"]
    assert completions("%kimi doctor l", {}) == ["later"]


BAD = {
    "KIMI_BASE_URL": ("localhost:8000", "KIMI_BASE_URL: 'localhost:8000' is"),
    "MOONSHOT_API_KEY": ("two words", "MOONSHOT_API_KEY: unusable"),
    "KIMI_TEMPERATURE": ("hot", "nvidia"),
    "KIMI_ENDPOINT": ("nvidea", "nvidia"),
}


@pytest.mark.parametrize("variable", BAD)
def test_a_bad_variable_breaks_no_list(kernel: Kernel, variable: str) -> None:
    value, words = BAD[variable]
    kernel.run("kimi.add_endpoint(name='lab', base_url='http://127.0.0.1:9/v1')")
    listed = kernel.run("%kimi endpoints").stdout.splitlines()
    kernel.run(f"import os; os.environ[{variable!r}] = {value!r}")
    ran = kernel.run("%kimi endpoints").stdout
    assert words in ran
    assert "two words" not in ran
    assert 0 <= len(ran.splitlines()) - len(listed) <= 1
    kernel.run("%kimi chat\n%kimi chats\n%kimi tools\n%kimi help")
    for code, name in [
        ("%%kimi -e nvid", "nvidia"),
        ("%%kimi -e la", "lab"),
        ("%kimi models nvid", "nvidia"),
        ("%%kimi -m moonshotai/kimi", "moonshotai/kimi-k3"),
    ]:
        assert any(name.endswith(match) for match in kernel.complete(code)["matches"])


def test_a_bad_address_is_named_where_it_is_asked(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run("%env KIMI_BASE_URL=localhost:8000")
    for code in ("%kimi models", "%%kimi\nHi", "%kimi ask Hi"):
        error = kernel.run(code, ok=False).error
        assert "KIMI_BASE_URL" in error
        assert len(error.splitlines()) == 1
    assert asked.requests == []


def test_usage(kernel: Kernel, asked: ScriptedServer) -> None:
    assert kernel.run("%kimi usage").stdout == "Nothing was used yet in this session.\n"
    asked.reply("OK", usage={"prompt_tokens": 1200, "completion_tokens": 34})
    kernel.run("%config KimiMagics.budget = '2k tokens'")
    kernel.run("%%kimi -c review\nHi")
    head, row, unknown, budget = kernel.run("%kimi usage").stdout.splitlines()
    assert head.split() == "chat model endpoint requests tokens in cached out cost".split()
    assert row.split()[0] == "review"
    assert row.split()[3:] == ["1", "1,200", "0", "34", "unknown"]
    assert "are not known" in unknown
    assert budget == "Budget: 2,000 tokens, 766 tokens left."
    error = kernel.run("%%kimi -c review\n" + "x" * 4000, ok=False).told
    assert error.startswith("[BudgetSpent: The budget of 2,000 tokens would be passed, so nothing")
    assert "Sent" not in error
    assert error.endswith("\nBudgetSpent: see above.")
    kernel.run("%config KimiMagics.budget = None")
