"""Functions and classes of libraries."""

from __future__ import annotations

import json
import textwrap

from tests.context.golden import Case

CASES = {
    "function": Case(lambda: textwrap.dedent),
    "method": Case(lambda: json.JSONDecoder().decode),
    "builtin": Case(lambda: sorted),
}
