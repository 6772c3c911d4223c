"""The README's tables, generated from the code: ``python -m tests.tables`` updates them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kimi_magic.config import Settings
from kimi_magic.jupyter.commands import REGISTRY
from kimi_magic.jupyter.options import OPTIONS

README = Path(__file__).parents[1] / "README.md"


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
            [
                [code(name), code(repr(trait.default())), trait.metadata["help"]]
                for name, trait in traits
            ],
        ),
    }


def filled(text: str) -> str:
    for name, made in tables().items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}{begin}{made}\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text("utf-8")), "utf-8")
