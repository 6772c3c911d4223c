"""Aim: break the kernel for good with one interrupt, while the first turn loads libraries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from kimi_magic.testing import ScriptedServer

# One process that has loaded nothing of ours forks a child for each interrupt. The interrupt is
# raised at the n-th import, so no clock decides where it falls.
CHILD = """
import importlib, json, os, signal, sys, traceback
from IPython.core.interactiveshell import InteractiveShell

signal.signal(signal.SIGINT, signal.default_int_handler)
url, action, places, absent = json.loads(sys.argv[1])
for name in absent:
    sys.modules[name] = None
shell = InteractiveShell.instance()
shell.history_manager.enabled = False
# No turn shall draw: the terminal's view is another matter.
os.environ.update(KIMI_BASE_URL=url, KIMI_VIEW="plain")


class Interrupting:
    def __init__(self, place):
        self.place, self.count = place, 0

    def find_spec(self, name, path=None, target=None):
        self.count += 1
        if self.count == self.place:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
        return None


def use(code):
    ran = shell.run_cell(code, store_history=False)
    return ran.error_before_exec or ran.error_in_exec


def attempt(place):
    finder = Interrupting(place)
    sys.meta_path.insert(0, finder)
    first = use(action)
    sys.meta_path.remove(finder)
    if first is not None and not isinstance(first, KeyboardInterrupt):
        return [finder.count, f"the first time: {first!r}"]
    second = use("%reload_ext kimi_magic\\n" + NEXT)
    return [finder.count, "" if second is None else f"the next time: {second!r}"]


NEXT = '''
import kimi_magic as kimi
from kimi_magic.context.summaries.summary import summarize
assert kimi.ask("Hi", show=True).text == "OK"
def add(a: int, b: int) -> int:
    return a + b
assert kimi.Toolset([add]).call("add", '{"a": 1, "b": 2}').value == 3
assert "model" in kimi.snippet(kimi.last)
summarize(add)
'''


def in_a_child(place):
    out, into = os.pipe()
    if not os.fork():
        # What is printed there is of no interest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        found = ["", "it died"]
        try:
            found = attempt(place)
        except BaseException:
            found = ["", traceback.format_exc()]
        finally:
            os.write(into, json.dumps(found).encode())
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as stream:
        found = json.loads(stream.read() or '["", "it died"]')
    os.wait()
    return found


total, problem = in_a_child(-1)
print(json.dumps([total, problem]), flush=True)
for number in range(places):
    place = 1 + number * total // places
    print(json.dumps([place, in_a_child(place)[1]]), flush=True)
"""

ASK = "%load_ext kimi_magic\nget_ipython().run_cell_magic('kimi', '', 'Hi')"
TOOL = """
%load_ext kimi_magic
def half(x: float) -> float:
    import decimal, fractions, wave
    return x / 2
%kimi tool half {"x": 3}
"""
DRY = """
%load_ext kimi_magic
import fractions
numbers = [fractions.Fraction(1, 3)]
get_ipython().run_cell_magic('kimi', '--dry-run -v numbers --schema "a int"', 'Hi')
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
@pytest.mark.parametrize(
    ("action", "places", "absent"),
    [
        pytest.param(ASK, 12, [], id="turn"),
        pytest.param(ASK, 3, ["aiohttp"], id="turn-without-aiohttp"),
        pytest.param(TOOL, 3, [], id="tool"),
        pytest.param(DRY, 3, [], id="dry-run"),
    ],
)
def test_an_interrupt_in_the_middle_of_an_import(
    action: str, places: int, absent: list[str], scripted_server: ScriptedServer
) -> None:
    """Input: SIGINT, three times, at the n-th import of a first use. Holds: the next use works."""
    for _ in range(2 * places + 2):
        scripted_server.reply("OK")
    asked = json.dumps([scripted_server.base_url, action, places, absent])
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, asked],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    scripted_server._script.clear()
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("[")]
    assert len(found) == places + 1, ran.stdout + ran.stderr
    assert [(place, problem) for place, problem in found if problem] == []
