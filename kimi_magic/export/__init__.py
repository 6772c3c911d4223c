"""A turn as a program that stands alone, in the ways that the model's own page shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kimi_magic.core.errors import KimiError
from kimi_magic.export.curl import write_curl
from kimi_magic.export.langchain import write_langchain
from kimi_magic.export.node import write_node
from kimi_magic.export.program import Program
from kimi_magic.export.python import write_python

__all__ = ["FORMS", "Form", "Program", "write"]


class Form(NamedTuple):
    """One way to write a program.

    Attributes
    ----------
    write : callable
        Program → text.
    suffix : str
        Of a file that holds it.
    language : str
        What highlighters call it.
    """

    write: Callable[[Program], str]
    suffix: str
    language: str


FORMS = {
    "python": Form(write_python, ".py", "python"),
    "langchain": Form(write_langchain, ".py", "python"),
    "node": Form(write_node, ".mjs", "javascript"),
    "curl": Form(write_curl, ".sh", "bash"),
}
"""The forms by name."""


def write(program: Program, form: str = "python") -> str:
    """Write a program.

    Parameters
    ----------
    program : Program
    form : str
        One of `FORMS`.

    Raises
    ------
    KimiError
        There is no such form.
    """
    if form not in FORMS:
        raise KimiError(f"No form is called {form!r}: write {', '.join(FORMS)}.")
    return FORMS[form].write(program)
