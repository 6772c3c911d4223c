"""Secrets in a text: found by the shape of well-known keys, and by the values that we know.

The shapes are those that the makers of keys chose to be found: a prefix of their own. What has
none, such as a password in a table, cannot be told from other words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kimi_magic.secrets.keys import Key

__all__ = ["mask"]

MASKED = "[masked]"

# What stands for a secret: {password}, $PASSWORD, <password>, ***
_NAMED = r"(?!(?:\{[\w.]+\}|\$\{?[A-Z_]+\}?|<[\w -]+>|\*+)(?:[@&;\s'\"]|\Z))"
# By what the user is told. Where there is a group, that is the secret.
_SHAPES = {
    words: re.compile(shape)
    for words, shape in {
        # To its end; where that is cut off, as far as there is base64.
        "a private key": (
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
            r"([\s\S]{,20000}?(?=-----END [A-Z0-9 ]*PRIVATE KEY)|(?:(?:\s|\\[nrt])*[\w+/=]{16,})+)"
        ),
        "the password in a URL": rf"://[^\s/:@'\"]*:{_NAMED}([^\s@/'\"]+)@",
        "a secret in a URL": (
            r"[?&;](?i:password|passwd|pwd|(?:access_|auth_)?token|api_?key|(?:client_)?secret"
            rf"|sig|signature|x-amz-signature)={_NAMED}"
            r"([^\s&;'\"#<>]{4,})"
        ),
        "a bearer token": r"Bearer\s+([\w.~+/-]{20,}=*)",
        "an AWS secret key": (
            r"(?i:aws_?secret_?(?:access_?)?key)['\"]?\s*[:=,]\s*['\"]?([A-Za-z0-9/+]{40})\b"
        ),
        # OpenAI, Anthropic, Moonshot, OpenRouter …; a CSS class has no capital and few digits.
        "an API key (sk-…)": r"sk-(?=[\w-]*\d)(?=[\w-]*[A-Z]|(?:[\w-]*?\d){4})[\w-]{20,}",
        "an NVIDIA key (nvapi-…)": r"nvapi-[\w-]{20,}",
        "a GitHub token (ghp_…)": r"gh[oprsu]_[A-Za-z0-9]{20,}",
        "a GitHub token (github_pat_…)": r"github_pat_\w{20,}",
        "a GitLab token (glpat-…)": r"glpat-[\w-]{20,}",
        "a Hugging Face token (hf_…)": r"hf_[A-Za-z0-9]{30,}",
        "an AWS key id (AKIA…)": r"A(?:KI|SI|BI|CC)A[A-Z0-9]{16}\b",
        "a Slack token (xox…)": r"xox[a-z]-[\w-]{10,}",
        "a Slack token (xapp-…)": r"xapp-[\w-]{10,}",
        "a Google key (AIza…)": r"AIza[\w-]{35}",
        "a Google token (ya29.…)": r"ya29\.[\w-]{20,}",
        "a Stripe key (sk_live_…)": r"[rs]k_(?:live|test|prod)_[A-Za-z0-9]{10,}",
        "a Groq key (gsk_…)": r"gsk_[A-Za-z0-9]{30,}",
        "an xAI key (xai-…)": r"xai-[A-Za-z0-9]{30,}",
        "a Perplexity key (pplx-…)": r"pplx-[A-Za-z0-9]{30,}",
        "a Replicate token (r8_…)": r"r8_[A-Za-z0-9]{30,}",
        "an npm token (npm_…)": r"npm_[A-Za-z0-9]{36}",
        "a PyPI token (pypi-…)": r"pypi-[\w-]{50,}",
        "a SendGrid key (SG.…)": r"SG\.[\w-]{20,24}\.[\w-]{39,50}",
        "a Databricks token (dapi…)": r"dapi[a-f0-9]{32}",
        "a DigitalOcean token (dop_v1_…)": r"do[opr]_v1_[a-f0-9]{64}",
        "a Vault token (hvs.…)": r"hv[bs]\.[\w-]{24,}",
        "a JSON Web Token (eyJ…)": r"eyJ[\w-]{8,2000}\.eyJ[\w-]{8,}\.[\w-]*",
    }.items()
}
# A key begins where a word does, which is also after an escape such as \n in the repr of a text.
_IN_A_WORD = re.compile(r"(?<!\\)\w\Z|\\\\[nrt]\Z")


def mask(text: str, known: Mapping[str, str] | None = None) -> tuple[str, tuple[str, ...]]:
    """Take secrets out of a text.

    Parameters
    ----------
    text : str
        What would be sent.
    known : mapping, optional
        Secrets by what the user calls them, such as the names of their variables. Twelve
        characters in a row of one count as a leak; those of less than eight are none.

    Returns
    -------
    str
        The text, with ``[masked]`` for each.
    tuple of str
        What was masked, in words for the user; nothing of the secrets themselves.
    """
    found: dict[str, None] = {}
    for name, secret in (known or {}).items():
        masked = Key(secret, name).mask(text, MASKED)
        if masked != text:
            text, found[f"the value of {name}"] = masked, None
    for words, shape in _SHAPES.items():

        def replace(match: re.Match[str], words: str = words) -> str:
            group = 1 if match.re.groups else 0
            if match[group] == MASKED or (not group and _in_a_word(match)):
                return match[0]
            found[words] = None
            start, end = (at - match.start() for at in match.span(group))
            return f"{match[0][:start]}{MASKED}{match[0][end:]}"

        text = shape.sub(replace, text)
    return text, tuple(found)


def _in_a_word(match: re.Match[str]) -> bool:
    start = match.start()
    return _IN_A_WORD.search(match.string[max(start - 3, 0) : start]) is not None
