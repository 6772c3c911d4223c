"""Maps against servers that fail, and in kernels that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from zlib import crc32

import pandas as pd
import pytest

import kimi_magic as kimi
from kimi_magic.session import Session
from tests.batch.faulty_server import FAULTS, FaultyServer, answer_to

ROWS = 600
MAP = """
import sys
import pandas as pd
import kimi_magic as kimi
rows = pd.DataFrame({"n": range(int(sys.argv[1]))})
kimi.map(rows, "row {{ n }}", into=sys.argv[2], show=False)
"""


def fault(prompt: str, times: int) -> str:
    """Let every 20th prompt fail once, or each time where that is the row's own fault."""
    number = crc32(prompt.encode())
    if number % 20:
        return ""
    found = FAULTS[number // 20 % len(FAULTS)]
    if found == "silent":  # the time limits have tests of their own
        return ""
    return found if times == 0 or found == "400" else ""


def checkpointed(into: Path) -> list[str]:
    """The texts that the checkpoint holds, each as often as it stands there."""
    lines = into.with_name(into.name + ".map.jsonl").read_bytes().splitlines()
    texts = []
    for line in lines:
        try:
            facts = json.loads(line)
        except ValueError:
            continue  # the kernel was killed within it
        if "key" in facts and facts["error"] is None:
            texts.append(facts["text"])
    return texts


def test_killed_and_resumed(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row is once in the result, and none is asked again that was in the checkpoint."""
    into = tmp_path / "new folder" / "labels.parquet"
    with FaultyServer(fault) as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        monkeypatch.setenv("KIMI_MODEL", "kimi-k2-thinking")
        command = [sys.executable, "-c", MAP, str(ROWS), str(into)]
        child = subprocess.Popen(command, env={**os.environ, "KIMI_JOURNAL": "off"})

        def kill(count: int) -> None:
            if count == ROWS // 2:
                child.kill()

        server.on_request = kill
        assert child.wait() == -signal.SIGKILL
        server.on_request = lambda _: None
        kept = set(checkpointed(into))
        assert 0 < len(kept) < ROWS

        asked_before = len(server.asked)
        rows = pd.DataFrame({"n": range(ROWS)})
        frame = kimi.map(rows, "row {{ n }}", into=into, show=False)
        assert not kept & {answer_to(prompt) for prompt in server.asked[asked_before:]}
        wanted = [answer_to(f"row {n}") for n in range(ROWS)]
        answered = frame.error.isna()
        assert list(frame.text[answered]) == [w for w, a in zip(wanted, answered, strict=True) if a]
        assert 0 < (~answered).sum() < ROWS // 20

        # The rows that failed are asked again, and no others.
        asked_before, failed = len(server.asked), {f"row {n}" for n in rows.n[~answered]}
        frame = kimi.map(rows, "row {{ n }}", into=into, show=False)
        assert set(server.asked[asked_before:]) == failed
        assert set(frame.error.dropna().str.partition(":")[0]) <= {"BadRequest"}
        assert Counter(checkpointed(into)) == Counter(frame.text[frame.error.isna()])
        assert pd.read_parquet(into).text.equals(frame.text)
