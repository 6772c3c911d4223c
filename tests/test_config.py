"""One table of bounds, at every door where a number comes in."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from traitlets import Float, Int, TraitError
from traitlets.config import Config

import kimi_magic as kimi
from kimi_magic.config import BOUNDS, Settings, out_of_bounds
from kimi_magic.core import frontend
from kimi_magic.core.errors import ConfigError, KimiError, MagicError
from kimi_magic.jupyter.line_parser import parse_line
from kimi_magic.jupyter.options import OPTIONS
from kimi_magic.session import Session
from kimi_magic.turn.request import KINDS, make_request

TRAITS = Settings.class_traits(config=True)
NUMBERS = {name for name, trait in TRAITS.items() if isinstance(trait, Float | Int)}


def outside(name: str) -> list[Any]:
    bounds = BOUNDS[name]
    trait = TRAITS.get(name)
    values = [bounds.least - 1, *([] if bounds.most is None else [bounds.most + 0.7])]
    if isinstance(trait, Float):
        return [*values, math.nan]
    return [math.ceil(value) for value in values]


def set_trait(name: str, value: Any) -> None:
    setattr(Settings(), name, value)


def set_profile(name: str, value: Any) -> None:
    Settings(config=Config({"Settings": {name: value}}))


def set_environment(name: str, value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"KIMI_{name.upper()}", str(value))
        Settings().read_environment()


def write_option(name: str, value: Any) -> None:
    parse_line(f"--{name.replace('_', '-')} {value}")


def pass_keyword(name: str, value: Any) -> None:
    make_request("Hi", **{name: value})


Door = Callable[[str, Any], None]
DOORS: list[tuple[Door, type[Exception], str, set[str]]] = [
    (set_trait, TraitError, "{}", set(TRAITS)),
    (set_profile, TraitError, "{}", set(TRAITS)),
    (set_environment, ConfigError, "{}", set(TRAITS)),
    (write_option, MagicError, "--{}", {option.name for option in OPTIONS}),
    (pass_keyword, KimiError, "{}=", set(KINDS)),
]


@pytest.mark.parametrize(
    ("door", "error", "called", "name", "value"),
    [
        pytest.param(door, error, called, name, value, id=f"{door.__name__}-{name}-{value}")
        for door, error, called, names in DOORS
        for name in BOUNDS
        if name in names
        for value in outside(name)
    ],
)
def test_every_door_refuses_what_is_outside(
    door: Door, error: type[Exception], called: str, name: str, value: Any
) -> None:
    with pytest.raises(error) as caught:
        door(name, value)
    said = str(caught.value)
    written = called.format(name.replace("_", "-") if door is write_option else name)
    assert f"{written} is {BOUNDS[name]}" in said
    assert str(value) in said


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_every_door_takes_the_bounds_themselves(name: str) -> None:
    bounds = BOUNDS[name]
    for value in [bounds.least] if bounds.most is None else [bounds.least, bounds.most]:
        for door, _, _, names in DOORS:
            if name in names:
                door(name, value)


def test_every_number_has_bounds() -> None:
    numbers = {o.name for o in OPTIONS if o.type is not str} | NUMBERS
    assert numbers - set(BOUNDS) == {"seed"}
    assert not set(BOUNDS) - numbers


def test_what_is_left_open_passes() -> None:
    assert not out_of_bounds("temperature", None, "x")
    assert not out_of_bounds("seed", -5, "x")


def test_a_keyword_outside_sends_nothing(session: Session) -> None:
    with pytest.raises(KimiError, match="temperature= is a number from 0 to 2; got 9"):
        kimi.ask("Hi", temperature=9, show=False)
    with pytest.raises(KimiError, match="max_tokens= is a number of at least 1; got -3"):
        kimi.chat().ask("Hi", max_tokens=-3, show=False)


def test_the_journal_is_one_file_wherever_a_cell_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = SimpleNamespace(starting_dir=str(tmp_path))
    monkeypatch.setattr(frontend, "running_shell", lambda: shell)
    monkeypatch.delenv("KIMI_JOURNAL")
    monkeypatch.chdir("/")
    assert Settings(journal="of/j.sqlite3").journal_path == tmp_path / "of/j.sqlite3"
    assert Settings(journal="~no-such-user/j").journal_path == tmp_path / "~no-such-user/j"
    assert Settings(journal=" Off ").journal_path is None


def test_what_a_profile_set_is_known_after_config_has_changed() -> None:
    settings = Settings(config=Config({"Settings": {"max_steps": 7}}))
    settings.update_config(Config({"Settings": {"max_steps": 9, "view": "plain"}}))
    assert (settings.max_steps, settings.view) == (9, "plain")
    assert settings.of_profile == {"max_steps": 7}
