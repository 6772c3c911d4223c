"""``kimi-magic tape``: what it lists, what it finds, what it changes."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.jupyter import cli
from kimi_magic.wire.tape_file import Header, Recording, TapeFile

KEY = "sk-" + "a1B2c3D4e5F6g7H8i9J0k1L2"
IN_BASE64 = b64encode(KEY.encode()).decode()
MADE_BY = {"model": "kimi-k3", "endpoint": "moonshot", "date": "2026-11-29"}
SALES = {"id": "call_0", "function": {"name": "sales", "arguments": '{"month": "March"}'}}


def chunk(delta: dict[str, Any], **more: Any) -> str:
    data = {"model": "kimi-k3", "choices": [{"index": 0, "delta": delta, **more}]}
    return f"data: {json.dumps(data)}\n\n"


def recording(
    prompt: str = "Why did March fall?",
    *answer: str,
    step: int = 1,
    made_by: dict[str, Any] = MADE_BY,
    **meaning: Any,
) -> Recording:
    usage = {"prompt_tokens": 1210, "completion_tokens": 31}
    end = f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
    texts = answer or (chunk({"reasoning_content": "Look."}), chunk({"content": "The south."}))
    pieces = tuple((i / 10, text.encode()) for i, text in enumerate([*texts, end]))
    asked = {
        "endpoint": "moonshot",
        "model": "kimi-k3",
        "messages": [{"role": "user", "content": prompt}],
        **meaning,
    }
    cue = {"prompt": prompt, "step": step, "calls": []}
    return Recording(
        asked, cue, 200, {"content-type": "text/event-stream"}, pieces, 2.5, made_by=made_by
    )


def tape(path: Path, *recordings: Recording) -> Path:
    TapeFile(path).rewrite(recordings, Header(made_by=MADE_BY))
    return path


@pytest.fixture
def lesson(tmp_path: Path) -> Path:
    asks = chunk({"tool_calls": [{"index": 0, **SALES}]}, finish_reason="tool_calls")
    later = [
        {"role": "user", "content": "Why did March fall?"},
        {"role": "assistant", "tool_calls": [SALES], "reasoning_content": "I need figures."},
        {"role": "tool", "tool_call_id": "call_0", "content": "south: 3"},
    ]
    return tape(
        tmp_path / "lesson.tape",
        recording("Why did March fall?", asks),
        recording("Why did March fall?", step=2, messages=later),
        recording("Hello"),
        recording("Bye"),
    )


def run(*arguments: str | Path) -> int:
    try:
        return cli.main(["tape", *map(str, arguments)])
    except SystemExit as end:  # of argparse
        return int(end.code or 0)


def prompts(path: Path) -> list[str]:
    return [each.cue["prompt"] for each in TapeFile(path).read().recordings]


@pytest.mark.parametrize("name", ["lesson.tape", "lesson.tape.gz"])
def test_show_lists_the_exchanges(
    lesson: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lesson.with_name(name)
    TapeFile(path).rewrite(TapeFile(lesson).read().recordings, Header(made_by=MADE_BY))
    assert run("show", path) == 0
    title, head, *rows = capsys.readouterr().out.splitlines()
    assert title == (
        f"{name}: version 1, 4 exchanges, recorded from kimi-k3 at moonshot, 2026-11-29"
    )
    assert head.split() == "n model step prompt asks for status size tokens time".split()
    assert rows[0].split()[:3] == ["1", "kimi-k3", "1"]
    assert "Why did March fall?" in rows[0]
    assert " sales " in rows[0]
    assert rows[1].split()[2] == "2"
    assert all(row.endswith("1,210 → 31  2.5 s") for row in rows)
    assert len({row.index("1,210") for row in rows}) == 1, "in columns"


def test_show_tells_one_exchange_whole(lesson: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", lesson, "2") == 0
    said = capsys.readouterr().out
    parts = (
        "lesson.tape, exchange 2 of 4",
        "Recorded from kimi-k3 at moonshot",
        "[user]\nWhy did March fall?",
        "[assistant, reasoning]\nI need figures.",
        '[assistant, tool call]\nsales({"month": "March"})',
        "[tool]\nsouth: 3",
        "Answer: status 200, 3 pieces",
        "[Reasoning]\nLook.",
        "[Text]\nThe south.",
        "tokens: 1,210 in, 31 out",
    )
    places = [said.index(part) for part in parts]
    assert places == sorted(places)


def test_show_says_plainly_what_is_scripted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TapeFile(tmp_path / "a.tape").rewrite([], Header(made_by={"scripted": True, "model": "kimi"}))
    assert run("show", tmp_path / "a.tape") == 0
    assert "scripted, no model made it" in capsys.readouterr().out


def test_many_exchanges_are_listed_in_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tape(tmp_path / "a.tape", *[recording("Hello")] * 1001)
    assert run("show", path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1003
    assert lines[-1] == "1 more exchange: --all lists them."
    assert run("show", path, "--all") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1003
    assert run("show", path, "1001") == 0


def test_check_passes_a_whole_tape(lesson: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", lesson) == 0
    said = capsys.readouterr().out
    assert said == ("lesson.tape: version 1, 4 exchanges, whole, nothing that looks like a key.\n")


LEAKS: dict[str, tuple[Callable[[Any], object], str]] = {
    "in a message": (lambda line: line["meaning"]["messages"][0].update(content=KEY),
                     "meaning.messages[0].content: an API key (sk-…)"),
    "in the cue": (lambda line: line["cue"].update(prompt=f"use {KEY}"), "cue.prompt: an API key"),
    "as a name": (lambda line: line["meaning"].update({KEY: 1}), "meaning: an API key"),
    "in the body": (lambda line: line["pieces"].append([1, f": {KEY}"]), "pieces: an API key"),
    "in bytes": (lambda line: line["pieces"].append([1, {"base64": IN_BASE64}]),
                 "pieces: an API key"),
    "in two deltas": (
        lambda line: line.update(
            pieces=[[0, chunk({"content": KEY[:9]}) + chunk({"content": KEY[9:]})]]
        ),
        "pieces: an API key",
    ),
    "in a field that nobody reads": (lambda line: line.update(note={"x": [KEY]}), "note.x[0]: an"),
    "authorization": (lambda line: line["headers"].update(Authorization="Bearer x"),
                      "headers.Authorization: a tape never holds it"),
    "a cookie": (lambda line: line.update({"set-cookie": "a=b"}), "set-cookie: a tape never"),
}  # fmt: skip


@pytest.mark.parametrize("where", LEAKS)
def test_check_says_where_a_key_is(
    lesson: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lesson.read_text("utf-8").splitlines()
    line = json.loads(lines[2])
    change, said = LEAKS[where]
    change(line)
    lines[2] = json.dumps(line)
    lesson.write_text("\n".join(lines) + "\n", "utf-8")
    assert run("check", lesson) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"lesson.tape, line 3, {said}")
    assert KEY not in out


def test_check_knows_the_keys_of_this_machine(
    lesson: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", "a-secret-without-a-shape")
    assert run("check", lesson) == 0
    path = tape(lesson, recording("It is a-secret-without-a-shape, really."))
    assert run("check", path) == 1
    assert "the value of MOONSHOT_API_KEY" in capsys.readouterr().out


def test_check_says_what_is_damaged(lesson: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = lesson.read_bytes().splitlines(keepends=True)
    lesson.write_bytes(b"".join([*lines[:2], lines[2][:40] + b"\n", lines[3], lines[4][:99]]))
    assert run("check", lesson, lesson.parent / "none.tape") == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "lesson.tape, line 3 is damaged: it is left out.",
        "lesson.tape, line 5 is cut off: it is left out.",
    ]
    assert "none.tape cannot be read: there is no such file." in err


def test_edit_drops_exchanges(lesson: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("edit", lesson, "--drop", "2-3", "1") == 0
    assert capsys.readouterr().out == "lesson.tape: 3 exchanges dropped; 1 exchange left.\n"
    assert prompts(lesson) == ["Bye"]


@pytest.mark.parametrize("drop", ["0", "5", "3-2", "2-9", "x", "-1", "1-", "٣", "9" * 30])
def test_edit_refuses_numbers_that_are_none(lesson: Path, drop: str) -> None:
    before = lesson.read_bytes()
    assert run("edit", lesson, f"--drop={drop}") == 2
    assert lesson.read_bytes() == before


def test_a_renamed_model_answers_under_both_names(
    lesson: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--rename-model", "kimi-k3", "kimi-k3.1", "--rename-endpoint", "moonshot", "ours")
    assert run("edit", lesson, *arguments) == 0
    content = TapeFile(lesson).read()
    made_by = MADE_BY | {"model": "kimi-k3.1", "recorded_as": "kimi-k3", "endpoint": "ours"}
    assert content.header is not None
    assert content.header.made_by == made_by
    assert {each.meaning["model"] for each in content.recordings} == {"kimi-k3.1"}
    assert all(each.made_by == made_by for each in content.recordings)
    capsys.readouterr()
    assert run("show", lesson) == 0
    assert "recorded from kimi-k3.1 (then kimi-k3) at ours" in capsys.readouterr().out


def test_what_is_scripted_stays_so(lesson: Path) -> None:
    assert run("edit", lesson, "--scripted") == 0
    content = TapeFile(lesson).read()
    assert content.header is not None
    assert content.header.made_by["scripted"] is True
    assert all(each.made_by["scripted"] for each in content.recordings)


def test_edit_refuses_names_that_are_none(lesson: Path) -> None:
    before = lesson.read_bytes()
    for name in ("", "  ", "a\nb", "\x1b[2J", "x" * 300, KEY):
        assert run("edit", lesson, "--rename-endpoint", "moonshot", name) == 2
    assert run("edit", lesson, "--rename-model", "another", "new") == 2
    assert run("edit", lesson) == 2, "nothing to do"
    assert lesson.read_bytes() == before


def test_edit_refuses_a_tape_that_a_kernel_records_into(
    lesson: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = TapeFile(lesson)
    recorder.lock()
    try:
        assert run("edit", lesson, "--drop", "1") == 2
        assert "A kernel records into lesson.tape: nothing was changed." in capsys.readouterr().err
        assert len(prompts(lesson)) == 4
    finally:
        recorder.unlock()
    assert run("edit", lesson, "--drop", "1") == 0


def test_edit_drops_damage_only_if_it_is_told_to(lesson: Path) -> None:
    lesson.write_bytes(lesson.read_bytes() + b'{"cue": {')
    assert run("edit", lesson, "--drop", "1") == 2
    assert len(prompts(lesson)) == 4
    assert run("edit", lesson, "--drop", "1", "--drop-damaged") == 0
    assert run("check", lesson) == 0
    assert len(prompts(lesson)) == 3


def test_a_full_disk_leaves_the_tape_as_it_was(
    lesson: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lesson.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run("edit", lesson, "--drop", "1") == 2
    assert "the disk is full" in capsys.readouterr().err
    assert lesson.read_bytes() == before
    assert [path.name for path in lesson.parent.iterdir()] == ["lesson.tape"]


BAD = {
    "empty": b"",
    "zeros": bytes(1000),
    "a notebook": b'{"cells": [], "nbformat": 4}\n',
    "deep": b"[" * 100_000,
    "deep meaning": b'{"kimi_tape": 1}\n{"meaning": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    "text": "Ünïcode\n".encode("utf-16"),
}


@pytest.mark.parametrize("command", ["show", "check", "edit"])
@pytest.mark.parametrize("bad", [*BAD, "folder", "missing", "\0", "~nobody-at-all/x", "gz"])
def test_a_bad_file_is_told_in_a_line(
    tmp_path: Path, command: str, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path: str | Path = tmp_path / ("x.tape.gz" if bad == "gz" else "x.tape")
    if bad == "folder":
        Path(path).mkdir()
    elif bad == "gz":
        Path(path).write_bytes(b"\x1f\x8b\x08" * 50)
    elif bad in BAD:
        Path(path).write_bytes(BAD[bad])
    elif bad != "missing":
        path = bad
    more = ("--scripted",) if command == "edit" else ()
    code = run(command, path, *more)
    out, err = capsys.readouterr()
    if bad == "deep meaning" and code != 2:
        assert "Traceback" not in out + err
        return
    assert code == 2
    assert out == ""
    assert err.startswith("kimi-magic: ")
    assert err.count("\n") == 1
