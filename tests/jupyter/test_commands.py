"""The verbs of ``%kimi``: found by their names, and all of them in the help."""

from __future__ import annotations

import pytest

from kimi_magic.core.errors import MagicError
from kimi_magic.jupyter.commands import REGISTRY, help_text, split_verb
from kimi_magic.jupyter.options import OPTIONS


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
    for verb in REGISTRY.values():
        assert f"%kimi {verb.usage}" in text
        assert verb.example in help_text(verb.name)
