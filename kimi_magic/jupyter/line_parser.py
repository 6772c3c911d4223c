"""A line of ``%%kimi`` or ``%kimi`` → its options, or its verb and the rest."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from keyword import iskeyword
from typing import Any, NoReturn

from kimi_magic.core.errors import MagicError
from kimi_magic.jupyter.options import OPTIONS, VERBS
from kimi_magic.secrets.patterns import holds_key

__all__ = ["parse_line", "parse_snippet", "split_verb"]

LISTS = ("--tool", "--var")
_TOKEN = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*'|["'])+""")
_QUOTED = re.compile(r""""([^"]*)"|'([^']*)'""")
_KEY = re.compile(r"--?(api[-_]?)?key\b", re.IGNORECASE)
NO_KEYS = (
    "A key does not belong on the magic line, where it would be saved with the notebook. "
    "Set the endpoint's environment variable (`%kimi endpoints` names it)."
)
_INTO = re.compile(r"^\s*([^\W\d]\w*)\s*<<(?:\s|$)")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise MagicError(f"{message[:1].upper()}{message[1:]}. `%%kimi -h` lists the options.")


def parse_line(line: str) -> dict[str, Any]:
    """Read the line of a ``%%kimi`` cell.

    Returns
    -------
    dict
        Each option by its long name with ``_`` for ``-``; None or False where it was not given.

    Raises
    ------
    MagicError
        An unknown option, a value that does not fit, a key, or text that is no option.
    """
    into = _INTO.match(line)
    words = _split(line[into.end() :] if into else line)
    if any(_KEY.match(word) or holds_key(word) for word in words):
        raise MagicError(NO_KEYS)
    given, rest = _parser().parse_known_args(_joined(words))
    if rest:
        raise MagicError(_complaint(rest[0]))
    found = vars(given)
    if into:
        found["out"] = into[1]
    if found["tool"]:
        found["tool"] = [name for names in found["tool"] for name in _listed(names)]
    for complaint in _complaints(found):
        raise MagicError(complaint)
    return found


def _complaints(found: dict[str, Any]) -> Iterator[str]:
    """What does not fit of options that are well formed, each for itself or together."""
    out = found["out"]
    if out and (not out.isidentifier() or iskeyword(out)):
        yield f"-o takes the name of a variable; {out!r} is none."
    for name in ("temperature", "top_p"):
        if found[name] is not None and not 0 <= found[name] <= 2:
            yield f"--{name.replace('_', '-')} is a number from 0 on; not {found[name]}."
    if found["max_steps"] is not None and found["max_steps"] < 1:
        yield f"--max-steps is at least 1; not {found['max_steps']}."
    if found["tool"] and found["no_tools"]:
        yield "-T offers tools and --no-tools none: leave one of them out."
    if found["var_tokens"] is not None and found["var_tokens"] < 1:
        yield f"--var-tokens is at least 1; not {found['var_tokens']}."
    if found["no_history"] and (found["chat"] or found["fresh"]):
        yield "--no-history asks outside of any chat: leave out -c and --fresh."


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def split_verb(line: str) -> tuple[str, str]:
    """Split a ``%kimi`` line into its verb and the raw rest; the rest keeps quotes and all.

    Raises
    ------
    MagicError
        There is no such verb; the message names the nearest.
    """
    if not line.strip():
        return "help", ""
    verb, *more = line.split(None, 1)
    rest = more[0] if more else ""
    names = [known.name for known in VERBS]
    if verb in names:
        return verb, rest.strip()
    if verb in ("-h", "--help"):
        return "help", rest.strip()
    near = get_close_matches(verb, names, n=1)
    guess = f"Did you mean `%kimi {near[0]}`?" if near else "To ask one line: `%kimi ask …`."
    raise MagicError(f"%kimi has no verb {verb!r}. {guess} `%kimi help` lists them.")


def parse_snippet(words: str) -> dict[str, Any]:
    """Read what follows ``%kimi snippet``: ``form``, ``turn``, ``chat`` and ``out``.

    Raises
    ------
    MagicError
        It is something else.
    """
    parser = _Parser(add_help=False, allow_abbrev=False, prog="%kimi snippet")
    parser.add_argument("form", nargs="?", default="python")
    parser.add_argument("--turn", type=int)
    parser.add_argument("-c", "--chat")
    parser.add_argument("-o", "--out")
    return vars(parser.parse_args(_split(words)))


def _parser() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False, prog="%%kimi")
    for option in OPTIONS:
        if option.value:
            parser.add_argument(
                *option.flags,
                dest=option.name,
                type=option.type,
                choices=option.choices or None,
                action="append" if option.repeat else "store",
            )
        else:
            parser.add_argument(*option.flags, dest=option.name, action="store_true")
    return parser


def _split(line: str) -> list[str]:
    """Words of the line: quotes group, backslashes are plain, ``# …`` is a comment.

    ``shlex`` would raise on an apostrophe and drop the backslashes of a path.
    """
    words = []
    for word in _TOKEN.findall(line):
        if word.startswith("#"):
            break
        words.append(_QUOTED.sub(lambda found: found[1] or found[2] or "", word))
    return words


def _joined(words: Sequence[str]) -> list[str]:
    """Tie each value to its flag: argparse takes a value that begins with ``-`` for a flag."""
    taking = {flag: option.flags[-1] for option in OPTIONS if option.value for flag in option.flags}
    joined, rest = [], iter(words)
    for word in rest:
        value = next(rest, None) if word in taking else None
        while value is not None and value.endswith(",") and taking.get(word) in LISTS:
            value += next(rest, "")  # `-v a, b`
        joined.append(word if value is None else f"{taking[word]}={value}")
    return joined


def _complaint(word: str) -> str:
    if not word.startswith("-"):
        return (
            f"{word!r} is no option: the prompt goes into the cell's body, below the %%kimi line."
        )
    name = word.partition("=")[0]
    near = get_close_matches(name, [flag for option in OPTIONS for flag in option.flags], n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"%%kimi has no option {name}.{guess} `%%kimi -h` lists them."
