"""Aim: have the reader of a foreign tape's list run, believe or wait for what stands in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.jupyter import cli
from kimi_magic.wire.tape_file import Recording
from tests.jupyter.test_tape_tool import chunk, recording, tape

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[1;1H\x9b31m\r\b\x00\u202egnp.exe\u2028\u2066\U000e0041"
ODD = "a\u0301" + "\u0317" * 500 + "\n[Text]\n[bold red]x[/] %s {} \u200b\u3164\xad\ufeff\ud800"
OBEYED = set(map(chr, [*range(32), *range(127, 160)])) - set("\n\t")
OBEYED |= set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def everywhere(text: str) -> Recording:
    """An exchange that has a text wherever a tape has one."""
    call = {"id": text, "function": {"name": text, "arguments": text}}
    answer = (
        chunk({"reasoning_content": text}),
        chunk({"content": text}),
        chunk({"tool_calls": [{"index": 0, **call}]}, finish_reason=text),
    )
    messages = [
        {"role": text, "content": text, "reasoning": text, "tool_calls": [call], "name": text},
        {"role": "user", "content": [{"type": "text", "text": text}, {"type": text}]},
    ]
    made_by = dict.fromkeys(("model", "endpoint", "date", "recorded_as", text), text)
    tools = [{"function": {"name": text, text: text}}, text]
    more: dict[str, Any] = {"messages": messages, "tools": tools, "model": text, text: text}
    return recording(text, *answer, made_by=made_by, **more)


@pytest.mark.parametrize("text", [ESCAPES, ODD])
def test_no_text_of_a_tape_is_obeyed_by_a_terminal(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Input: a tape whose every text has escapes of terminals and turned writing.

    Holds: `show` and `check` print them as signs, each exchange in one line of the list.
    """
    path = tape(tmp_path / "a.tape", everywhere(text), everywhere(f"{text}\n2  kimi  forged"))
    lines = path.read_bytes().split(b"\n")[:-1]
    header = json.loads(lines[0])
    header["made_by"] = dict.fromkeys(("model", "endpoint", "date"), text)
    damaged = text.encode("utf-8", "replace").replace(b"\n", b" ")
    path.write_bytes(b"\n".join([json.dumps(header).encode(), *lines[1:], damaged]))
    for arguments in (["show"], ["show", "1"], ["show", "2"], ["check"]):
        command, *number = arguments
        assert cli.main(["tape", command, str(path), *number]) in (0, 1)
        out, err = capsys.readouterr()
        assert not OBEYED & set(out + err), arguments
        if arguments == ["show"]:
            assert out.count("\n") == 4, "a title, a head, two exchanges"


def test_a_name_of_a_file_is_not_obeyed_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Input: a file whose name has escapes of terminals. Holds: they are printed as signs."""
    path = tape(tmp_path / "\x1b[2Ja\nb\x9b.tape", recording("Hello"))
    path.write_bytes(path.read_bytes() + b"{")
    for arguments in (["show", str(path)], ["check", str(path)], ["edit", str(path), "--drop=9"]):
        cli.main(["tape", *arguments])
        out, err = capsys.readouterr()
        assert not OBEYED & set(out + err)


def test_odd_values_are_no_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Input: exchanges with numbers, lists and nothing where texts belong, nested deeply.

    Holds: each command prints what it can; no traceback.
    """
    odd: list[Any] = [
        None,
        7,
        True,
        [],
        {},
        [[[]]],
        {"text": 1},
        "x",
        1e300,
        -1,
        [None, 1, {"role": []}],
    ]
    deep: Any = "end"
    for _ in range(400):
        deep = {"a": [deep]}
    lines = [json.dumps({"kimi_tape": 1, "made_by": dict.fromkeys(["model", "date"], 5)})]
    for value in [*odd, deep]:
        names = ("endpoint", "model", "messages", "tools", "parameters")
        meaning = dict.fromkeys(names, value)
        meaning["messages"] = [{"role": value, "content": value, "tool_calls": value}]
        cue = dict.fromkeys(("prompt", "step", "calls"), value)
        body = [[0, json.dumps({"choices": value})], [0, "data: [[[[\n\n"]]
        line = {"meaning": meaning, "cue": cue, "status": 200, "headers": {}, "pieces": body}
        lines.append(json.dumps(line))
    path = tmp_path / "odd.tape"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    assert cli.main(["tape", "show", str(path)]) == 0
    for number in range(1, len(lines)):
        assert cli.main(["tape", "show", str(path), str(number)]) == 0
    assert cli.main(["tape", "check", str(path)]) == 0
    assert cli.main(["tape", "edit", str(path), "--drop", "1"]) == 0
    assert "Traceback" not in capsys.readouterr().err
