"""Kept answers: nothing is asked twice, and no turn fails because of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic import session as session_module
from kimi_magic.core.errors import TapeError
from kimi_magic.core.events import Notice
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.turn import tapes_in_use
from kimi_magic.wire.kept_answers import kept_path
from kimi_magic.wire.tape_file import TapeFile


@pytest.fixture
def notebook(tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook whose kernel this is, with keep on."""
    path = tmp_path / "work" / "lesson.ipynb"
    path.parent.mkdir()
    path.write_text("{}", "utf-8")
    monkeypatch.setattr(tapes_in_use, "notebook_path", lambda: str(path))
    session.settings.keep = True
    return path


@pytest.fixture
def restarted(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Session]]:
    """Return what puts the session of a new kernel in the place of this one."""
    made = []

    def restart() -> Session:
        session.close()
        made.append(Session())
        made[-1].settings.keep = True
        monkeypatch.setattr(session_module, "_current", made[-1])
        return made[-1]

    yield restart
    for each in made:
        each.close()


@pytest.fixture
def another(notebook: Path) -> Iterator[None]:
    """Let a second kernel of the notebook record."""
    recorder = TapeFile(kept_path(str(notebook)))
    recorder.lock()
    yield
    recorder.unlock()


def ask(prompt: str, **options: Any) -> tuple[str, str, list[str]]:
    """The answer, the label of its replay, and the notices."""
    events = list(kimi.stream(prompt, **options))
    reply = events[-1].reply  # type: ignore[union-attr]
    return reply.text, reply.replayed, [e.text for e in events if isinstance(e, Notice)]


def kept(notebook: Path) -> list[str]:
    return [each.cue["prompt"] for each in TapeFile(kept_path(str(notebook))).read().recordings]


def test_what_was_asked_before_is_not_asked(
    notebook: Path, server: ScriptedServer, restarted: Callable[[], Session]
) -> None:
    server.reply("One")
    server.reply("Two")
    assert ask("First?") == ("One", "", [])
    assert ask("Second?") == ("Two", "", [])
    assert notebook.parent.joinpath(".kimi/lesson.tape").is_file()
    later = restarted()
    assert ask("Second?")[:2] == ("Two", "lesson.tape, scripted")
    assert ask("First?")[0] == "One"
    assert len(server.requests) == 2
    use = later.tapes.kept
    assert use is not None
    assert len(use.played) == 2
    assert use.saved.total_tokens > 0


def test_other_inputs_are_another_question(notebook: Path, server: ScriptedServer) -> None:
    """The second tier of a tape is for students, not for one's own data that have changed."""
    server.reply("12")
    server.reply("13")
    for sales, answer in (([5, 7], "12"), ([6, 7], "13")):
        text, replayed, _ = ask("The sum?", variables={"sales": sales})
        assert (text, replayed) == (answer, "")


def test_it_leads_nobody(
    notebook: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom to ask stays the user's choice: a kept answer is that of the model that is asked."""
    server.reply("One")
    assert ask("First?")[0] == "One"
    with ScriptedServer("nvidia") as other:
        monkeypatch.setenv("KIMI_BASE_URL", other.base_url)
        monkeypatch.setenv("KIMI_MODEL", other.models[0])
        other.reply("Other")
        assert ask("First?")[:2] == ("Other", "")


def test_without_keep_nothing_is_written(
    notebook: Path, server: ScriptedServer, session: Session
) -> None:
    session.settings.keep = False
    server.reply("One")
    server.reply("One")
    assert ask("First?")[1] == ask("First?")[1] == ""
    assert not notebook.parent.joinpath(".kimi").exists()


def test_a_tape_that_is_named_goes_before(notebook: Path, server: ScriptedServer) -> None:
    server.reply("One")
    with kimi.tape(notebook.with_name("own.tape")):
        ask("First?")
    assert not notebook.parent.joinpath(".kimi").exists()
    assert notebook.with_name("own.tape").exists()


NOT_KEPT = "Answers are not kept: "


def test_without_a_notebook_a_line_says_so_once(
    tmp_path: Path, server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tapes_in_use, "notebook_path", lambda: str(tmp_path))
    session.settings.keep = True
    server.reply("One")
    server.reply("Two")
    assert ask("First?")[2] == [f"{NOT_KEPT}the kernel does not know which notebook it runs."]
    assert ask("Second?") == ("Two", "", [])


def test_a_second_kernel_answers_and_says_so_once(
    notebook: Path, server: ScriptedServer, another: None
) -> None:
    server.reply("One")
    server.reply("Two")
    text, _, notices = ask("First?")
    assert text == "One"
    assert len(notices) == 1
    assert notices[0].startswith(f"{NOT_KEPT}Another kernel records into lesson.tape")
    assert ask("Second?") == ("Two", "", [])
    assert kept(notebook) == []


def test_it_goes_on_when_the_other_kernel_has_ended(notebook: Path, server: ScriptedServer) -> None:
    recorder = TapeFile(kept_path(str(notebook)))
    recorder.lock()
    server.reply("One")
    server.reply("Two")
    ask("First?")
    recorder.unlock()
    assert ask("Second?") == ("Two", "", [])
    assert kept(notebook) == ["Second?"]


def test_a_full_disk_is_a_notice(
    notebook: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise TapeError("lesson.tape cannot be written: the disk is full.\nMore.")

    monkeypatch.setattr(TapeFile, "append", full)
    server.reply("One")
    server.reply("Two")
    said = f"{NOT_KEPT}lesson.tape cannot be written: the disk is full."
    assert ask("First?") == ("One", "", [said])
    assert ask("Second?") == ("Two", "", [])


IN_THE_WAY = ("a file", "a folder", "no tape", "a later version", "a null device", "elsewhere")


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_lies_in_the_way_is_a_notice(
    notebook: Path, server: ScriptedServer, tmp_path: Path, what: str
) -> None:
    """Input: a notebook's folder of somebody else's. Holds: the turn ends well, nothing is lost."""
    folder, file = notebook.parent / ".kimi", notebook.parent / ".kimi/lesson.tape"
    precious = tmp_path / "precious"
    precious.write_text("mine", "utf-8")
    if what == "a file":
        folder.write_text("mine", "utf-8")
    else:
        folder.mkdir()
    if what == "a folder":
        file.mkdir()
    elif what == "no tape":
        file.write_text("mine\n", "utf-8")
    elif what == "a later version":
        file.write_text('{"kimi_tape": 99, "made_by": {}}\n', "utf-8")
    elif what == "a null device":
        file.symlink_to(os.devnull.replace("null", "zero"))
    elif what == "elsewhere":
        file.symlink_to(precious)
    server.reply("One")
    server.reply("Two")
    text, replayed, notices = ask("First?")
    assert (text, replayed) == ("One", "")
    assert notices
    assert all(notice.startswith(("Answers are not kept", "Kept answers")) for notice in notices)
    assert ask("Second?")[0] == "Two"
    assert precious.read_text("utf-8") == "mine"
    if what in ("a file", "no tape"):
        assert (folder if what == "a file" else file).read_text("utf-8").strip() == "mine"


def test_a_damaged_tape_gives_what_is_whole(
    notebook: Path, server: ScriptedServer, restarted: Callable[[], Session]
) -> None:
    server.reply("One")
    server.reply("Two")
    ask("First?")
    ask("Second?")
    file = notebook.parent / ".kimi/lesson.tape"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], lines[2][:-30]]))
    restarted()
    assert ask("First?")[1] == "lesson.tape, scripted"
    server.reply("Two again")
    assert ask("Second?")[:2] == ("Two again", "")
    assert kept(notebook) == ["First?", "Second?"]
