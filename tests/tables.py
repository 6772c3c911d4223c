"""The documents' tables, generated from the code: ``python -m tests.tables`` updates them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from kimi_magic.config import Settings
from kimi_magic.jupyter.commands import REGISTRY
from kimi_magic.jupyter.options import OPTIONS

ROOT = Path(__file__).parents[1]
README, SECURITY = ROOT / "README.md", ROOT / "SECURITY.md"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def tables() -> dict[str, str]:
    traits = sorted(Settings.class_traits(config=True).items())
    return {
        "options": table(
            ["option", "what it does"], [[code(option.usage), option.help] for option in OPTIONS]
        ),
        "verbs": table(
            ["verb", "what it does", "for example"],
            [[code(f"%kimi {v.usage}"), v.help, code(v.example)] for v in REGISTRY.values()],
        ),
        "settings": table(
            ["setting", "default", "what it is"],
            [[code(name), code(repr(trait.default())), trait.help] for name, trait in traits],
        ),
    }


def attacks() -> dict[str, str]:
    """The attackers' aims, each with the module that plays the attacks."""
    modules = sorted((ROOT / "tests/attacks").glob("test_*.py"))
    aims = [ast.get_docstring(ast.parse(module.read_text("utf-8"))) or "" for module in modules]
    rows = [
        [" ".join(aim.partition("\n\n")[0].removeprefix("Aim: ").rstrip(".").split()),
         f"`{module.relative_to(ROOT).as_posix()}`"]
        for aim, module in zip(aims, modules, strict=True)
    ]  # fmt: skip
    return {"attacks": table(["an attacker wants to", "played in"], rows)}


def filled(text: str, made: dict[str, str]) -> str:
    for name, content in made.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}{begin}{content}\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text("utf-8"), tables()), "utf-8")
    SECURITY.write_text(filled(SECURITY.read_text("utf-8"), attacks()), "utf-8")
