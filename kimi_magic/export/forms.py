"""The forms in which a program can be written, as on the model's own page."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import NamedTuple

from kimi_magic.core.errors import KimiError
from kimi_magic.export.anthropic_python import VERSION
from kimi_magic.export.formatting import as_json, comment
from kimi_magic.export.langchain import write_langchain
from kimi_magic.export.node import write_node
from kimi_magic.export.program import Program
from kimi_magic.export.python import write_python

__all__ = ["FORMS", "Form", "write"]


class Form(NamedTuple):
    """A form of program."""

    write: Callable[[Program], str]
    suffix: str
    language: str  # its name for syntax highlighters


def write_curl(program: Program) -> str:
    """Return the program as a call of curl, for any POSIX shell."""
    opening = program.opening("curl")
    if program.streams:
        opening.append("Each line of data is a piece of the answer; -N prints it as it arrives.")
    # -sS hides the progress bar but not errors.
    path = "chat/completions" if program.encoded is None else "v1/messages"
    url = f"{program.base_url.rstrip('/')}/{path}"
    options = ["-H 'Content-Type: application/json'"]
    if program.encoded is not None:
        options.append(f"-H 'anthropic-version: {VERSION}'")
    options += (f'-H "{name}: {scheme}${it}"' for name, scheme, it in program.key_headers)
    options += (f'-H "{name}: {scheme}${{{it}}}"' for name, scheme, it in program.headers)
    # A quoted delimiter turns expansion off, and no line of JSON is EOF alone.
    options.append("--data-binary @- <<'EOF'")
    lines = [f"curl -sSN {shlex.quote(url)}", *(f"  {option}" for option in options)]
    data = as_json(program.encoded or program.body, indent=2)
    return "\n".join([comment("#", opening), "", " \\\n".join(lines), data, "EOF\n"])


FORMS = {
    "python": Form(write_python, ".py", "python"),
    "langchain": Form(write_langchain, ".py", "python"),
    "node": Form(write_node, ".mjs", "javascript"),
    "curl": Form(write_curl, ".sh", "bash"),
}
"""The forms by name."""
OF_MESSAGES = ("python", "curl")
"""The forms for an endpoint that speaks the Messages API."""


def write(program: Program, form: str = "python") -> str:
    """Return the source of a program in one of the `FORMS`."""
    if form not in FORMS:
        raise KimiError(f"No form is called {form!r}: write {', '.join(FORMS)}.")
    if program.encoded is not None and form not in OF_MESSAGES:
        raise KimiError(
            f"{program.provider} speaks the Messages API, for which there is no form {form}: "
            f"write {' or '.join(OF_MESSAGES)}."
        )
    return FORMS[form].write(program)
