"""What the tab key offers, from the one table of options."""

from __future__ import annotations

import pytest

from kimi_magic.jupyter.completion import Names, completions
from tests.kernels import Kernel

NAMES: Names = {
    "chats": lambda _: ["main", "review"],
    "endpoints": lambda _: ["moonshot", "nvidia"],
    "models": lambda _: ["moonshotai/kimi-k2-thinking"],
    "verbs": lambda _: ["ask"],
    "variables": lambda _: ["sales"],
    "callables": lambda typed: ["forecast", "plot", f"{typed}x"],
}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("%%kimi --temp", ["--temperature"]),
        ("%%kimi -e n", ["nvidia"]),
        ("%%kimi -R -m moon", ["moonshotai/kimi-k2-thinking"]),
        ("%%kimi -c ", ["main", "review"]),
        ("%%kimi -T forecast,pl", ["plot", "plx"]),
        ("%%kimi -f t", ["text"]),
        ("%%kimi --approve a", ["ask", "auto"]),
        ("answer = %kimi ch", ["chat", "chats"]),
        ("%kimi chat re", ["review"]),
        ("%kimi tools ", ["add", "remove"]),
        ("%kimi tools add fo", ["forecast", "fox"]),
        ("%kimi tool fore", ["forecast", "forex"]),
        ("%kimi models no", []),
        ("%kimi ask wh", None),
        ("%%kimi -s te", None),
        ("%%kimi hello", None),
        ("x = 5 %kimi ch", None),
        ("print(", None),
    ],
)
def test_lines(line: str, found: list[str] | None) -> None:
    assert completions(line, NAMES) == found


def test_every_option_is_offered() -> None:
    found = completions("%%kimi -", NAMES)
    assert found
    assert {"-T", "--tool", "--no-tools", "--max-steps", "-h"} <= set(found)


@pytest.mark.parametrize(
    ("code", "matches"),
    [
        ("%%kimi --max-", ["--max-steps", "--max-tokens"]),
        ("%%kimi -T forec", ["forecast"]),
        ("%%kimi -T forecast,mod", ["model"]),
        ("%%kimi -T model.pre", ["model.predict"]),
        ("%%kimi -e local -c ma", ["main"]),
        ("x = 1\n%kimi to", ["tool", "tools"]),
        ("%%kimi\n%kimi_to", []),
        ("%%kimi\nfore", ["forecast"]),
    ],
)
def test_in_a_kernel(kernel: Kernel, code: str, matches: list[str]) -> None:
    kernel.run(
        "def forecast(): pass\n"
        "class Model:\n"
        "    def __call__(self): pass\n"
        "    def predict(self): pass\n"
        "model = Model()\n"
        "kimi.chat()"
    )
    found = kernel.complete(code)
    assert found["status"] == "ok"
    assert found["matches"] == matches
    if matches:
        assert matches[0].startswith(code[found["cursor_start"] :])
