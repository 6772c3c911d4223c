"""The reader is told of all that is sent: in the reply, the record, the journal, and each view."""

from __future__ import annotations

import copy
import pickle

import pytest

import kimi_magic as kimi
from kimi_magic.core.reply import Reply
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

FRAME = """
import pandas as pd
df = pd.DataFrame({"email": [f"a{n}@example.org" for n in range(500)], "n": range(500)})
"""
LINE = "Sent: df (10 of 500 rows, looks personal: email), df.n.max(), In[3] with its traceback, "


@pytest.mark.parametrize("live", [True, False])
def test_a_record_tells_what_went_along(
    kernel: Kernel, asked: ScriptedServer, *, live: bool
) -> None:
    kernel.run(FRAME)
    kernel.run("1 / 0", ok=False)
    number = kernel.run("print(len(In) - 2)").stdout.strip()
    line = LINE.replace("In[3]", f"In[{number}]")
    records = []
    for _ in range(2):
        asked.reply("OK.")
        cell = f"%%kimi -v df --cells {number} -o answer\nIs {{{{ df.n.max() }}}} much?"
        ran = kernel.run(cell, allow_stdin=live, cell="a")
        records.append(ran.record)
        assert ran.record["text/plain"].startswith(f"[{line}2 messages, about ")
        assert ran.record["text/html"].count(f">{line}2 messages, about ") == 1
        told = [op for op in ran.ops if op["op"] == "sent"]
        assert bool(told) == live
        assert all(op["text"].startswith(line) for op in told)
    assert records[0] == records[1], "a turn that is run again leaves the same bytes"
    code = "s = answer.sent; print(s.messages, s.earlier, [a.name for a in s.attached])"
    assert kernel.run(code).stdout == f"2 0 ['df', 'df.n.max()', 'In[{number}]']\n"


def test_as_plain_text(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run(FRAME)
    for view in ("plain", "terminal"):
        asked.reply("OK.", reasoning="Hm.")
        kernel.run(f"%config KimiMagics.view = {view!r}")
        said = " ".join(kernel.run("%%kimi --fresh -v df\nHi").stdout.split())
        assert said.count("Sent: df (10 of 500 rows, looks personal: email), 2 messages") == 1
        assert said.index("Sent: df") < said.index("Hm.")


def test_a_prompt_alone_needs_no_line(kernel: Kernel, asked: ScriptedServer) -> None:
    for _ in range(2):
        asked.reply("OK.")
    first = kernel.run("%%kimi\nHi").record["text/plain"]
    second = kernel.run("%%kimi\nHi").record["text/plain"]
    assert "Sent" not in first
    assert second.startswith("[Sent: 4 messages, about ")


def test_the_count_is_that_of_the_dry_run(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run(FRAME)
    dry = kernel.run("%%kimi -v df --dry-run\nHi").stdout
    asked.reply("OK.")
    said = kernel.run("%%kimi -v df\nHi").record["text/plain"].splitlines()[0].strip("[]")
    facts = said.removeprefix("Sent: ").split(", ")
    assert facts[-1].startswith("about ")
    for fact in facts:
        assert fact.removeprefix("a") in dry


def test_a_dry_run_folds_its_history(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("The <b>first</b> answer.\n" + "word " * 300 + "END")
    kernel.run("%%kimi\nThe first question")
    kernel.run(FRAME)
    ran = kernel.run("%%kimi -v df --dry-run\nAnd now?")
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("This would go to ")
    assert ran.stdout.count(asked.base_url) == 1
    assert "or summaries: df (10 of 500 rows, looks personal: email)." in lines[1]
    assert "df seems to hold e-mail addresses" in lines[2]
    assert "first question" not in ran.stdout
    assert ran.stdout.index("And now?") > ran.stdout.index("You are Kimi")
    assert lines[-1] == "Nothing was sent."
    (folded,) = ran.displays
    assert folded["text/html"].startswith("<details style=")
    assert "History: 2 messages of earlier turns, about " in folded["text/html"]
    assert "END" in folded["text/html"]
    assert "<b>" not in folded["text/html"]
    assert len(folded["text/plain"]) < 400


def test_a_stored_turn_tells_it_too(server: ScriptedServer) -> None:
    server.reply("OK.")
    reply = kimi.ask("Hi", endpoint=server.base_url, variables={"df": [1, 2]}, show=False)
    assert str(reply.sent).startswith("df, ")
    for again in (
        Reply.from_dict(reply.to_dict()),
        pickle.loads(pickle.dumps(reply)),
        copy.deepcopy(reply),
    ):
        assert again.sent == reply.sent


def test_no_key_and_no_hostile_name(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "lab-key-0123456789-abcdef"
    monkeypatch.setenv("LAB_KEY", key)
    kimi.add_endpoint(name="lab", base_url=server.base_url, key_env="LAB_KEY")
    server.reply("OK.")
    names = {f"a{key}": 1, "<img src=x onerror=alert(1)>": 2, "b\u202e\nc": 3}
    reply = kimi.ask("Hi", endpoint="lab", variables=names, show=False)
    assert key not in repr(reply.sent.attached)
    assert "\u202e" not in str(reply.sent)
    from kimi_magic.display.record import record_of

    html = record_of(reply).data["text/html"]
    assert "<img" not in html
    assert key not in html
