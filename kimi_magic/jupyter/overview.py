"""The help: all options and verbs in groups, each group with an example."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kimi_magic.core.text import columns

if TYPE_CHECKING:
    from kimi_magic.jupyter.commands import Verb
    from kimi_magic.jupyter.options import Option

__all__ = ["overview"]

# Titles with the names of their options and an example; others stand under `OTHERS`.
OPTION_GROUPS: Mapping[str, tuple[str, str]] = {
    "What goes along": (
        "var cells image raw var_tokens var_rows allow_secrets dry_run",
        "%%kimi -v sales,costs:schema --cells 3-5 --dry-run",
    ),
    "Model": (
        "model endpoint system effort temperature top_p max_tokens seed stop no_stream logprobs",
        "%%kimi -m kimi-k3 --effort high",
    ),
    "Chat": ("chat fresh no_history", "%%kimi -c review --fresh"),
    "Tools": ("tool no_tools max_steps approve", "%%kimi -T forecast,plot --approve ask"),
    "Answer": (
        "out format schema hide_reasoning usage help",
        "%%kimi -o answer --schema 'name, age int'",
    ),
    "A prompt for each row": ("map", "%%kimi --map df -o labels"),
    "Several attempts": ("heavy judge until_agree", "%%kimi --heavy 4 --until-agree 3"),
    "Recorded answers": ("tape strict frozen_tools again", "%%kimi --tape lesson.tape --strict"),
}
VERB_GROUPS: Mapping[str, str] = {
    "Ask": "ask fix explain continue",
    "Maps": "map",
    "Chats": "chats chat reset resume load save",
    "Turns of all notebooks": "log show forget",
    "Tools": "tools tool",
    "Models and what they use": "models endpoints usage",
    "Recorded answers": "tape keep",
    "Turns as programs, side by side, played back": "snippet compare step",
    "Help": "doctor help",
}
OTHERS = "Others"


def overview(options: Sequence[Option], verbs: Mapping[str, Verb]) -> str:
    """Return the help for all options and verbs."""
    by_name = {option.name: option for option in options}
    names = {title: listed.split() for title, (listed, _) in OPTION_GROUPS.items()}
    rows = [(f"  {option.usage}", option.help) for option in options]
    lines = dict(zip(by_name, columns(rows).splitlines(), strict=True))
    examples = {title: example for title, (_, example) in OPTION_GROUPS.items()}
    parts = ["%%kimi [options]: the cell is the prompt; the chat continues from cell to cell."]
    parts += _grouped(lines, names, examples)
    rows = [(f"  %kimi {verb.usage}", verb.help) for verb in verbs.values()]
    lines = dict(zip(verbs, columns(rows).splitlines(), strict=True))
    names = {title: listed.split() for title, listed in VERB_GROUPS.items()}
    examples = {
        title: next((verbs[n].example for n in listed if " " in verbs[n].example[6:]), "")
        for title, listed in names.items()
        if all(name in verbs for name in listed)
    }
    parts.append("%kimi VERB: `%kimi help VERB` tells more of one.")
    parts += _grouped(lines, names, examples)
    parts.append("Settings: %config KimiMagics. In Python: kimi.ask, kimi.chat, kimi.last.")
    return "\n\n".join(parts)


def _grouped(
    lines: Mapping[str, str], groups: Mapping[str, Iterable[str]], examples: Mapping[str, str]
) -> Iterator[str]:
    """Yield the lines of each group below its title, and at last those of none."""
    left = dict(lines)
    for title, names in groups.items():
        found = [left.pop(name) for name in names if name in left]
        example = examples.get(title)
        head = f"{title}, for example: {example}" if example else title
        if found:
            yield "\n".join([head, *found])
    if left:
        yield "\n".join([OTHERS, *left.values()])
