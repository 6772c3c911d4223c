"""A journal of 100,000 turns: ``python -m benchmarks.journal_search [FILE]``.

It is written once, and kept where FILE is given. Each figure is that of a fresh process:
``%kimi log`` with a word that stands in every turn, in some, in one, and with filters; the cost of
``%load_ext kimi_magic`` with the offer of a chat over its cost without; one walk over all turns.
The targets: 0.3 s for a search, a few milliseconds for the offer.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from kimi_magic.chats.journal_file import JournalFile
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.messages import Message, Step, as_reasoning
from kimi_magic.core.turn_record import EndpointFacts, TurnRecord

TURNS, PER_CHAT = 100_000, 20
SYLLABLES = "ba be bi bo bu da de di do du ka ke ki ko ku la le li lo lu ma me mi mo mu".split()
COMMANDS = {
    "a word of every turn": "%kimi log always",
    "a word of one turn in 100": "%kimi log hundredth",
    "a word of one turn": "%kimi log unique77777",
    "the beginning of many words": "%kimi log ba",
    "words of the last two days": "%kimi log always --since 2d",
    "words of a chat": "%kimi log always -c main",
    "words of this notebook": "%kimi log always --here",
    "words in no index": "%kimi log 中文",
    "everything": "%kimi log",
}


def turn(number: int, chance: random.Random, now: float) -> TurnRecord:
    """Return a turn of about 300 words, one of 20 in its chat."""
    words = ["".join(chance.choices(SYLLABLES, k=3)) for _ in range(300)]
    words[7] = "always"
    words[8] = f"unique{number}"
    words[9] = "hundredth" if number % 100 == 0 else "other"
    prompt, reasoning, answer = (" ".join(words[a:b]) for a, b in ((0, 30), (30, 200), (200, 300)))
    messages = (
        Message("user", prompt),
        Message("assistant", answer, reasoning=as_reasoning(reasoning)),
    )
    step = Step(answer, as_reasoning(reasoning) or (), finish_reason="stop")
    return TurnRecord(
        (step,),
        messages,
        1,
        finish_reason="stop",
        model="kimi-k2-thinking",
        chat="main",
        parameters={"model": "kimi-k2-thinking", "stream": True, "temperature": 1.0},
        endpoint=EndpointFacts("moonshot", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
        prompt=prompt,
        cell=f"cell-{number}",
        run=f"run-{number}",
        started=now - (TURNS - number) * 60.0,
    )


def write(path: Path) -> None:
    chance, now = random.Random(7), time.time()
    with closing(JournalFile.open(path)) as file:
        for first in range(0, TURNS, 1000):
            with file.transaction():
                for number in range(first, first + 1000):
                    if number % PER_CHAT == 0:
                        last = number >= TURNS - PER_CHAT
                        where = notebook_path() if last else f"/work/notebook-{number}.ipynb"
                        chat = file.add_chat(where, "main", now)
                    alone = number % PER_CHAT == 1  # a one-off
                    file.add(
                        turn(number, chance, now).to_dict(),
                        chat=None if alone else chat,
                        notebook=where,
                        kernel="elsewhere:1:00000000",
                        state="done",
                    )


RUN = """
import sys, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
began = time.perf_counter()
shell.run_line_magic("load_ext", "kimi_magic")
loaded = time.perf_counter() - began
print("\\n@", loaded)
for line in sys.argv[1:]:
    began = time.perf_counter()
    shell.run_cell(line)
    print("\\n@", time.perf_counter() - began)
"""


def seconds(path: Path | str, *lines: str) -> list[float]:
    """Return the seconds of ``%load_ext``, and of each line."""
    ran = subprocess.run(
        [sys.executable, "-c", RUN, *lines],
        env=os.environ | {"KIMI_JOURNAL": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(line[2:]) for line in ran.stdout.splitlines() if line.startswith("@ ")]


def main(path: Path) -> None:
    if not path.exists():
        began = time.perf_counter()
        write(path)
        size = path.stat().st_size / 1e6
        print(f"written: {TURNS:,} turns, {size:,.0f} MB, {time.perf_counter() - began:.0f} s")
    loads = {p: min(seconds(p)[0] for _ in range(7)) for p in ("off", path)}
    print(f"%load_ext without a journal: {loads['off'] * 1000:6.1f} ms")
    print(f"%load_ext with the journal:  {loads[path] * 1000:6.1f} ms")
    for what, line in COMMANDS.items():
        first, again = seconds(path, line, line)[1:]
        print(f"{what:28} {first * 1000:6.0f} ms, again {again * 1000:6.0f} ms")
    walk = "import kimi_magic as kimi; sum(1 for _ in kimi.journal.turns())"
    print(f"{'all replies, one by one':28} {seconds(path, walk)[1]:6.1f} s")


if __name__ == "__main__":
    if sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as folder:
            main(Path(folder) / "journal.sqlite3")
