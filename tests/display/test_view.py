"""Which view fits which front end."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core import displaypub

from kimi_magic.core import frontend
from kimi_magic.display.view import open_view


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def kernel_shell(parent: Any, publisher: Any = None) -> Any:
    kernel = SimpleNamespace(get_parent=lambda: parent)
    return SimpleNamespace(kernel=kernel, display_pub=publisher)


CAPTURING: Any = displaypub.CapturingDisplayPublisher
SOMEBODY = {"content": {"allow_stdin": True}}


@pytest.mark.parametrize(
    ("kind", "shell", "name"),
    [
        ("auto", kernel_shell(SOMEBODY), "LiveView"),
        ("auto", kernel_shell({"content": {"allow_stdin": False}}), "RecordView"),
        ("auto", kernel_shell({"content": {}}), "RecordView"),
        ("auto", kernel_shell({}), "RecordView"),
        ("auto", kernel_shell(None), "RecordView"),
        ("auto", kernel_shell(SOMEBODY, CAPTURING()), "RecordView"),
        ("live", kernel_shell({}), "LiveView"),
        ("live", kernel_shell(SOMEBODY, CAPTURING()), "RecordView"),
        ("live", SimpleNamespace(), "RecordView"),
        ("record", kernel_shell(SOMEBODY), "RecordView"),
        ("terminal", kernel_shell(SOMEBODY), "TerminalView"),
        ("plain", kernel_shell(SOMEBODY), "PlainView"),
    ],
)
def test_a_kernel_gets_what_its_front_end_can_show(
    kind: str, shell: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend, "running_shell", lambda: shell)
    opened = open_view(kind)
    assert type(opened).__name__ == name
    opened.close()


@pytest.mark.parametrize("shell", [None, SimpleNamespace()])
def test_without_a_kernel_the_output_decides(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontend, "running_shell", lambda: shell)
    monkeypatch.setattr("sys.stdout", Terminal())
    assert type(open_view("auto")).__name__ == "TerminalView"
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert type(open_view("auto")).__name__ == "PlainView"
    monkeypatch.setattr("sys.stdout", None)
    assert type(open_view("auto")).__name__ == "PlainView"


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, live, record, terminal, plain; got 'lively'"):
        open_view("lively")


def test_importing_the_room_brings_no_front_end_library() -> None:
    heavy = ["ipywidgets", "anywidget", "rich", "markdown_it", "nh3", "pygments", "IPython"]
    code = f"import sys, kimi_magic.display.view; print(*[n for n in {heavy} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
