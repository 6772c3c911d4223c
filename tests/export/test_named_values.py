"""Parameters whose calls name variables, in programs."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest

from kimi_magic.export import write
from kimi_magic.export.named_values import names_by_parameter
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.toolset import Toolset
from tests.export.test_python import results, with_tools
from tests.snippets import cell, check_layout, run


class Size(Enum):
    SMALL = "small"


def choices(size: Size, kind: Literal["sales", "costs"], name: str = "sales") -> None: ...


def frames(one: pd.DataFrame, more: list[pd.DataFrame] | None = None, how: str = "x") -> None: ...


def anything(value, how: Literal["a"] = "a"): ...  # type: ignore[no-untyped-def]


LISTED = {"type": "string", "enum": ["sales", "np.mean"]}


@pytest.mark.parametrize(
    ("function", "properties", "found"),
    [
        (choices, {"size": {"type": "string", "enum": ["small"]}, "kind": LISTED}, {}),
        (frames, {"how": {"type": "string"}}, {}),
        (
            frames,
            {"one": LISTED, "more": {"anyOf": [{"type": "array", "items": LISTED}, {}]}},
            {"one": ["sales", "np.mean"], "more": ["sales", "np.mean"]},
        ),
        (anything, {"value": LISTED}, {}),
        (frames, {"one": {"type": "string", "enum": ["no name", 3]}}, {}),
    ],
)
def test_names_of_variables(
    function: Callable[..., Any], properties: dict[str, Any], found: dict[str, list[str]]
) -> None:
    assert names_by_parameter({"properties": properties}, function) == found


def test_a_call_gets_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook: dict[str, Any] = {}
    cell(
        "from collections.abc import Callable\n"
        "def double(x: float) -> float:\n    return 2 * x\n"
        "def apply(functions: list[Callable[[float], float]], x: float = 1) -> float:\n"
        "    for function in functions:\n        x = function(x)\n    return x\n",
        notebook,
    )
    for name in ("double", "apply", "Callable"):
        monkeypatch.setitem(vars(__import__("__main__")), name, notebook[name])
    assert "double" in str(Toolset([notebook["apply"]]).schemas())
    with ScriptedServer() as server:
        call = {"name": "apply", "arguments": {"functions": ["double", "double"], "x": 3}}
        server.reply(tool_calls=[call])
        server.reply("Done.")
        text = write(with_tools(server, notebook["apply"]), "python")
        check_layout(text, tmp_path)
        run(text, "python", tmp_path)
    assert results(server.requests[1]) == ["12.0"]
