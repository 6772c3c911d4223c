"""The turn as a call of curl, for any POSIX shell."""

from __future__ import annotations

import shlex

from kimi_magic.export.layout import comment
from kimi_magic.export.literals import as_json
from kimi_magic.export.program import Program

__all__ = ["write_curl"]


def write_curl(program: Program) -> str:
    """Write the program."""
    about = program.about("curl")
    if program.streams:
        about.append("Each line of data is a piece of the answer; with -N it is shown at once.")
    url = f"{program.base_url.rstrip('/')}/chat/completions"
    options = ["-H 'Content-Type: application/json'"]
    if program.key_env:
        options.append(f'-H "Authorization: Bearer ${program.key_env}"')
    # The quotes keep the shell from the text, and no line of JSON is EOF alone.
    options.append("--data-binary @- <<'EOF'")
    lines = [f"curl -sSN {shlex.quote(url)}", *(f"  {option}" for option in options)]
    data = as_json(program.body, indent=2)
    head = comment("#", [*about, *program.unrun()])
    return "\n".join([head, "", " \\\n".join(lines), data, "EOF\n"])
