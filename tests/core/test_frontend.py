"""The running notebook's path."""

from __future__ import annotations

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
