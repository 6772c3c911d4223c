"""The form of a tape: what is written is read again, and what is whole is read out of anything."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kimi_magic as kimi
from kimi_magic.wire.tape_file import VERSION, Header, Recording, TapeFile

MADE_BY = {"model": "kimi-k2-thinking", "endpoint": "moonshot", "date": "2026-11-29"}


def recording(text: str = "hello", **more: object) -> Recording:
    fields: dict[str, object] = {
        "meaning": {"model": "kimi-k2-thinking", "messages": [{"role": "user", "content": text}]},
        "cue": {"prompt": text, "step": 1},
        "status": 200,
        "headers": {"content-type": "text/event-stream"},
        "pieces": ((0.25, f"data: {text}\n\n".encode()), (0.5, b"data: [DONE]\n\n")),
        "seconds": 0.5,
        "made_by": MADE_BY,
    }
    return Recording(**fields | more)  # type: ignore[arg-type]


@pytest.fixture(params=["lesson.tape", "lesson.tape.gz"])
def tape(request: pytest.FixtureRequest, tmp_path: Path) -> TapeFile:
    return TapeFile(tmp_path / request.param)


def written(tape: TapeFile, count: int = 3) -> list[Recording]:
    recordings = [recording(f"prompt {number}") for number in range(count)]
    for each in recordings:
        tape.append(each)
    return recordings


def test_what_is_written_is_read(tape: TapeFile) -> None:
    assert tape.read().recordings == ()
    recordings = written(tape)
    content = tape.read()
    assert content.header == Header(VERSION, MADE_BY)
    assert list(content.recordings) == recordings
    assert content.problems == ()


def test_a_line_is_readable_and_the_header_says_what_made_it(tmp_path: Path) -> None:
    tape = TapeFile(tmp_path / "lesson.tape")
    tape.append(recording("Ünïcode 你好"))
    tape.append(recording("two", made_by=MADE_BY | {"date": "2027-01-01"}))
    tape.append(recording("three", made_by={"scripted": True, "model": "m"}, lane=2))
    header, first, second, third = tape.path.read_text("utf-8").splitlines()
    assert json.loads(header) == {"kimi_tape": 1, "made_by": MADE_BY}
    assert "Ünïcode 你好" in first
    assert "made_by" not in json.loads(second)
    assert json.loads(third)["made_by"] == {"scripted": True, "model": "m"}
    assert [each.lane for each in tape.read().recordings] == [0, 0, 2]


@given(
    pieces=st.lists(st.tuples(st.floats(0, 1e6), st.binary(max_size=40)), max_size=5),
    prompt=st.text(st.characters(codec=None), max_size=20),
    compressed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_bytes_come_back(
    pieces: list[tuple[float, bytes]],
    prompt: str,
    compressed: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Broken UTF-8 and half code points included."""
    tape = TapeFile(tmp_path_factory.mktemp("any") / f"a.tape{'.gz' * compressed}")
    end = max([0.0, *(at for at, _ in pieces)])
    each = recording(cue={"prompt": prompt}, pieces=tuple(pieces), seconds=end)
    tape.append(each)
    assert tape.read().recordings == (each,)


def test_a_tape_cut_anywhere_gives_its_whole_lines(tape: TapeFile) -> None:
    recordings = written(tape)
    data = tape.path.read_bytes()
    for end in range(1, len(data)):
        tape.path.write_bytes(data[:end])
        content = tape.read()
        assert list(content.recordings) == recordings[: len(content.recordings)]
        assert len(content.problems) <= 1
        assert all("\n" not in line for line in content.problems)
    for place in range(len(data)):
        whole = data[:place].count(b"\n") if tape.path.suffix != ".gz" else 0
        tape.path.write_bytes(data[:place])
        assert len(tape.read().recordings) >= whole - 1


def test_a_damaged_line_leaves_the_others(tape: TapeFile) -> None:
    recordings = written(tape)
    data = tape.path.read_bytes()
    if tape.path.suffix == ".gz":
        members = [gzip.compress(line) for line in gzip.decompress(data).splitlines(keepends=True)]
        damaged = bytearray(members[2])
        damaged[len(damaged) // 2] ^= 0x10
        tape.path.write_bytes(b"".join([*members[:2], bytes(damaged), *members[3:]]))
    else:
        lines = data.splitlines(keepends=True)
        lines[2] = lines[2].replace(b'"status": 200', b'"status" 200')
        tape.path.write_bytes(b"".join(lines))
    content = tape.read()
    assert list(content.recordings) == [recordings[0], recordings[2]]
    (problem,) = content.problems
    assert problem == f"{tape.name}, line 3 is damaged: it is left out."


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[1]",
        '{"meaning": {}, "status": 999, "pieces": []}',
        '{"meaning": [], "status": 200, "pieces": []}',
        '{"meaning": {}, "status": 200, "pieces": [[NaN, "x"]]}',
        '{"meaning": {}, "status": 200, "pieces": [[-1, "x"]]}',
        '{"meaning": {}, "status": 200, "pieces": [[1]]}',
        '{"meaning": {}, "status": 200, "pieces": [[1, {"base64": "?"}]]}',
        '{"meaning": {}, "status": true, "pieces": []}',
        '{"meaning": {}, "status": 200, "pieces": 7, "headers": 7}',
        "[" * 100_000,
    ],
)
def test_lines_of_anything_else_are_left_out(tmp_path: Path, line: str) -> None:
    tape = TapeFile(tmp_path / "lesson.tape")
    (each,) = written(tape, 1)
    before = tape.path.read_text("utf-8")
    tape.path.write_text(f"{before}{line}\n", "utf-8")
    tape.append(each)
    content = tape.read()
    assert list(content.recordings) == [each, each]
    (problem,) = content.problems
    assert problem.startswith("lesson.tape, line 3 is ")
    assert problem.endswith(": it is left out.")


def test_a_later_version_plays_as_far_as_it_is_the_same(tape: TapeFile) -> None:
    recordings = written(tape, 2)
    tape.rewrite(recordings, Header(VERSION + 1, MADE_BY))
    content = tape.read()
    assert list(content.recordings) == recordings
    (problem,) = content.problems
    assert problem.startswith(f"{tape.name} is of a later version (2; this kimi-magic reads 1)")
    before = tape.path.read_bytes()
    with pytest.raises(kimi.TapeError, match="nothing is added to it"):
        tape.append(recordings[0])
    with pytest.raises(kimi.TapeError, match="nothing is added to it"):
        tape.rewrite([])
    assert tape.path.read_bytes() == before


def test_a_tape_that_lost_its_header_plays(tmp_path: Path) -> None:
    tape = TapeFile(tmp_path / "lesson.tape")
    recordings = written(tape)
    lines = tape.path.read_bytes().splitlines(keepends=True)
    tape.path.write_bytes(b"".join(lines[1:]))
    content = tape.read()
    assert [each.body for each in content.recordings] == [each.body for each in recordings]
    assert content.problems == ("lesson.tape has lost its first line: nobody knows what made it.",)
    tape.append(recordings[0])
    assert tape.read().recordings[-1].made_by == MADE_BY


def test_another_file_is_never_written_into(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text('{"a": 1}\n{"a": 2}', "utf-8")
    tape = TapeFile(file)
    assert tape.read().problems == ("data.jsonl is no tape: 2 lines of something else.",)
    for write in (tape.append, lambda each: tape.rewrite([each])):
        with pytest.raises(kimi.TapeError, match="is no tape: nothing is written"):
            write(recording())
    assert file.read_text("utf-8") == '{"a": 1}\n{"a": 2}'
    with pytest.raises(kimi.TapeError, match="cannot be written"):
        TapeFile(tmp_path).append(recording())
    with pytest.raises(kimi.TapeError, match="cannot be read"):
        TapeFile(tmp_path).read()


def test_the_rest_of_a_line_gives_way_to_the_next(tape: TapeFile) -> None:
    """A kernel was killed while it wrote."""
    recordings = written(tape)
    data = tape.path.read_bytes()
    tape.path.write_bytes(data[:-25])
    again = TapeFile(tape.path)
    again.append(recordings[2])
    again.append(recordings[0])
    content = again.read()
    assert list(content.recordings) == [*recordings, recordings[0]]
    assert content.problems == ()


def test_a_last_line_without_its_end_stays(tmp_path: Path) -> None:
    tape = TapeFile(tmp_path / "lesson.tape")
    recordings = written(tape, 2)
    tape.path.write_bytes(tape.path.read_bytes().rstrip(b"\n"))
    tape.append(recordings[0])
    assert list(tape.read().recordings) == [*recordings, recordings[0]]


def test_rewriting_keeps_the_header(tape: TapeFile) -> None:
    recordings = written(tape)
    tape.rewrite(recordings[1:])
    assert list(tape.read().recordings) == recordings[1:]
    assert tape.read().header == Header(VERSION, MADE_BY)
    tape.append(recordings[0])
    assert list(tape.read().recordings) == [*recordings[1:], recordings[0]]
    assert [path.name for path in tape.path.parent.iterdir()] == [tape.name]


HOLDS = """
import sys
from kimi_magic.wire.tape_file import TapeFile
tape = TapeFile(sys.argv[1])
tape.lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_one_process_records_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tape = TapeFile(tmp_path / "lesson.tape")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tape.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"locked"
        with pytest.raises(kimi.TapeError, match=r"Another kernel records into lesson\.tape"):
            tape.lock()
        other.kill()  # as a kernel may end: the lock goes with it
        other.wait()
    tape.lock()
    tape.lock()
    tape.unlock()
    tape.unlock()
    assert not list(tmp_path.glob("*.lock"))
