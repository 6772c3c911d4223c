"""Parse the line of a ``%%kimi`` cell, or the words after a ``%kimi`` verb, into options.

Not argparse: it takes values that begin with a dash for flags, knows nothing of lists with commas
and spaces, and cannot tell a quoted word from a bare one. ``shlex`` raises on an apostrophe and
drops the backslashes of a path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from keyword import iskeyword
from typing import Any, NamedTuple

from kimi_magic.config import out_of_bounds
from kimi_magic.core.errors import MagicError
from kimi_magic.jupyter.options import OPTIONS, Option
from kimi_magic.secrets.patterns import holds_key

__all__ = ["parse_line", "parse_verb"]

_TOKEN = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*'|["'])+""")
_QUOTED = re.compile(r""""([^"]*)"|'([^']*)'""")
_FLAG = re.compile(r"-{1,2}[^\W\d]")
_KEY = re.compile(r"--?(api[-_]?)?key\b", re.IGNORECASE)
_INTO = re.compile(r"^\s*([^\W\d]\w*)\s*<<(?:\s|$)")

NO_KEYS = (
    "A key does not belong on the magic line, where it would be saved with the notebook. "
    "Set the endpoint's environment variable (`%kimi endpoints` names it)."
)
KINDS = {int: "a whole number", float: "a number"}


class _Word(NamedTuple):
    """A word of the line without its quotes; a word that begins with a quote is never a flag."""

    text: str
    is_flag: bool


def parse_line(line: str) -> dict[str, Any]:
    """Parse the line of a ``%%kimi`` cell: each option by name, None or False if not given."""
    into = _INTO.match(line)
    parser = _Parser("%%kimi", "`%%kimi -h` lists the options.", OPTIONS)
    found, rest = parser.parse(line[into.end() :] if into else line)
    if rest:
        raise MagicError(
            f"{rest[0]!r:.60} is not an option: the prompt goes into the cell's body, below the "
            "%%kimi line."
        )
    if into:
        found["out"] = into[1]
    out = found["out"]
    if out and (not out.isidentifier() or iskeyword(out)):
        raise MagicError(f"-o takes the name of a variable; {out!r} is none.")
    if found["tool"] and found["no_tools"]:
        raise MagicError("-T offers tools and --no-tools offers none: leave one of them out.")
    if found["no_history"] and (found["chat"] or found["fresh"]):
        raise MagicError("--no-history asks outside of any chat: leave out -c and --fresh.")
    return found


def parse_verb(
    name: str, line: str, options: Sequence[Option], most: int
) -> tuple[dict[str, Any], list[str]]:
    """Parse what follows a verb of ``%kimi`` into its options and at most so many words."""
    parser = _Parser(f"%kimi {name}", f"`%kimi help {name}` shows its usage.", options)
    found, words = parser.parse(line)
    if words[most:]:
        raise parser.error(f"{words[most]!r:.60} is one word too many.")
    return found, words


class _Parser:
    """Reads the words of one line against a table of options."""

    def __init__(self, name: str, hint: str, options: Sequence[Option]) -> None:
        self._name = name
        self._hint = hint
        self._flags = {flag: option for option in options for flag in option.flags}

    def parse(self, line: str) -> tuple[dict[str, Any], list[str]]:
        """Return the options by name, and the words that belong to none."""
        words = _split(line)
        if any(_KEY.match(word.text) or holds_key(word.text) for word in words):
            raise MagicError(NO_KEYS)
        found = {option.name: None if option.value else False for option in self._flags.values()}
        rest: list[str] = []
        words.reverse()  # a stack: the next word is the last item
        while words:
            word = words.pop()
            if not word.is_flag:
                rest.append(word.text)
                continue
            flag, option, attached = self._read_flag(word.text, found)
            if option.value:
                text = self._take_value(flag, option, attached, words)
                self._store(flag, option, text, found)
            elif attached is not None:
                raise self.error(f"{flag} takes no value.")
            else:
                found[option.name] = True
        return found, rest

    def _read_flag(self, word: str, found: dict[str, Any]) -> tuple[str, Option, str | None]:
        """Split a word into its flag and the value attached to it: ``--seed=7``, ``-mID``.

        The switches before the last flag of ``-RuT`` are stored on the way.
        """
        flag, equals, value = word.partition("=")
        if flag in self._flags:
            return flag, self._flags[flag], value if equals else None
        for at, letter in enumerate(word[1:], 2):
            option = self._flags.get(f"-{letter}")  # none for the second dash of --word
            if option is None:
                break
            if option.value or at == len(word):
                return f"-{letter}", option, word[at:].removeprefix("=") or None
            found[option.name] = True
        near = get_close_matches(flag, self._flags, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise self.error(f"{self._name} has no option {flag:.60}.{guess}")

    def _take_value(
        self, flag: str, option: Option, attached: str | None, words: list[_Word]
    ) -> str:
        """Take an option's value off the stack; a list ends at the next flag."""
        if attached is None:
            missing = not words or words[-1].is_flag
            if option.default and (missing or not words[-1].text.isdecimal()):
                return option.default
            if missing:
                quote = "; quote one that begins with a dash" if words else ""
                raise self.error(f"{flag} takes a value ({option.value}){quote}.")
            attached = words.pop().text
        while option.listed and words and not words[-1].is_flag:
            if not (attached.endswith(",") or words[-1].text.startswith(",")):
                break
            attached += words.pop().text
        return attached

    def _store(self, flag: str, option: Option, text: str, found: dict[str, Any]) -> None:
        try:
            value = option.type(text)
        except ValueError:
            raise self.error(f"{flag} takes {KINDS[option.type]}; got {text!r:.60}.") from None
        if option.choices and value not in option.choices:
            raise self.error(f"{flag} is one of {', '.join(option.choices)}; got {text!r:.60}.")
        if problem := out_of_bounds(option.name, value, flag):
            raise self.error(problem)
        if not option.repeat:
            found[option.name] = value
            return
        values = _names(text) if option.listed else [value]
        if not values:
            raise self.error(f"{flag} takes names with commas between them; got {text!r:.60}.")
        found[option.name] = [*(found[option.name] or ()), *values]

    def error(self, message: str) -> MagicError:
        """Return an error that ends with where to find help."""
        return MagicError(f"{message} {self._hint}")


def _names(text: str) -> list[str]:
    """Split at commas, except those inside of an index: ``table[0, 1]``."""
    names, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth <= 0:
            names.append("")
        else:
            names[-1] += char
    return [name.strip() for name in names if name.strip()]


def _split(line: str) -> list[_Word]:
    """Split a line into words: quotes group, backslashes are literal, ``# …`` is a comment."""
    words = []
    for token in _TOKEN.findall(line):
        if token.startswith("#"):
            break
        text = _QUOTED.sub(lambda found: found[1] or found[2] or "", token)
        words.append(_Word(text, bool(_FLAG.match(token))))
    return words
