"""The running notebook's path, and which front end it is."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from kimi_magic.core import frontend
from kimi_magic.core.frontend import notebook_path


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    shell = SimpleNamespace(kernel=object(), starting_dir=str(tmp_path))
    monkeypatch.setattr(frontend, "running_shell", lambda: shell)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return shell


@pytest.mark.parametrize(
    ("given", "relative"),
    [
        ("{}/lesson.ipynb", "lesson.ipynb"),  # JupyterLab: the folder and the session's name
        ("{}/", ""),  # the classic notebook gives its session an empty name
        ("course/lesson.ipynb", "lesson.ipynb"),  # without a name: from the server's root on
        ("{}/x/../lesson.ipynb", "lesson.ipynb"),
        ("", ""),
    ],
)
def test_the_servers_variable(
    shell: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    relative: str,
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", given.format(tmp_path))
    monkeypatch.chdir("/")  # as a cell may do
    assert notebook_path() == str(tmp_path.resolve() / relative)


def test_vs_codes_variable(
    shell: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/elsewhere/0c1f-9a.ipynb")  # of a remote session
    space = {"__vsc_ipynb_file__": str(tmp_path / "own.ipynb")}
    monkeypatch.setattr(frontend, "user_namespace", lambda: space)
    assert notebook_path() == str(tmp_path.resolve() / "own.ipynb")


def test_a_script_below_a_notebook_is_not_that_notebook(
    shell: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del shell.kernel
    monkeypatch.setenv("JPY_SESSION_NAME", "/elsewhere/lesson.ipynb")
    assert notebook_path() == str(tmp_path.resolve())


def test_a_notebook_has_one_path(
    shell: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "link" / "a.ipynb"))
    assert notebook_path() == str(tmp_path.resolve() / "real" / "a.ipynb")


@pytest.mark.parametrize(
    ("command", "prints"),
    [
        (["python", "-m", "jupyter_console"], True),
        (["/usr/bin/python3", "/opt/bin/jupyter-console", "--existing"], True),
        (["C:/Scripts/jupyter-qtconsole.exe"], True),
        (["python", "-m", "qtconsole"], True),
        (["python", "/opt/bin/jupyter-run", "script.ipy"], True),
        (["python", "/opt/bin/jupyter-lab"], False),
        (["python", "-m", "pytest", "tests/test_jupyter_console.py"], False),
        (["python", "console.py"], False),
        ([], False),
    ],
)
def test_a_console_by_its_command(command: list[str], prints: bool) -> None:
    assert frontend._is_console(command) is prints


def test_a_client_in_python_tells_its_process(
    shell: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend, "_is_console", bool)
    for message, prints in {
        f"0a1b-2c_3d4e_{os.getpid()}_17": True,
        f"0a1b-2c_3d4e_{2**31 - 1}_17": False,  # no such process
        "0a1b2c3d-5e6f-4a7b-8c9d-0e1f2a3b4c5d": False,  # JupyterLab's
        "": False,
    }.items():
        asked = {"header": {"msg_id": message}}
        shell.kernel = SimpleNamespace(get_parent=lambda asked=asked: asked)
        assert frontend.prints_only() is prints
