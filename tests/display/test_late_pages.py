"""Pages that are loaded while the cell runs: when the turn is announced to them, and how."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from kimi_magic.display.live import clicks as clicks_module
from kimi_magic.display.live import late_pages
from kimi_magic.display.live.clicks import READY_WITHIN, Clicks
from kimi_magic.display.live.late_pages import LatePages, listen_on_control
from kimi_magic.display.live.widget import TurnWidget

ASKED = {"header": {"msg_id": "run-1"}, "metadata": {"cellId": "cell-7"}}


class Now:
    """A clock of ours for what waits for pages."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        monkeypatch.setattr(clicks_module, "time", SimpleNamespace(monotonic=lambda: self.seconds))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    return Now(monkeypatch)


def make_clicks(**more: Any) -> Clicks:
    return Clicks(on_ready=lambda: None, on_open=lambda *_: None, **more)


def test_a_page_that_has_left_is_awaited_until_one_comes_late(now: Now) -> None:
    clicks = make_clicks()
    clicks.hear({"ready": "page-1"})
    assert clicks.awaited_for() is None
    clicks.hear({"leaving": "page-1"})
    now.seconds += 3
    assert clicks.awaited_for() == 3
    clicks.hear({"ready": "page-2"})
    assert clicks.awaited_for() == 3, "another window may show a turn that it saw begin"
    clicks.hear({"ready": "page-3", "late": True})
    assert clicks.awaited_for() is None
    assert clicks.late


def test_where_no_page_is_heard_one_may_have_been_reloaded(now: Now) -> None:
    clicks = make_clicks()
    assert clicks.awaited_for() is None
    now.seconds += READY_WITHIN + 1
    assert clicks.awaited_for() == 1


def test_the_next_turn_of_a_cell_is_awaited_from_its_beginning(now: Now) -> None:
    assert make_clicks(awaits_late=True).awaited_for() == 0


class Comm:
    """Keeps what is published."""

    def __init__(self, **_: Any) -> None:
        self.published: list[dict[str, Any]] = []
        self.heard = threading.Event()
        self.closed = False

    def publish_msg(self, kind: str, **message: Any) -> None:
        assert kind == "comm_open"
        self.published.append(message)
        self.heard.set()

    def close(self, **_: Any) -> None:
        self.closed = True


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    manager = SimpleNamespace(comm_msg=lambda *_: None)
    kernel = SimpleNamespace(control_handlers={"interrupt_request": print}, comm_manager=manager)
    monkeypatch.setattr(late_pages, "running_shell", lambda: SimpleNamespace(kernel=kernel))
    return kernel


def test_a_busy_kernel_takes_messages_of_widgets_on_control(kernel: SimpleNamespace) -> None:
    for _ in range(2):
        assert listen_on_control()
    assert kernel.control_handlers["comm_msg"] is kernel.comm_manager.comm_msg
    del kernel.control_handlers
    assert not listen_on_control(), "a kernel of another kind is left alone"


@pytest.mark.usefixtures("kernel")
def test_a_turn_is_announced_and_sent_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    comm, widget = Comm(), TurnWidget(script=b"x")
    monkeypatch.setattr("comm.create_comm", lambda **_: comm)
    monkeypatch.setattr(late_pages, "EVERY", 0.001)
    monkeypatch.setattr(late_pages, "QUIET_PAUSE", 0.0)
    clicks, resent = make_clicks(), threading.Event()
    pages = LatePages(widget, ASKED, clicks, resent.set)
    clicks.resync = True
    assert comm.heard.wait(10)
    assert resent.wait(10), "no tick comes while a call computes"
    pages.end()
    assert comm.closed
    (told, *_) = comm.published
    state = told["data"]["state"]
    missing = state["missing"]
    assert (missing["id"], missing["cell"], missing["run"]) == (widget.model_id, "cell-7", "run-1")
    assert "layout" not in missing["state"], "the page has none"
    assert "script" not in missing["state"], "it is asked for"
    assert len(str(told)) < 8000
    for sink in ("innerHTML", "insertAdjacentHTML", "outerHTML", "document.write", "import "):
        assert sink not in state["_esm"]
    count = len(comm.published)
    time.sleep(0.01)
    assert len(comm.published) == count, "nothing after the end"
    widget.layout.close()
    widget.close()


def test_without_a_kernel_there_is_no_thread() -> None:
    widget = TurnWidget()
    LatePages(widget, ASKED, make_clicks(), lambda: None).end()
    assert "kimi-magic late pages" not in [thread.name for thread in threading.enumerate()]
    widget.layout.close()
    widget.close()
