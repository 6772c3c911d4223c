"""Parse the line of a ``%%kimi`` cell, or the words after a ``%kimi`` verb, into options.

Not argparse: it takes values that begin with a dash for flags, knows nothing of lists with commas
and spaces, and cannot tell a quoted word from a bare one. ``shlex`` raises on an apostrophe and
drops the backslashes of a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from keyword import iskeyword
from typing import Any, Literal, NamedTuple

from kimi_magic.config import out_of_bounds
from kimi_magic.core.errors import MagicError
from kimi_magic.jupyter.options import OPTIONS, Option
from kimi_magic.secrets.patterns import holds_key

__all__ = ["parse_line", "parse_prompt", "parse_verb"]

_TOKEN = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*'|["'])+""")
_QUOTED = re.compile(r""""([^"]*)"|'([^']*)'""")
_FLAG = re.compile(r"-{1,2}[^\W\d]")
_KEY = re.compile(r"--?(api[-_]?)?key\b", re.IGNORECASE)
_INTO = re.compile(r"^\s*([^\W\d]\w*)\s*<<(?:\s|$)")

NO_KEYS = (
    "A key does not belong on the magic line, where it would be saved with the notebook. "
    "Set the endpoint's environment variable (`%kimi endpoints` names it)."
)
MOST_PROBLEMS = 6
KINDS = {int: "a whole number", float: "a number"}


class _Word(NamedTuple):
    """A word of the line without its quotes; a word that begins with a quote is never a flag."""

    text: str
    is_flag: bool
    start: int
    end: int
    typed: str  # with its quotes


Prompt = Literal["", "behind", "between"]
"""The place of a prompt on a line: nowhere, behind the options, or in any place between them."""


def parse_line(line: str) -> dict[str, Any]:
    """Parse the line of a ``%%kimi`` cell: each option by name, None or False if not given.

    Raises
    ------
    MagicError
        It names all that is wrong with the line.
    """
    into = _INTO.match(line)
    parser = _Parser("%%kimi", "`%%kimi -h` lists the options.", OPTIONS)
    found, rest = parser.parse(line[into.end() :] if into else line)
    if rest:
        parser.note(
            f"{rest[0]!r:.60} is not an option: the prompt goes into the cell's body, below the "
            "%%kimi line."
        )
    if into:
        found["out"] = into[1]
    parser.check(found)
    return found


def parse_prompt(
    name: str, line: str, options: Sequence[Option] = OPTIONS, *, place: Prompt = "behind"
) -> tuple[dict[str, Any], str]:
    """Parse what follows a verb that takes a prompt, which stays as it was typed.

    Behind ``--`` everything belongs to the prompt.
    """
    parser = _Parser(f"%kimi {name}", f"`%kimi help {name}` shows its usage.", options, place)
    found, rest = parser.parse(line)
    parser.check(found)
    return found, " ".join(rest)


def parse_verb(
    name: str, line: str, options: Sequence[Option], most: int
) -> tuple[dict[str, Any], list[str]]:
    """Parse what follows a verb of ``%kimi`` into its options and at most so many words."""
    parser = _Parser(f"%kimi {name}", f"`%kimi help {name}` shows its usage.", options)
    found, words = parser.parse(line)
    if words[most:]:
        parser.note(f"{words[most]!r:.60} is one word too many.")
    parser.check(found)
    return found, words


class _Parser:
    """Reads the words of one line against a table of options, and notes all mistakes."""

    def __init__(self, name: str, hint: str, options: Sequence[Option], place: Prompt = "") -> None:
        self._name = name
        self._hint = hint
        self._flags = {flag: option for option in options for flag in option.flags}
        self._place = place
        self._problems: list[str] = []

    def parse(self, line: str) -> tuple[dict[str, Any], list[str]]:
        """Return the options by name, and the words that belong to none; a prompt in pieces."""
        words = _split(line, comments=not self._place)
        if not self._place:
            _refuse_keys(words)
        found = {option.name: None if option.value else False for option in self._flags.values()}
        rest: list[str] = []
        words.reverse()  # a stack: the next word is the last item
        while words:
            word = words.pop()
            if word.typed == "--":
                rest += _remaining(line, words) if self._place else [w.text for w in words[::-1]]
                break
            if not word.is_flag:
                if self._place == "behind":
                    self._refuse_dry_run_behind(words)
                    rest += _remaining(line, [*words, word])
                    break
                rest.append(word.typed if self._place else word.text)
                continue
            self._read_option(word, words, found)
        return found, rest

    def note(self, problem: str) -> None:
        """Add to what is wrong with the line."""
        if problem not in self._problems:
            self._problems.append(problem)

    def check(self, found: Mapping[str, Any]) -> None:
        """Refuse the line with all that is wrong with it."""
        out = found.get("out")
        if (
            self._flags.get("--out") in OPTIONS
            and out
            and (not out.isidentifier() or iskeyword(out))
        ):
            self.note(f"-o takes the name of a variable; {out!r} is none.")
        if found.get("tool") and found.get("no_tools"):
            self.note("-T offers tools and --no-tools offers none: leave one of them out.")
        if found.get("no_history") and (found.get("chat") or found.get("fresh")):
            self.note("--no-history asks outside of any chat: leave out -c and --fresh.")
        if self._problems:
            more = len(self._problems) - MOST_PROBLEMS
            shown = self._problems[:MOST_PROBLEMS] + [f"And {more} more."] * (more > 0)
            raise MagicError(" ".join([*shown, self._hint]))

    def _refuse_dry_run_behind(self, words: Sequence[_Word]) -> None:
        """Refuse the one option that must not become part of a prompt, which would be sent."""
        if "--dry-run" in self._flags and any(w.is_flag and w.text == "--dry-run" for w in words):
            self.note(
                f"--dry-run stands behind the prompt, and options go in front of it: "
                f"`{self._name} --dry-run …`. `{self._name} -- …` takes it as text."
            )

    def _read_option(self, word: _Word, words: list[_Word], found: dict[str, Any]) -> None:
        """Store the option that a word begins, and take its value off the stack."""
        _refuse_keys([word])
        known = self._read_flag(word.text, found)
        if known is None:  # what may be its value is no mistake of its own, and no prompt
            flags = (i for i in range(len(words) - 1, -1, -1) if words[i].is_flag)
            following = next(flags, None)
            if following is not None or not self._place:
                del words[0 if following is None else following + 1 :]
            return
        flag, option, attached = known
        if option.value:
            if attached is not None and self._is_none(attached, word):
                self._note_missing(flag, option, attached)
                return
            text = self._take_value(flag, option, attached, words)
            if text is not None:
                self._store(flag, option, text, found)
        elif attached is not None:
            self.note(f"{flag} takes no value.")
        else:
            found[option.name] = True

    def _read_flag(self, word: str, found: dict[str, Any]) -> tuple[str, Option, str | None] | None:
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
        guess += f" `{self._name} -- …` takes it as text." if self._place else ""
        self.note(f"{self._name} has no option {flag:.60}.{guess}")
        return None

    def _take_value(
        self, flag: str, option: Option, attached: str | None, words: list[_Word]
    ) -> str | None:
        """Take an option's value off the stack; a list ends at the next flag."""
        if attached is None:
            missing = not words or words[-1].is_flag or words[-1].typed == "--"
            if option.default and (missing or not words[-1].text.isdecimal()):
                return option.default
            if missing:
                self._note_missing(flag, option, words[-1].typed if words else "")
                return None
            attached = self._value(words)
        while option.listed and words and not words[-1].is_flag:
            goes_on = attached.endswith(",") or words[-1].text.startswith(",")
            if not goes_on and not _is_open(attached):
                break
            attached += self._value(words)
        return attached

    def _is_none(self, attached: str, word: _Word) -> bool:
        """Return True if what is attached to a flag is no value: nothing, or another option."""
        if '"' in word.typed or "'" in word.typed:
            return False
        return not attached or attached.partition("=")[0] in self._flags

    def _note_missing(self, flag: str, option: Option, instead: str) -> None:
        """Note that an option lacks its value, and what stands in its place."""
        other = instead.partition("=")[0]
        if other not in self._flags:
            other = other[:2]  # a short one, with its value attached: -mID
        why = f", and {other} is an option" if other in self._flags else ""
        quote = "; quote one that begins with a dash" if instead else ""
        self.note(f"{flag} takes a value ({option.value}){why}{quote}.")

    def _value(self, words: list[_Word]) -> str:
        _refuse_keys(words[-1:])
        return words.pop().text

    def _store(self, flag: str, option: Option, text: str, found: dict[str, Any]) -> None:
        try:
            value = option.type(text)
        except ValueError:
            self.note(f"{flag} takes {KINDS[option.type]}; got {text!r:.60}.")
            return
        if option.choices and value not in option.choices:
            self.note(f"{flag} is one of {', '.join(option.choices)}; got {text!r:.60}.")
        elif problem := out_of_bounds(option.name, value, flag):
            self.note(problem)
        elif not option.repeat:
            found[option.name] = value
        elif values := _names(text) if option.listed else [value]:
            found[option.name] = [*(found[option.name] or ()), *values]
        else:
            self.note(f"{flag} takes names with commas between them; got {text!r:.60}.")


def _refuse_keys(words: Iterable[_Word]) -> None:
    if any(_KEY.match(word.text) or holds_key(word.text) for word in words):
        raise MagicError(NO_KEYS)


def _remaining(line: str, words: Sequence[_Word]) -> list[str]:
    """Return the rest of a line from the next word of a stack on, as it was typed."""
    return [line[words[-1].start :].rstrip()] if words else []


def _is_open(text: str) -> bool:
    """Return True if a list of parameters, or of the tools of a server, is not closed yet."""
    return any(text.count(opens) > text.count(closes) for opens, closes in ("()", "[]"))


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


def _split(line: str, *, comments: bool = True) -> list[_Word]:
    """Split a line into words: quotes group, backslashes are literal, ``# …`` is a comment."""
    words = []
    for found in _TOKEN.finditer(line):
        token = found[0]
        if comments and token.startswith("#"):
            break
        text = _QUOTED.sub(lambda quoted: quoted[1] or quoted[2] or "", token)
        words.append(_Word(text, bool(_FLAG.match(token)), *found.span(), token))
    return words
