"""``%%kimi --map`` and ``%kimi map`` in a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kimi_magic.testing import ScriptedServer
from tests.batch.faulty_server import FaultyServer
from tests.kernels import Kernel


@pytest.fixture
def lab(kernel: Kernel, tmp_path: Path) -> Iterator[FaultyServer]:
    """A server that cells ask with ``-e lab``, and a frame ``df``; answers are kept in a folder."""
    with FaultyServer(lambda prompt, _: "400" if "bad" in prompt else "") as server:
        kernel.run(
            "import os, pandas as pd\n"
            f"os.environ['KIMI_JOURNAL'] = {str(tmp_path / 'journal.sqlite3')!r}\n"
            f"kimi.add_endpoint(name='lab', base_url={server.base_url!r}, "
            "model='kimi-k2-thinking')\n"
            "df = pd.DataFrame({'place': ['Bern', 'bad', 'Rome'], 'n': [1, 2, 3]}, index=[5, 6, 7])"
        )
        yield server
        kernel.run("os.environ['KIMI_JOURNAL'] = 'off'")


def test_a_cell_for_each_row(kernel: Kernel, lab: FaultyServer) -> None:
    said = kernel.run("%kimi map").stdout
    assert said == "No map has been asked yet: `%%kimi --map df` asks one.\n"
    plan = kernel.run("%%kimi --map df -e lab --dry-run\n{{ place }} {{ n }}?")
    assert "Bern 1?" in str(plan.of("execute_result"))
    assert lab.asked == []
    ran = kernel.run("%%kimi --map df -e lab -o out\n{{ place }} {{ n }}?")
    assert "kimi.map:" in str(ran.displays)
    told = kernel.run(
        "print(list(out.index), list(out.text.fillna('-')), list(out.error.notna()))"
    ).stdout
    assert told == "[5, 6, 7] ['BERN 1?', '-', 'ROME 3?'] [False, True, False]\n"
    shown = kernel.run("%%kimi --map df[df.n>1] -e lab\n{{ place }} {{ n }}?")
    assert "ROME 3?" in str(shown.of("execute_result"))
    assert sorted(lab.asked) == ["Bern 1?", "Rome 3?", "bad 2?", "bad 2?"]
    listed = kernel.run("%kimi map status").stdout.splitlines()
    assert "2 of 2 rows, 1 failed  kimi-k2-thinking  {{ place }} {{ n }}?" in listed[0]
    assert listed[1].endswith(".map.jsonl")
    kernel.run("taken << 3", ok=False)
    kernel.run("%%kimi taken << --map df -e lab\n{{ place }} {{ n }}?")
    assert kernel.run("print(len(taken))").stdout == "3\n"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (
            "%%kimi --map nothing\n{{ a }}",
            "--map nothing: NameError: name 'nothing' is not defined",
        ),
        ("%%kimi --map df\nthe same", "The prompt is the same for every row"),
        ("%%kimi --map 3\n{{ a }}", "kimi.map takes a frame or a column"),
        ("%%kimi --map df -c main\n{{ n }}", "--map takes no --chat: it is of one turn"),
        (
            "%%kimi --map df -v df -u\n{{ n }}",
            "--map takes no --var, --usage: they are of one turn",
        ),
        ("%kimi ask --map df Hi", "--map stands in a cell"),
        ("%kimi map now", "`%%kimi --map df` asks a prompt for each row"),
    ],
)
def test_mistakes_take_few_lines(kernel: Kernel, lab: FaultyServer, cell: str, said: str) -> None:
    told = kernel.run(cell, ok=False).told
    assert said in told
    assert "Traceback" not in told
    assert lab.asked == []


def test_batches_under_way_are_listed_and_cancelled(
    kernel: Kernel, lab: FaultyServer, tmp_path: Path
) -> None:
    """Also those of a map whose answers are beside a file of the working directory."""
    with ScriptedServer() as server:
        kernel.run(
            f"kimi.add_endpoint(name='slow', base_url={server.base_url!r}, batch=True,"
            " model='kimi-k2-thinking')\n"
            f"%cd -q {tmp_path}\n"
            "ask = lambda **o: kimi.map(df, '{{ n }}?', endpoint='slow', engine='batch', **o)"
        )
        assert kernel.run("%kimi map cancel", ok=False).told.endswith("No batch is under way.")
        said = kernel.run("ask(); ask(into='labels.csv');").stdout
        assert "batch batch_1 (in progress, 0 of 3 rows answered)" in said
        listed = kernel.run("%kimi map").stdout
        assert "labels.csv.map.jsonl\n  batch batch_2 (in progress" in listed
        assert ".map.jsonl\n  batch batch_1 (in progress" in listed
        assert "batch_1, batch_2" in kernel.run("%kimi map cancel", ok=False).told.replace(
            "batch_2, batch_1", "batch_1, batch_2"
        )
        assert "No batch 7 is under way" in kernel.run("%kimi map cancel 7", ok=False).told
        assert "(cancelling" in kernel.run("%kimi map cancel batch_2").stdout
        server.error(500, "away", path="/v1/batches/batch_1")
        server.error(500, "away", path="/v1/batches/batch_1")
        kernel.run("%config KimiMagics.retries = 1")
        assert "answered 500" in kernel.run("%kimi map").stdout
        kernel.run("%config KimiMagics.retries = 3")
        server.finish_batches("expired", most=0)
        assert "was cancelled" in kernel.run("print(ask(into='labels.csv').error[5])").stdout
        assert kernel.run("%kimi map").stdout.count("  batch ") == 1
        kernel.run("%cd -q -")
