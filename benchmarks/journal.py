"""Cost of the journal: ``python -m benchmarks.journal``.

- CPU of a turn of 2,500 tokens at full speed and at the pace of a fast server, shown as a record,
  with the journal and without: medians of rounds in fresh processes that take turns
- bytes on disk of 1,000 turns of prose (paragraphs of Python's documentation) over the bytes of
  their texts, with the full-text index, after a checkpoint
- what the first turn of a process takes more, CPU
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

from benchmarks.overhead import EVENTS, TOKENS
from kimi_magic.testing import ScriptedServer

ROUNDS, PACE = 9, 500
TURNS = 1000

# The first turn opens the file, and is measured by itself. The writer is waited for: its work is
# part of the turn.
TURN = """
import os, sys, time
os.environ["KIMI_BASE_URL"], os.environ["KIMI_JOURNAL"] = sys.argv[1:3]
import kimi_magic as kimi, kimi_magic.session as session
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance()
kimi.settings.view = "record"
def cpu():
    began = time.process_time()
    with capture_output():
        kimi.ask("Hi", show=True)
    writer = session.current().journal_writer
    assert writer is None or writer.flush(60)
    return time.process_time() - began
print(cpu(), *sorted(cpu() for _ in range(int(sys.argv[3]))))
"""
PROSE = """
import os, sys
os.environ["KIMI_BASE_URL"], os.environ["KIMI_JOURNAL"] = sys.argv[1:3]
import kimi_magic as kimi, kimi_magic.session as session
size = 0
for number in range(int(sys.argv[3])):
    reply = kimi.ask(f"Question {number}: and what of that?", show=False)
    size += len((reply.record.prompt + reply.reasoning + reply.text).encode())
session.current().close()
print(size)
"""


def run(code: str, server: ScriptedServer, journal: str, count: int) -> list[float]:
    """Return the numbers that ``code`` prints in a fresh process."""
    command = [sys.executable, "-c", code, server.base_url, journal, str(count)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(number) for number in ran.stdout.split()]


def seconds_of_cpu(server: ScriptedServer, journal: str, pace: float | None) -> tuple[float, float]:
    """Return the CPU of the first turn, and of a later one."""
    later = 1 if pace else 3
    for _ in range(1 + later):
        server.raw(EVENTS, rate=pace)
    first, *rest = run(TURN, server, journal, later)
    return first, statistics.median(rest)


def compared(folder: Path, pace: float | None, rounds: int) -> tuple[str, str]:
    """Return what a later turn costs, and the first one, with a journal and without."""
    figures: list[tuple[float, ...]] = []
    with ScriptedServer(strict=False) as server:
        for number in range(rounds):
            path = str(folder / f"{number}-{pace}.sqlite3")
            figures.append(
                (*seconds_of_cpu(server, path, pace), *seconds_of_cpu(server, "off", pace))
            )
    first, later, bare_first, bare = (
        statistics.median(each) for each in zip(*figures, strict=True)
    )
    more = f"{(first - bare_first) * 1000:.0f} ms more than {bare_first * 1000:.0f} ms"
    return f"{later / bare:.2f} × ({later * 1000:.0f} ms against {bare * 1000:.0f} ms)", more


def bytes_over_text(folder: Path) -> str:
    chance = random.Random(17)
    texts = "\n\n".join(topics.values()).split("\n\n")
    paragraphs = [" ".join(text.split()) for text in texts if len(text) > 100]

    def prose(length: int) -> str:
        text = ""
        while len(text) < length:
            text += f"{chance.choice(paragraphs)}\n\n"
        return text.rstrip()

    path = folder / "prose.sqlite3"
    with ScriptedServer(strict=False) as server:
        for _ in range(TURNS):
            reasoning = prose(chance.randint(500, 5000))
            server.reply(prose(chance.randint(200, 3000)), reasoning=reasoning)
        (text,) = run(PROSE, server, str(path), TURNS)
    size = sum(each.stat().st_size for each in folder.glob("prose.sqlite3*"))
    return f"{size / text:.2f} × ({size / TURNS:,.0f} bytes against {text / TURNS:,.0f})"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fast, first = compared(folder, None, ROUNDS)
        paced, _ = compared(folder, PACE, 3)
        figures = {
            f"{TOKENS:,} tokens at full speed, CPU over none (target 1.1 ×)": fast,
            f"{TOKENS:,} tokens at {PACE} a second, CPU over none (target 1.1 ×)": paced,
            "first turn of a process, CPU": first,
            f"{TURNS:,} turns, bytes on disk over their text (target 2 ×)": bytes_over_text(folder),
        }
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
