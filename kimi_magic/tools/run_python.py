"""The built-in tool ``run_python``, which runs code in the notebook."""

from __future__ import annotations

import ast
import builtins
import itertools
import linecache
from collections.abc import Callable
from typing import Any

from kimi_magic.core.frontend import running_shell

__all__ = ["make_run_python"]

_count = itertools.count(1)


def make_run_python(namespace: dict[str, Any]) -> Callable[[str], Any]:
    """Make the function behind the tool, which runs code in a namespace."""

    def run_python(code: str) -> Any:
        """Run Python code in the user's notebook and get what it prints, shows, and its last value.

        The notebook's variables are there, and new ones stay. Figures are shown to the user.

        Parameters
        ----------
        code : str
            The code; IPython's magics work too. The value of a last line that is an expression
            is returned.
        """
        shell = running_shell()
        source = shell.transform_cell(code) if shell else code
        name = f"<run_python {next(_count)}>"
        # Tracebacks quote their lines from here.
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        try:
            tree = ast.parse(source, name)
        except SyntaxError as error:
            raise error.with_traceback(None) from None
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        namespace.setdefault("__builtins__", builtins)
        exec(compile(tree, name, "exec", dont_inherit=True), namespace)  # noqa: S102 - its purpose
        if not isinstance(last, ast.Expr):
            return None
        value = compile(ast.Expression(last.value), name, "eval", dont_inherit=True)
        return eval(value, namespace)  # noqa: S307 - its purpose

    return run_python
