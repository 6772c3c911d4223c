"""Functions and classes of libraries."""

from __future__ import annotations

import json
import textwrap

import pytest

from tests.context.golden import Case

CASES = {
    "function": Case(lambda: textwrap.dedent),
    "method": Case(lambda: json.JSONDecoder().decode),
    "ufunc": Case(lambda: pytest.importorskip("numpy", "2.0").hypot),
    "builtin": Case(lambda: sorted),
}
