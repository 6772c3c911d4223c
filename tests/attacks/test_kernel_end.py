"""Aim: end the kernel, or leave it in another state, by a call that looks like any other."""

from __future__ import annotations

import builtins
import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.core.messages import ToolResult
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.toolset import Toolset
from tests.kernels import Kernel

ENDS = [
    "exit()",
    "quit()",
    "exit(keep_kernel=True)",
    "try:\n    exit()\nexcept BaseException:\n    pass",
    "import sys; sys.exit(3)",
    "raise SystemExit",
    "get_ipython().ask_exit()",
    "get_ipython().exit_now = True",
    "get_ipython().kernel.do_shutdown(False)",
    "get_ipython().kernel.io_loop.stop()",
    "get_ipython().run_cell('exit()')",
    "%reset -f",
    "%reset -sf",
    "get_ipython().user_ns.clear()",
    "globals().clear()",
    "get_ipython().reset()",
    "import os; os._exit(0)",
    "import os; os.abort()",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "import os, sys; os.execv(sys.executable, [sys.executable, '-c', ''])",
    "import os, signal; os.kill(0, signal.SIGTERM)",
    "import os, signal; os.kill(-os.getpgrp(), signal.SIGKILL)",
    "import os, signal; os.killpg(0, signal.SIGKILL)",
    "import os, signal; os.kill(os.getpid(), signal.SIGUSR1)",
    "import posix; posix._exit(0)",
    "import signal; signal.raise_signal(signal.SIGTERM)",
    "import signal; signal.raise_signal(signal.SIGSEGV)",
    "import signal, threading; signal.pthread_kill(threading.get_ident(), signal.SIGKILL)",
    "import threading; t = threading.Thread(target=exit); t.start(); t.join()",
]
# These end nothing during the call.
LATER = [
    "import threading; threading.Timer(0.2, exit).start()",
    "import asyncio; asyncio.get_running_loop().call_soon(exit)",
    "import asyncio, sys; asyncio.get_running_loop().call_later(0.2, sys.exit)",
    "import asyncio; loop = asyncio.get_running_loop(); loop.call_later(0.2, loop.stop)",
    "import asyncio\nasync def leave(): await asyncio.sleep(0.2); exit()\n"
    "task = asyncio.create_task(leave())",
    "get_ipython().kernel.io_loop.add_callback(exit)",
    "async def begin(): await asyncio.sleep(0.1); asyncio.create_task(leave())\n"
    "import asyncio\nasync def leave(): exit()\ntask = asyncio.create_task(begin())",
    "import asyncio, os\nr, w = os.pipe(); loop = asyncio.get_running_loop()\n"
    "def leave(): loop.remove_reader(r); exit()\nloop.add_reader(r, leave); os.write(w, b'x')",
    "get_ipython().user_ns = {}",
    "import signal; signal.setitimer(signal.ITIMER_REAL, 0.2)",
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)",
]

ATTACK = """
import kimi_magic as kimi
first, second = 1, 2
def tool(code: str) -> str:
    "Run it, as any function of the user's may."
    return get_ipython().run_line_magic("reset", "-f") if code == "%reset -f" else exec(code, {})
bench = kimi.Toolset(["run_python", tool])
def attack(name, code):
    import json
    result = bench.call(name, json.dumps({"code": code}), approve=lambda *_: True)
    return [code, result.error, first + second]
"""


def test_a_call_that_asks_for_the_end(kernel: Kernel) -> None:
    """Input: each way to end or to empty a kernel, in `run_python`. Holds: it failed, all lives."""
    kernel.run(ATTACK)
    ran = kernel.run(
        f"import os\nbefore = os.getpid()\nfound = [attack('run_python', c) for c in {ENDS!r}]\n"
        f"found += [attack('run_python', c) for c in {LATER!r}]\n"
        "print(*[f'{code!r}: {error}' for code, error, total in found if not error], sep='\\n')\n"
        "print([total for *_, total in found])"
    )
    problems, totals = ran.stdout.rstrip().rpartition("\n")[::2]
    assert problems.splitlines() == [f"{code!r}: None" for code in LATER]
    assert totals == str([3] * (len(ENDS) + len(LATER)))
    ran = kernel.run("import time; time.sleep(0.5); print(first + second, os.getpid() == before)")
    assert ran.stdout.split() == ["3", "True"], "a moment later as well"
    assert ran.reply["payload"] == []


def test_an_ordinary_tool_in_a_turn_that_calls_exit(asked: ScriptedServer, kernel: Kernel) -> None:
    """Input: a tool that calls `exit()`. Holds: the model is told; the next cell finds its data."""
    kernel.run("kept = 1\ndef leave() -> None:\n    exit()")
    asked.reply("", tool_calls=[{"name": "leave", "arguments": {}}])
    asked.reply("It cannot.")
    ran = kernel.run("import kimi_magic as kimi\nr = kimi.ask('Leave', tools=[leave])")
    assert ran.reply["payload"] == []
    told = kernel.run("import time; time.sleep(0.5); print(kept, r.tool_results[0].content)").stdout
    assert told.splitlines() == [
        "1 leave failed: SystemExit: exit was not carried out: a tool cannot end the kernel",
        "  in leave, line 3: exit()",
    ]


def call(function: Callable[[], Any], **options: Any) -> ToolResult:
    import kimi_magic as kimi

    marked = kimi.tool(**options)(function) if options else function
    return Toolset({"tool": marked}).call("tool", "{}")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    folder, path, environment = Path.cwd(), sys.path.copy(), dict(os.environ)
    level = logging.getLogger().level
    with warnings.catch_warnings():
        yield
    os.chdir(folder)
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)
    logging.getLogger().setLevel(level)


def replaces_the_streams() -> None:
    sys.stdout = sys.stderr = sys.stdin = None


def closes_the_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()


def replaces_the_hooks() -> None:
    for name in ("displayhook", "excepthook", "unraisablehook", "breakpointhook"):
        setattr(sys, name, None)
    threading.excepthook = None  # type: ignore[assignment]


def replaces_builtins() -> None:
    for name in ("print", "open", "input"):
        setattr(builtins, name, None)
    del builtins.sum


def takes_the_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1000)


def sets_limits() -> None:
    sys.setrecursionlimit(5000)
    sys.setswitchinterval(1)
    sys.setprofile(lambda *_: None)
    gc.disable()


def lowers_the_recursion_limit() -> None:
    for limit in range(1, sys.getrecursionlimit()):
        try:
            sys.setrecursionlimit(limit)
        except RecursionError:  # deeper already
            continue
        break


def state() -> list[Any]:
    names = "stdin stdout stderr displayhook excepthook unraisablehook breakpointhook".split()
    return [
        *(getattr(sys, name) for name in names),
        threading.excepthook,
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        sys.getprofile(),
        gc.isenabled(),
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        dict(vars(builtins)),
        [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        round(signal.getitimer(signal.ITIMER_REAL)[0] / 100),
    ]


@pytest.mark.parametrize(
    "function",
    [
        replaces_the_streams,
        closes_the_streams,
        replaces_the_hooks,
        replaces_builtins,
        takes_the_signals,
        sets_limits,
    ],
)
@pytest.mark.parametrize("options", [{}, {"timeout": 30}], ids=["plain", "with-a-limit"])
def test_what_no_function_is_there_to_change(
    function: Callable[[], None], options: dict[str, Any]
) -> None:
    """Input: streams, hooks, builtins, signals and limits changed. Holds: all is as before."""
    before = state()
    result = call(function, **options)
    assert state() == before
    assert not sys.stdout.closed
    assert not sys.stderr.closed
    assert result.error is None
    assert result.outputs == ()


def test_a_recursion_limit_that_leaves_no_room() -> None:
    """Input: the lowest limit that Python takes. Holds: it is as before."""
    before = state()
    call(lowers_the_recursion_limit)
    assert state() == before


def moves() -> None:
    os.chdir("/")


def extends_the_path() -> None:
    sys.path.insert(0, "/nowhere")


def sets_variables() -> None:
    os.environ["A_NEW_ONE"] = "its value"
    os.environ.pop("HOME", None)


def hides_warnings() -> None:
    warnings.simplefilter("ignore")


def silences_logging() -> None:
    logging.getLogger().setLevel(1)


def draws_elsewhere() -> None:
    import matplotlib as mpl

    mpl.use("svg")


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (moves, "the working folder ("),
        (extends_the_path, "sys.path"),
        (sets_variables, "the environment (HOME, A_NEW_ONE)"),
        (hides_warnings, "the display of warnings"),
        (silences_logging, "the limits of logging"),
        (draws_elsewhere, "matplotlib's backend (agg → svg)"),
    ],
)
def test_what_a_function_may_change_is_told(
    function: Callable[[], None], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: working folder, sys.path, environment … changed. Holds: the result says so."""
    import matplotlib as mpl

    mpl.use("agg")
    monkeypatch.setenv("HOME", "/home")
    result = call(function)
    assert f"This call changed {told}" in result.content
    mpl.use("agg")
    assert "its value" not in result.content
    assert result.outputs[-1].data["text/plain"].startswith(f"This call changed {told}")


def test_what_ipython_holds(kernel: Kernel) -> None:
    """Input: hooks, next cell and variables changed. Holds: the result says so."""
    kernel.run(ATTACK)
    ran = kernel.run("""
for code in ["del first", "get_ipython().events.register('pre_run_cell', print)",
             "get_ipython().set_next_input('rm -rf /')"]:
    result = bench.call("run_python", '{"code": "%s"}' % code, approve=lambda *_: True)
    print(result.content, result.error)
get_ipython().events.unregister("pre_run_cell", print)
""")
    assert [line for line in ran.stdout.splitlines() if line.startswith("This")] == [
        f"This call changed {change}. None"
        for change in (
            "the variables (first deleted)",
            "IPython's hooks (pre_run_cell)",
            "the text of the next cell",
        )
    ]


def test_what_a_call_gives_to_the_loop_runs_as_it_would(kernel: Kernel) -> None:
    """Input: harmless tasks and callbacks. Holds: they run, are cancelled, say what they are.

    What ends the kernel is refused while they run, and only then.
    """
    ran = kernel.run("""
import asyncio, os, kimi_magic as kimi
before, done = os.kill, []
async def count(n: int) -> int:
    done.append(n)
    await asyncio.sleep(0.01)
    return n
def work() -> None:
    global task, early
    loop = asyncio.get_running_loop()
    task, early = loop.create_task(count(7)), asyncio.create_task(count(8))
    early.cancel()
    loop.call_soon(done.append, 1)
    loop.call_later(0.01, done.append, 2)
    loop.call_soon(done.append, 3).cancel()
kimi.Toolset([work]).call("work", "{}")
print("count()" in repr(task), await task)
await asyncio.sleep(0.05)
print(sorted(done), early.cancelled(), os.kill is before)
""")
    assert ran.stdout.splitlines() == ["True 7", "[1, 2, 7] True True"]
    assert ran.stderr == ""


def test_signals_that_a_call_handles_itself() -> None:
    """Input: signals with a handler of the call's own, and number 0. Holds: they are sent."""
    came: list[int] = []

    def work() -> None:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda number, _: came.append(number))
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), 0)

    assert call(work).error is None
    assert came == [signal.SIGTERM, signal.SIGUSR1]


def test_calls_side_by_side() -> None:
    """Input: parallel calls that change state. Holds: put back after the last, or told with it."""
    import kimi_magic as kimi
    from kimi_magic.core.events import ToolFinished
    from kimi_magic.core.messages import ToolCall
    from kimi_magic.tools.step_calls import run_step_calls

    @kimi.tool(parallel=True)
    def change() -> None:
        sys.stdout = None
        os.chdir("/")

    before = state()
    calls = [ToolCall(str(n), "change", "{}") for n in range(3)]
    events = list(run_step_calls(Toolset([change]), calls, None, {}))
    assert state() == before
    results = [event.result for event in events if isinstance(event, ToolFinished)]
    told = ["This call changed the working folder" in r.content for r in results]
    assert told == [False, False, True]


def test_a_forked_child_may_end_as_it_likes() -> None:
    """Input: `os._exit` in a child. Holds: it ends with its own status, the call is well."""

    def fork() -> int:
        child = os.fork()
        if not child:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert call(fork).value == 7


def test_state_that_another_thread_changes_meanwhile_is_its_own() -> None:
    """Input: prints of a thread of the user's during a call. Holds: they go where they went."""
    go, gone = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        print("mine")
        gone.set()

    thread = threading.Thread(target=work)
    thread.start()

    def wait() -> None:
        go.set()
        gone.wait(10)
        time.sleep(0)

    result = call(wait)
    thread.join()
    assert result.stdout == ""
