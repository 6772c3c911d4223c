"""The shapes of well-known keys.

Their makers chose them to be found: most begin with a prefix of their own. A secret without such a
mark, like a password in a table, cannot be told from other words.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

__all__ = ["ACCOUNT", "KEY", "MASKED", "holds_key", "mask_accounts", "mask_shapes", "without_key"]

KEY = "[key]"
"""Stands for a key whose value is known."""
MASKED = "[masked]"
"""Stands for what was redacted by its looks, and for all that was redacted beside it."""
ACCOUNT = "[account]"
"""Stands for the id of an account, an organization, a project or a user."""


class _Shape(NamedTuple):
    """A key's prefix, and what follows it, as patterns.

    ``rest`` is strict, for prose and data. ``short`` is enough where a name or a value is expected
    and hardly any other word begins like that: it also finds a key that was cut off.
    """

    prefix: str
    rest: str
    short: str = ""


_SHORT = r"[\w-]{12,}"
# A model is called xai-grok-code-fast-1, a variable hf_datasets or gsk_pharmaceuticals.
_SHORT_MIXED = r"(?=[a-z]*[A-Z\d])[A-Za-z0-9]{12,}"
_SHAPES = {
    # OpenAI, Anthropic, Moonshot, OpenRouter …; a CSS class has no capital and few digits.
    # It looks ahead a bounded way only: sk-sk-sk-… would take the square of its length.
    "an API key (sk-…)": _Shape(
        "sk-",
        r"(?=[\w-]{,99}\d)(?=[\w-]{,99}[A-Z]|(?:[\w-]{,49}?\d){4})[\w-]{20,}",
        _SHORT,
    ),
    "an NVIDIA key (nvapi-…)": _Shape("nvapi-", r"[\w-]{20,}", _SHORT),
    "a GitHub token (ghp_…)": _Shape("gh[oprsu]_", "[A-Za-z0-9]{20,}", _SHORT_MIXED),
    "a GitHub token (github_pat_…)": _Shape("github_pat_", r"\w{20,}", _SHORT),
    "a GitLab token (glpat-…)": _Shape("glpat-", r"[\w-]{20,}", _SHORT),
    "a Hugging Face token (hf_…)": _Shape("hf_", "[A-Za-z0-9]{30,}", _SHORT_MIXED),
    "an AWS key id (AKIA…)": _Shape("A(?:KI|SI|BI|CC)A", r"[A-Z0-9]{16}\b", "[A-Z0-9]{12,}"),
    "a Slack token (xox…)": _Shape("xox[a-z]-", r"[\w-]{10,}"),
    "a Slack token (xapp-…)": _Shape("xapp-", r"[\w-]{10,}"),
    "a Google key (AIza…)": _Shape("AIza", r"[\w-]{35}"),
    "a Google token (ya29.…)": _Shape(r"ya29\.", r"[\w-]{20,}"),
    "a Stripe key (sk_live_…)": _Shape("[rs]k_(?:live|test|prod)_", "[A-Za-z0-9]{10,}"),
    "a Groq key (gsk_…)": _Shape("gsk_", "[A-Za-z0-9]{30,}", _SHORT_MIXED),
    "an xAI key (xai-…)": _Shape("xai-", "[A-Za-z0-9]{30,}", _SHORT_MIXED),
    "a Perplexity key (pplx-…)": _Shape("pplx-", "[A-Za-z0-9]{30,}"),
    "a Replicate token (r8_…)": _Shape("r8_", "[A-Za-z0-9]{30,}"),
    "an npm token (npm_…)": _Shape("npm_", "[A-Za-z0-9]{36}"),
    "a PyPI token (pypi-…)": _Shape("pypi-", r"[\w-]{50,}"),
    "a SendGrid key (SG.…)": _Shape(r"SG\.", r"[\w-]{20,24}\.[\w-]{39,50}"),
    "a Databricks token (dapi…)": _Shape("dapi", "[a-f0-9]{32}"),
    "a DigitalOcean token (dop_v1_…)": _Shape("do[opr]_v1_", "[a-f0-9]{64}"),
    "a Vault token (hvs.…)": _Shape(r"hv[bs]\.", r"[\w-]{24,}"),
    "a JSON Web Token (eyJ…)": _Shape("eyJ", r"[\w-]{8,2000}\.eyJ[\w-]{8,}\.[\w-]*", _SHORT),
}
# What stands for a secret: {password}, $PASSWORD, <password>, ***
_PLACEHOLDER = r"(?!(?:\{[\w.]+\}|\$\{?[A-Z_]+\}?|<[\w -]+>|\*+)(?:[@&;\s'\"]|\Z))"
# As libpq and ODBC have them; Azure's. Parts in quotes or with commas between them are code.
_OF_A_CONNECTION = (
    r"(?:host|hostaddr|port|dbname|user|sslmode|server|data source|driver|uid|user id|database"
    r"|initial catalog|accountname|endpoint)"
)
_KEY_OF_ONE = "password|pwd|accountkey|sharedaccesskey|sharedaccesssignature"
# The group is the secret, what surrounds it tells that it is one.
_IN_CONTEXT = {
    # To its end; where that is cut off, as far as there is base64.
    "a private key": (
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
        r"([\s\S]{,20000}?(?=-----END [A-Z0-9 ]*PRIVATE KEY)|(?:(?:\s|\\[nrt])*[\w+/=]{16,})+)"
    ),
    "the password in a URL": rf"://[^\s/:@'\"]*:{_PLACEHOLDER}([^\s@/'\"]+)@",
    "a secret in a URL": (
        r"[?&;](?i:password|passwd|pwd|(?:access_|auth_)?token|api_?key|(?:client_)?secret"
        rf"|sig|signature|x-amz-signature)={_PLACEHOLDER}"
        r"([^\s&;'\"#<>]{4,})"
    ),
    "a secret in a connection string": (
        rf"(?i:\b{_OF_A_CONNECTION}=[^'\"(){{}}\n,&]{{1,300}}?(?<=[\s;])(?:{_KEY_OF_ONE})=)"
        rf"{_PLACEHOLDER}([^\s;'\"(){{}},&]{{3,}})"
    ),
    "the password before a connection string": (
        rf"(?i:\b(?:{_KEY_OF_ONE})=){_PLACEHOLDER}([^\s;'\"(){{}},&]{{3,100}})"
        rf"(?i:(?=[\s;]\s?{_OF_A_CONNECTION}=))"
    ),
    "a secret in an encoded URL": (
        r"(?i:%3B|%26|%3F)(?i:password|pwd|accountkey)(?i:%3D)((?:(?!%3B|%26)[\w.~%+-]){3,})"
    ),
    "a credential of HTTP": (
        r"(?i:authorization)['\"]?\s*[:=,]\s*b?['\"]?(?:Basic|Token|Digest|ApiKey)\s+"
        rf"{_PLACEHOLDER}([\w.~+/:-]{{6,}}=*)"
    ),
    "a cookie": (
        r"(?:<Cookie [\w.-]{1,100}=|<SimpleCookie: [\w.-]{1,100}='"
        r"|\bCookie\(version=\w{1,6}, name='[^']{1,100}', value=')([^\s'<>]{6,4096})"
    ),
    "a bearer token": r"Bearer\s+([\w.~+/-]{20,}=*)",
    "an AWS secret key": (
        r"(?i:aws_?secret_?(?:access_?)?key)['\"]?\s*[:=,]\s*['\"]?([A-Za-z0-9/+]{40})\b"
    ),
}
_ACCOUNTS = {
    # A digit tells an id from a word such as user_not_found or org-wide.
    "by its prefix": (
        r"(?P<before>)\b(?:org(?:anization)?|proj(?:ect)?|user|acct|account|ak|team|tenant)[-_]"
        r"(?=[\w-]{,99}\d)[\w-]{6,}(?P<after>)"
    ),
    "any name in quotes": (
        r"(?i)(?P<before>\b(?:account|organi[sz]ation|project|tenant|user)(?:[ _-]?id)?[\"']?"
        r"(?:\s*[:=])?\s*['\"`<])[^'\"`<>\s]{1,100}(?P<after>['\"`>])"
    ),
    "behind its word": (
        r"(?i)(?P<before>\b(?:account|organi[sz]ation|project|tenant|user)(?:[ _-]?id)?"
        r"(?:\s*[:=])?\s+)(?=[\w-]{,99}\d)[\w-]{12,}(?P<after>)"
    ),
}
# A key begins where a word does, which is also after an escape such as \n in the repr of a text.
_IN_A_WORD = re.compile(r"(?<!\\)\w\Z|\\\\[nrt]\Z")


def mask_shapes(text: str) -> tuple[str, tuple[str, ...]]:
    """Put ``[masked]`` for what looks like a secret; return the text and what was masked."""
    found: dict[str, None] = {}
    for words, pattern in _patterns():

        def replace(match: re.Match[str], words: str = words) -> str:
            group = 1 if match.re.groups else 0
            before = match.string[max(match.start() - 3, 0) : match.start()]
            if match[group] == MASKED or (not group and _IN_A_WORD.search(before)):
                return match[0]
            found[words] = None
            start, end = (at - match.start() for at in match.span(group))
            return f"{match[0][:start]}{MASKED}{match[0][end:]}"

        text = pattern.sub(replace, text)
    return text, tuple(found)


def mask_accounts(text: str) -> str:
    """Put ``[account]`` for the ids of accounts in a server's words.

    Moonshot names three at once, «account org-… / proj-… <ak-…>», OpenAI «organization org-…»,
    NVIDIA «account 'NAME'».
    """
    for pattern in _account_patterns():
        text = pattern.sub(rf"\g<before>{ACCOUNT}\g<after>", text)
    return text


def holds_key(value: str) -> bool:
    """Return True if something in a name, an option or a constant looks like a key or its start."""
    return _short_pattern().search(value) is not None or mask_shapes(value)[0] != value


def without_key(message: str, given: str) -> str:
    """Redact from an error message a value that was given, if it is a key in the wrong place."""
    return message.replace(given, KEY) if holds_key(given) else message


# Compiled at the first prompt: the package should load quickly.
@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    prefixed = {words: shape.prefix + shape.rest for words, shape in _SHAPES.items()}
    return [(words, re.compile(shape)) for words, shape in (_IN_CONTEXT | prefixed).items()]


@cache
def _account_patterns() -> list[re.Pattern[str]]:
    return [re.compile(pattern) for pattern in _ACCOUNTS.values()]


@cache
def _short_pattern() -> re.Pattern[str]:
    shapes = [shape.prefix + shape.short for shape in _SHAPES.values() if shape.short]
    return re.compile(rf"\b(?:{'|'.join(shapes)})|(?i:bearer) [\w.-]{{12,}}")
