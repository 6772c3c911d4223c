"""Maps over the Batch API: submitted by one call, collected by another, and nothing asked twice."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import kimi_magic as kimi
from kimi_magic.batch import batch_api
from kimi_magic.batch.batch_api_look import ask_for, cancel
from kimi_magic.batch.batch_api_notes import batches_under_way
from kimi_magic.batch.checkpoint import SUFFIX, Checkpoint
from kimi_magic.core.errors import KimiError
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer

DATA = pd.DataFrame({"t": ["a", "b", "c", "a"]}, index=[7, 5, 3, 1])
KEY = "sk-" + "lab0" * 8
FILES, BATCHES = "/v1/files", "/v1/batches"
CHAT = "/v1/chat/completions"


class Lab:
    """A server with the Batch API, and one map that is asked there again and again."""

    def __init__(self, server: ScriptedServer, folder: Path) -> None:
        self.server = server
        self.into = folder / "labels.csv"
        self.notes = folder / f"labels.csv{SUFFIX}"

    def ask(self, data: Any = DATA, prompt: str = "say {{ t }}", **options: Any) -> pd.DataFrame:
        given = {"endpoint": "lab", "engine": "batch", "into": self.into, "show": False, **options}
        return kimi.map(data, prompt, **given)

    def answer(self, *texts: str, **how: Any) -> None:
        for text in texts:
            self.server.reply(text, reasoning="so", **how)

    def sent(self, path: str, method: str = "POST") -> int:
        return sum((r.method, r.path) == (method, path) for r in self.server.requests)

    @property
    def asked(self) -> list[str]:
        bodies = [r.body for r in self.server.requests if r.path == CHAT]
        return [body["messages"][-1]["content"] for body in bodies]


@pytest.fixture
def lab(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    session.settings.retries = 1
    monkeypatch.setenv("LAB_KEY", KEY)
    with ScriptedServer(key=KEY) as server:
        kimi.add_endpoint(**about(server))
        yield Lab(server, tmp_path)


def about(server: ScriptedServer) -> dict[str, Any]:
    fields = {"name": "lab", "base_url": server.base_url, "key_env": "LAB_KEY"}
    return {**fields, "model": "kimi-k2-thinking", "batch": True, "prices": (1.0, 2.0)}


def kinds(frame: pd.DataFrame) -> list[str]:
    """The beginnings of errors; "" for none."""
    return [str(e).partition(":")[0] if isinstance(e, str) else "" for e in frame.error]


def test_submitted_and_collected_in_another_kernel(
    lab: Lab, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results come in another order; equal rows are asked once."""
    first = lab.ask(show=True)
    assert kinds(first) == ["not ready"] * 4
    assert first.index.equals(DATA.index)
    assert first.error[7] == "not ready: batch batch_1 (in progress, 0 of 3 rows answered)"
    assert "The same call collects them" in capsys.readouterr().out
    assert kinds(lab.ask()) == ["not ready"] * 4
    session.connector.close()
    lab.answer("A", "B", "C", usage={"prompt_tokens": 1_000_000, "completion_tokens": 500_000})
    lab.server.finish_batches()
    told = lab.ask(show=True)
    assert list(told.text) == ["A", "B", "C", "A"]
    assert list(told.reasoning) == ["so"] * 4
    assert kinds(told) == [""] * 4
    assert list(told.attempts) == [1, 1, 1, 0]
    assert told.usage[7]["cost"] == 2.0
    assert capsys.readouterr().out == ""
    assert list(lab.ask().text) == ["A", "B", "C", "A"]
    assert list(lab.ask(engine="threads").text) == ["A", "B", "C", "A"]
    assert (lab.sent(FILES), lab.sent(BATCHES)) == (1, 1)
    assert lab.asked == ["say a", "say b", "say c"]
    used = sum((u.cost for u in session.connector.spending.accounts().values()), 0.0)
    assert used == 6.0
    assert KEY not in lab.notes.read_text()


def test_a_request_is_what_is_sent_one_by_one(lab: Lab) -> None:
    lab.answer("A")
    options = {"temperature": 0.2, "max_tokens": 9, "system": "Be brief.", "seed": 1, "stop": "x"}
    lab.ask(["a"], "say {{ value }}", engine="threads", into=None, **options)
    lab.ask(["a"], "say {{ value }}", **options)
    lab.answer("A")
    lab.server.finish_batches()
    alone, batched = (dict(r.body) for r in lab.server.requests if r.path == CHAT)
    assert alone.pop("stream")
    del alone["stream_options"]
    assert not batched.pop("stream")
    assert batched == alone
    sent = [r.headers for r in lab.server.requests]
    extra = {"Accept", "Content-Length", "Content-Type"}
    assert {n: v for n, v in sent[0].items() if n not in extra} == {
        n: v for n, v in sent[1].items() if n not in extra
    }


def test_the_environment_adds_no_headers(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Own: 1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    lab.ask()
    for request in lab.server.requests:
        assert not {"X-Own", "OpenAI-Organization"} & set(request.headers)


def test_a_price_of_moonshots(session: Session, lab: Lab) -> None:
    kimi.add_endpoint(like="moonshot", **about(lab.server))
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}
    plan = lab.ask(dry_run=True, max_tokens=1_000_000)
    assert plan.most_cost == pytest.approx(0.6 * 3 * 2, rel=0.01)
    lab.ask(["a"], "say {{ value }}")
    lab.answer("A", usage=usage)
    lab.server.finish_batches()
    assert lab.ask(["a"], "say {{ value }}").usage[0]["cost"] == pytest.approx(1.8)


def test_failed_rows_are_asked_anew_by_the_next_call(lab: Lab) -> None:
    """A refusal in the error file, an answer that does not fit its schema, and an empty one."""
    ask = partial(lab.ask, schema="n int")
    ask()
    lab.server.error(400, "no such thing")
    lab.answer('{"n": "x"}', " ")
    lab.server.finish_batches()
    told = ask()
    assert kinds(told) == ["BadRequest", "SchemaMismatch", "The answer is empty.", "BadRequest"]
    assert "no such thing" in told.error[7]
    assert lab.sent(BATCHES) == 1, "they are shown before they are asked anew"
    assert kinds(ask()) == ["not ready"] * 4
    lab.answer(*(f'{{"n": {n}}}' for n in range(3)))
    lab.server.finish_batches()
    assert list(ask().n) == [0, 1, 2, 0]
    assert Counter(text[:5] for text in lab.asked) == dict.fromkeys(["say a", "say b", "say c"], 2)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("expired", "could not be executed"),
        ("failed", "The batch failed without an answer to this row: The file is not valid."),
        ("cancelled", "The batch was cancelled without an answer to this row."),
    ],
)
def test_a_batch_that_does_not_come_to_its_end(
    lab: Lab, session: Session, status: str, said: str
) -> None:
    """The answers that it had by then are kept, and only the rest is asked anew."""
    lab.ask()
    if status == "cancelled":
        [note] = batches_under_way(lab.notes)
        assert cancel(session, note).status == "cancelling"
        assert str(ask_for(session, note)).startswith("batch batch_1 (cancelling, 0 of 3 rows")
    if status == "expired":
        lab.answer("A")
    lab.server.finish_batches(status, most=1)
    told = lab.ask()
    answered = [bool(t) for t in told.text.fillna("")]
    assert answered == [status == "expired", False, False, status == "expired"]
    assert said in told.error[5]
    left = ["A", "B", "C"][status == "expired" :]
    lab.ask()
    lab.answer(*left)
    lab.server.finish_batches()
    assert list(lab.ask().text) == ["A", "B", "C", "A"]
    assert sorted(lab.asked) == ["say a", "say b", "say c"]


def test_new_rows_are_submitted_beside_those_under_way(lab: Lab) -> None:
    lab.ask(["a", "b"], "{{ value }}")
    assert kinds(lab.ask(["b", "c"], "{{ value }}")) == ["not ready"] * 2
    lab.answer("A", "B", "C")
    lab.server.finish_batches()
    assert list(lab.ask(["c", "a"], "{{ value }}").text) == ["C", "A"]
    assert list(lab.ask(["b"], "{{ value }}").text) == ["B"]
    assert lab.asked == ["a", "b", "c"]


def test_batches_of_another_map_in_the_same_file_are_left_alone(lab: Lab) -> None:
    lab.ask(schema="n int")
    lab.ask(["z"], "other {{ value }}")
    lab.answer(*('{"n": 1}' for _ in range(3)), "Z")
    lab.server.finish_batches()
    assert list(lab.ask(["z"], "other {{ value }}").text) == ["Z"]
    assert list(lab.ask(schema="n int").n) == [1, 1, 1, 1]


def test_many_rows_in_several_batches(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number and by their bytes; a row that is too large alone has its error."""
    monkeypatch.setattr(batch_api, "MOST_REQUESTS", 2)
    lab.ask(list("abcde"), "{{ value }}")
    assert lab.sent(BATCHES) == 3
    monkeypatch.setattr(batch_api, "MOST_BYTES", 700)
    rows = ["x" * 200, "y" * 200, "z" * 900]
    told = lab.ask(rows, "{{ value }}")
    assert kinds(told) == ["not ready", "not ready", "KimiError"]
    assert "a file for a batch has 700 at most" in told.error[2]
    assert lab.sent(BATCHES) == 5


class Crash(BaseException):
    """The end of a process between two of its steps."""


@pytest.mark.parametrize("step", ["keys", "file", "id", "collected"])
def test_a_crash_between_two_steps(lab: Lab, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Before a step is noted, which is done already: no row is lost, and none is asked twice."""
    note = Checkpoint.note

    def crash(self: Checkpoint, line: Mapping[str, Any]) -> None:
        if (line.get("id") or line.get("file") or line.get("keys")) and line.get(step):
            raise Crash
        if step == "collected" and (line.get("text") == "B" or line.get("ended")):
            raise Crash
        note(self, line)

    if step == "collected":
        lab.ask()
        lab.answer("A", "B", "C")
        lab.server.finish_batches()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "note", crash)
        with pytest.raises(Crash):
            lab.ask()
    if step != "collected":
        assert kinds(lab.ask()) == ["not ready"] * 4
        lab.answer("A", "B", "C")
        lab.server.finish_batches()
    assert list(lab.ask().text) == ["A", "B", "C", "A"]
    assert lab.sent(BATCHES) == 1
    assert lab.sent(FILES) == (2 if step == "file" else 1)
    assert lab.asked == ["say a", "say b", "say c"]


CHILD = """
import json, sys
import kimi_magic as kimi
about, into = json.loads(sys.argv[1])
kimi.add_endpoint(**about)
data = ["a", "b"]
kimi.map(data, "{{ value }}", endpoint="lab", engine="batch", into=into)
"""


def test_killed_while_the_batch_is_created(lab: Lab) -> None:
    """SIGKILL when the server has created it, and its answer is on the way."""
    created = [b'{"id": "never seen"}']
    lab.server.raw(created, path=BATCHES, stall_after=0)
    given = json.dumps([about(lab.server), str(lab.into)])
    child = subprocess.Popen([sys.executable, "-c", CHILD, given])
    wait_for(lambda: lab.sent(BATCHES) == 1)
    child.kill()
    child.wait()
    [request] = [r for r in lab.server.requests if r.path == BATCHES]
    # The batch of which nobody was told.
    lab.server._desk.answer("POST", BATCHES, request.body, request.headers, [])
    assert kinds(lab.ask(["a", "b"], "{{ value }}")) == ["not ready"] * 2
    lab.answer("A", "B")
    lab.server.finish_batches()
    assert list(lab.ask(["a", "b"], "{{ value }}").text) == ["A", "B"]
    assert (lab.sent(BATCHES), lab.sent(FILES)) == (1, 1)


def wait_for(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("path", [FILES, BATCHES])
def test_an_interrupt_while_the_server_is_waited_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The frame so far comes back; a batch that is being created is waited for, and known."""
    if path == FILES:
        lab.server.raw([b"{}"], path=path, stall_after=0)
    else:
        monkeypatch.setattr(lab.server._desk, "_create", slowly(lab.server._desk._create))

    def interrupt() -> None:
        wait_for(lambda: lab.sent(path) == 1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    told = lab.ask()
    thread.join()
    lab.server.go_on()
    wanted = "not asked: Interrupted." if path == FILES else "not ready: batch batch_1"
    assert all(str(e).startswith(wanted) for e in told.error)
    assert kinds(lab.ask()) == ["not ready"] * 4
    assert (lab.sent(BATCHES), lab.sent(FILES)) == (1, 1 + (path == FILES))


def slowly(create: Any) -> Any:
    def wrapped(*given: Any) -> Any:
        threading.Event().wait(0.3)  # the server's thread: no answer before the interrupt came
        return create(*given)

    return wrapped


def test_refused_for_the_rate(lab: Lab) -> None:
    for path in (FILES, BATCHES):
        lab.server.error(429, "slow down", path=path, headers={"Retry-After": "0"})
    assert kinds(lab.ask()) == ["not ready"] * 4
    assert (lab.sent(FILES), lab.sent(BATCHES)) == (2, 2)


def test_refused_for_good(lab: Lab) -> None:
    """The rows are not asked, with the reason; the next call sends them anew."""
    lab.server.error(400, "kimi-k2-thinking is not for batches", path=BATCHES)
    told = lab.ask()
    assert kinds(told) == ["not asked"] * 4
    assert "is not for batches" in told.error[7]
    lab.server.error(401, "Invalid Authentication", path=FILES)
    assert "KeyRefused" in lab.ask().error[7]
    assert kinds(lab.ask()) == ["not ready"] * 4


def test_a_batch_that_may_have_been_created(lab: Lab) -> None:
    """After a 500 it is looked for, and made of the same file where there is none."""
    lab.server.error(500, "oops", path=BATCHES)
    told = lab.ask()
    assert "is being made" in told.error[7]
    assert "ServerFailed" not in lab.notes.read_text()
    assert kinds(lab.ask()) == ["not ready"] * 4
    assert (lab.sent(FILES), lab.sent(BATCHES)) == (1, 2)


def test_a_batch_that_is_gone(lab: Lab) -> None:
    lab.ask()
    lab.server.error(404, "no such batch", path=f"{BATCHES}/batch_1")
    told = lab.ask()
    assert told.error[7].startswith("The batch is gone without an answer to this row: lab does not")
    assert kinds(lab.ask()) == ["not ready"] * 4
    assert lab.sent(BATCHES) == 2


def test_a_server_that_fails_for_the_moment(lab: Lab, session: Session) -> None:
    """Nothing is lost: the batch is asked for again by the next call."""
    session.settings.retries = 0
    lab.ask()
    lab.answer("A", "B", "C")
    lab.server.finish_batches()
    for path in (f"{BATCHES}/batch_1", "/v1/files/file-2/content"):
        lab.server.error(503, "away", path=path)
        assert kinds(lab.ask()) == ["not ready"] * 4
    assert list(lab.ask().text) == ["A", "B", "C", "A"]
    assert lab.sent(BATCHES) == 1


def test_an_output_file_that_is_gone(lab: Lab) -> None:
    lab.ask()
    lab.server.error(400, "no")
    lab.answer("B", "C")
    lab.server.finish_batches()
    lab.server.error(404, "no such file", path="/v1/files/file-2/content")
    told = lab.ask()
    assert kinds(told) == [
        "BadRequest",
        *["The batch ended without an answer to this row"] * 2,
        "BadRequest",
    ]
    assert "does not know its file any more" in told.error[5]


def test_results_of_every_kind(lab: Lab) -> None:
    """Broken lines, unknown ids, an id twice, a separator within a text, a cut at the end."""
    lab.ask()
    lab.answer("A", "B\u2028b\x85", "C")
    lab.server.finish_batches()
    output = lab.server._desk._files["file-2"]
    c, b, a = output.splitlines(keepends=True) if output.count(b"\n") == 3 else []
    refused = json.loads(a) | {"response": None, "error": {"message": "busy"}}
    again = json.loads(b.decode())
    again["response"]["body"]["choices"][0]["message"]["content"] = "another"
    found = [
        b"\n{broken\n[]\n3\nnull\n" + b"[" * 100_000 + b"\n",
        b'{"custom_id": "unknown", "response": {"status_code": 200, "body": {}}}\n',
        json.dumps({"custom_id": json.loads(c)["custom_id"], "response": "?"}).encode() + b"\n",
        json.dumps(refused).encode() + b"\n",
        b + json.dumps(again).encode() + b"\n" + a,
        c[: len(c) // 2],
    ]
    lab.server.raw([b"".join(found)], path="/v1/files/file-2/content")
    told = lab.ask()
    assert list(told.text.fillna("-")) == ["A", "B\u2028b\x85", "-", "A"]
    assert kinds(told) == ["", "", "The batch ended without an answer to this row.", ""]


def test_what_is_no_batch_api(lab: Lab) -> None:
    """A server that answers with pages, and one whose names are addresses."""
    bodies = (b"<html>Welcome</html>", b"[]", b'{"id": ".."}', b'{"id": "a/b"}', b'{"id": 3}')
    for number, body in enumerate(bodies):
        kind = "application/json" if number else "text/html"
        lab.server.raw([body], path=FILES, content_type=kind)
        assert "sent no id of a file or a batch" in lab.ask().error[7]
    lab.server.raw([json.dumps({"id": f"x{KEY}"}).encode()], path=FILES)
    assert KEY not in lab.ask().error[7]
    assert KEY not in lab.notes.read_text()


@pytest.mark.parametrize("name", ["..", "../models", f"x{KEY}"])
def test_a_file_whose_name_is_none(lab: Lab, name: str) -> None:
    """Nothing is asked for by it."""
    lab.ask()
    lab.answer("A", "B", "C")
    lab.server.finish_batches()
    lab.server._desk._batches["batch_1"].facts["output_file_id"] = name
    before = len(lab.server.requests)
    assert kinds(lab.ask()) == ["not ready"] * 4
    assert [request.path for request in lab.server.requests[before:]] == [f"{BATCHES}/batch_1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tools": [len]}, 'engine="batch" calls no tools'),
        ({"heavy": 2}, 'engine="batch" has no heavy mode'),
        ({"max_cost": 1.0}, 'engine="batch" cannot keep max_cost='),
        ({"max_tokens_total": 1}, 'engine="batch" cannot keep max_tokens_total='),
        ({"into": None}, "give into="),
        ({"endpoint": "vllm"}, "vllm has no Batch API that is known of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_batch_cannot_do(lab: Lab, options: dict[str, Any], said: str) -> None:
    for dry_run in (True, False):
        with pytest.raises(KimiError) as refused:
            lab.ask(dry_run=dry_run, **options)
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
    assert lab.server.requests == []


def test_a_budget_and_a_tape(lab: Lab, session: Session, tmp_path: Path) -> None:
    session.settings.budget = "$1"
    with pytest.raises(KimiError, match="cannot keep the setting budget"):
        lab.ask()
    session.settings.budget = ""
    with kimi.tape(tmp_path / "t.tape"), pytest.raises(KimiError, match="A tape holds no batches"):
        lab.ask()


def test_the_first_failure_is_raised(lab: Lab) -> None:
    """All that came is kept before."""
    lab.ask(on_error="raise")
    lab.answer("A")
    lab.server.error(400, "no such thing")
    lab.answer("C")
    lab.server.finish_batches()
    with pytest.raises(KimiError, match="no such thing"):
        lab.ask(on_error="raise")
    assert kinds(lab.ask()) == ["", "not ready", "", ""]


def test_rows_whose_prompts_fail(lab: Lab) -> None:
    rows: list[dict[str, Any]] = [{"t": "a"}, {"t": None}, {}]
    told = lab.ask(rows, "{{ t.upper() }}")
    assert kinds(told)[0] == "not ready"
    assert all(kind.endswith("Error") for kind in kinds(told)[1:])
    assert lab.sent(BATCHES) == 1


def test_nothing_to_submit(lab: Lab) -> None:
    assert len(lab.ask([], "{{ value }}")) == 0
    assert lab.server.requests == []


def test_begun_in_one_way_and_continued_in_another(lab: Lab) -> None:
    """No engine asks for what another has answered; nor where a key names the rows."""
    for options in ({}, {"key": "t", "schema": "label"}):
        written = ['{"label": "%s"}' % text if options else text for text in "ABC"]  # noqa: UP031
        into = lab.into.with_name(f"{len(options)}.csv")
        lab.answer(written[0])
        lab.ask(DATA[:1], engine="threads", into=into, **options)
        assert kinds(lab.ask(into=into, **options)) == ["", "not ready", "not ready", ""]
        lab.answer(*written[1:])
        lab.server.finish_batches()
        for engine in ("batch", "threads"):
            told = lab.ask(engine=engine, into=into, **options)
            assert list(told["label" if options else "text"]) == ["A", "B", "C", "A"]
    assert len(lab.asked) == 6


def test_a_full_disk_for_temporary_files(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryFile", refuse)
        told = lab.ask()
    assert "could not be written: the disk is full" in told.error[7]
    assert kinds(lab.ask()) == ["not ready"] * 4
