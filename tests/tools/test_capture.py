"""What functions print and display while they run, here and in a real kernel."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest

from kimi_magic.core.messages import Output, ToolResult
from kimi_magic.tools.call import run_call
from kimi_magic.tools.capture import MAX_TEXT, Capture, capturing
from kimi_magic.tools.function_tool import make_tool
from kimi_magic.tools.tool import ToolOptions
from tests.kernels import Kernel, Ran


def call(function: Callable[..., Any], **options: Any) -> ToolResult:
    return run_call(make_tool(function, name="tool", options=ToolOptions(**options)), "", {})


def talk() -> None:
    print("out")
    print("err", file=sys.stderr)
    sys.stdout.writelines(["a\n", "b\n"])
    sys.stdout.flush()


async def talk_later() -> None:
    await asyncio.sleep(0)
    talk()


@pytest.mark.parametrize("options", [{}, {"timeout": 60}, {"parallel": True}], ids=str)
@pytest.mark.parametrize("function", [talk, talk_later])
def test_prints_are_kept_and_told(
    function: Callable[[], Any], options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sys.stdout, sys.stderr
    result = call(function, **options)
    assert result.stdout == "out\nerr\na\nb\n"
    assert result.content == "Printed:\nout\nerr\na\nb"
    assert capsys.readouterr() == ("", "")
    assert (sys.stdout, sys.stderr) == before


def test_other_threads_keep_their_prints(capsys: pytest.CaptureFixture[str]) -> None:
    inside, go = threading.Event(), threading.Event()

    def waits() -> None:
        print("the tool's")
        inside.set()
        go.wait(60)

    results: list[ToolResult] = []
    other = threading.Thread(target=lambda: results.append(call(waits)))
    other.start()
    assert inside.wait(60)
    print("mine")
    go.set()
    other.join(60)
    assert results[0].stdout == "the tool's\n"
    assert capsys.readouterr().out == "mine\n"


def test_calls_side_by_side_keep_their_own() -> None:
    before = sys.stdout
    together = threading.Barrier(4, timeout=60)
    results: dict[int, ToolResult] = {}

    def work(i: int) -> None:
        def says() -> None:
            for _ in range(20):
                together.wait()
                print(i)

        results[i] = call(says, parallel=bool(i % 2))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [results[i].stdout for i in range(4)] == [f"{i}\n" * 20 for i in range(4)]
    assert sys.stdout is before


def test_a_call_inside_a_call_keeps_its_own() -> None:
    inner = []

    def outer() -> None:
        print("before")
        inner.append(call(talk))
        print("after")

    assert call(outer).stdout == "before\nafter\n"
    assert inner[0].stdout == "out\nerr\na\nb\n"


def test_a_call_under_somebody_elses_redirection() -> None:
    texts = io.StringIO()

    def outer() -> str:
        with redirect_stdout(texts):
            print("theirs")
            return call(talk).stdout

    result = call(outer)
    assert result.value == "out\nerr\na\nb\n"
    assert result.stdout == ""
    assert texts.getvalue() == "theirs\n"


def test_a_stream_that_a_function_leaves_in_place_is_put_back() -> None:
    before = sys.stdout
    theirs = io.StringIO()

    def replaces() -> None:
        sys.stdout = theirs

    call(replaces)
    assert sys.stdout is before


def test_what_a_thread_left_behind_prints_later_is_nobodys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    go, done = threading.Event(), threading.Event()

    def late() -> None:
        go.wait(60)
        print("late")
        done.set()

    result = call(late, timeout=0.01, parallel=True)
    go.set()
    assert done.wait(60)
    assert result.stdout == ""
    assert capsys.readouterr().out == "late\n"


def test_streams_refuse_what_streams_refuse() -> None:
    assert "TypeError: write() argument must be str" in (
        call(lambda: sys.stdout.write(b"x")).error or ""  # type: ignore[arg-type]
    )
    assert call(lambda: sys.stdout.encoding).value == sys.stdout.encoding


def test_without_streams_nothing_is_lost_but_the_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert call(lambda: print("x")).stdout == "x\n"
    with capturing() as capture:
        capture.closed = True
        print("y")
        sys.stdout.flush()
    assert capture.text == ""


TERMINAL = [
    ("10%\r50%\r100%\n", "100%\n"),
    ("\r10%\r20%", "20%"),
    ("windows\r\nlines\r\n", "windows\nlines\n"),
    ("\x1b[1;31mred\x1b[0m", "red"),
    ("\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
    ("\x1b[2K\rdone", "done"),
]


@pytest.mark.parametrize(("written", "text"), TERMINAL)
def test_the_text_is_what_a_terminal_shows(written: str, text: str) -> None:
    capture = Capture()
    capture.write(written)
    assert capture.text == text


def test_of_endless_prints_the_ends_are_kept() -> None:
    capture = Capture()
    capture.write("first")
    for _ in range(1000):
        capture.write("x" * 1000)
    capture.write("last")
    assert len(capture.text) < 4 * MAX_TEXT
    assert capture.text.startswith("first")
    assert capture.text.endswith("last")
    lost = 1_000_009 - capture.text.count("x") - len("firstlast")
    assert f"[{lost:,} characters were not kept]" in capture.text


def test_an_update_replaces_what_it_updates() -> None:
    capture = Capture()
    one, two, three = (Output({"text/plain": text}, {}) for text in ("1", "2", "3"))
    assert capture.show(one, "a")
    assert capture.show(two)
    assert capture.show(three, "a", update=True)
    assert capture.outputs == (three, two)
    assert not capture.show(one, "b", update=True)
    assert not capture.show(one, None, update=True)
    capture.clear()
    assert not capture.outputs


# In a kernel

SETUP = """
from IPython.display import HTML, clear_output, display, update_display
from kimi_magic.tools.call import run_call
from kimi_magic.tools.function_tool import make_tool
from kimi_magic.tools.tool import ToolOptions

def call(function, **options):
    global result
    result = run_call(make_tool(function, name="tool", options=ToolOptions(**options)), "", {})
    print(result.content)
    print([sorted(output.data) for output in result.outputs])
"""


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    kernel.run(SETUP)
    return kernel


def lines(ran: Ran) -> list[str]:
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def test_displays_and_values_are_captured_as_jupyter_shows_them(notebook: Kernel) -> None:
    ran = notebook.run("""
def shows():
    handle = display(HTML("<b>1</b>"), display_id=True)
    handle.update(HTML("<b>2</b>"))
    get_ipython().run_cell("6 * 7")
    print("p")
    return HTML("<i>value</i>")
call(shows)
print(result.outputs[0].data["text/html"], result.outputs[-1].data["text/html"])
""")
    assert lines(ran)[-2:] == [
        "[['text/html', 'text/plain'], ['text/plain'], ['text/html', 'text/plain']]",
        "<b>2</b> <i>value</i>",
    ]
    assert "42" in lines(ran)
    assert not ran.displays
    assert not ran.of("execute_result")


def test_an_update_of_what_the_cell_shows_reaches_it(notebook: Kernel) -> None:
    ran = notebook.run("""
display(HTML("<b>1</b>"), display_id="here")
call(lambda: update_display(HTML("<b>2</b>"), display_id="here"))
""")
    assert [data["text/html"] for data in ran.displays] == ["<b>1</b>", "<b>2</b>"]
    assert lines(ran) == ["Done; it returned None.", "[]"]


def test_clearing_clears_the_functions_own_output(notebook: Kernel) -> None:
    ran = notebook.run("""
print("the cell's")
def clears():
    print("gone"); display(1); clear_output(); print("stays")
call(clears)
""")
    assert lines(ran) == ["the cell's", "Printed:", "stays", "[]"]
    assert not ran.of("clear_output")


def test_errors_in_formatters_and_inner_cells_stay_inside(notebook: Kernel) -> None:
    ran = notebook.run("""
class Bad:
    def __repr__(self):
        print("noise")
        raise ValueError
    _repr_html_ = __repr__
call(Bad)
call(lambda: get_ipython().run_cell("1 / 0") and None)
""")
    assert lines(ran)[:2] == ["<Bad object; its repr raises ValueError>", "[['text/plain']]"]
    assert "ZeroDivisionError: division by zero" in lines(ran)
    assert not ran.of("error")


def test_a_value_that_displays_itself(notebook: Kernel) -> None:
    ran = notebook.run("""
class Own:
    def _ipython_display_(self):
        display(HTML("own"))
call(Own)
""")
    assert lines(ran) == ["<__main__.Own object>", "[['text/html', 'text/plain']]"]
    assert not ran.displays


def test_figures_of_the_function_are_captured_and_the_cells_stay(notebook: Kernel) -> None:
    ran = notebook.run("""
import matplotlib.pyplot as plt
plt.plot([1, 2])
def draws():
    plt.figure(); plt.plot([3, 4])
    plt.figure(); plt.plot([5, 6])
call(draws)
assert len(plt.get_fignums()) == 1
def gives():
    figure, axes = plt.subplots()
    return figure
call(gives)
call(lambda: plt.figure().add_subplot())
assert not result.outputs[0].data["image/png"].startswith("b'")
""")
    figure = "['image/png', 'text/plain']"
    assert lines(ran) == [
        "A figure was shown to the user.",
        "",
        "A figure was shown to the user.",
        f"[{figure}, {figure}]",
        "A figure was shown to the user: matplotlib Figure with 1 plot",
        "plot 1",
        "- x axis from 0 to 1",
        "- y axis from 0 to 1",
        f"[{figure}]",
        "matplotlib axes",
        "- x axis from 0 to 1",
        "- y axis from 0 to 1",
        "",
        "A figure was shown to the user.",
        f"[{figure}, ['text/plain']]",
    ]
    assert [sorted(data) for data in ran.displays] == [["image/png", "text/plain"]]


def test_figures_of_a_function_that_fails_and_of_a_coroutine(notebook: Kernel) -> None:
    ran = notebook.run("""
import matplotlib.pyplot as plt
def fails():
    plt.plot([1, 2])
    return 1 / 0
async def later():
    plt.plot([1, 2])
call(fails)
call(later)
assert not plt.get_fignums()
""")
    assert ran.stdout.count("A figure was shown to the user.") == 2
    assert not ran.displays


def test_a_failure_names_the_cell(notebook: Kernel) -> None:
    ran = notebook.run("""
def fails():
    return 1 / 0
call(fails)
print(result.traceback)
""")
    assert "  in fails, line 2: return 1 / 0" in lines(ran)
    assert f"  Cell In[{ran.reply['execution_count']}], line 2, in fails" in lines(ran)


def test_time_limits_and_coroutines_in_a_cell(notebook: Kernel) -> None:
    ran = notebook.run("""
import asyncio, time
async def later():
    await asyncio.sleep(0)
    print("later")
def spins():
    while True:
        time.sleep(0.001)
call(later)
call(spins, timeout=0.05)
call(later, timeout=60)
""")
    assert lines(ran) == [
        "Printed:",
        "later",
        "[]",
        "tool timed out after 0.05 s and was stopped.",
        "[]",
        "Printed:",
        "later",
        "[]",
    ]


@pytest.mark.parametrize("options", ["", "timeout=60", "parallel=True"])
@pytest.mark.parametrize("sort", ["def", "async def"])
def test_kernel_interrupt(notebook: Kernel, sort: str, options: str) -> None:
    wait = "time.sleep(600)" if sort == "def" else "await asyncio.sleep(600)"
    ran = notebook.run(
        f"""
import asyncio, os, signal, sys, time
before = sys.stdout, sys.displayhook, get_ipython().display_pub.publish
{sort} waits():
    os.kill(os.getpid(), signal.SIGINT)
    {wait}
try:
    call(waits, {options})
finally:
    assert before == (sys.stdout, sys.displayhook, get_ipython().display_pub.publish)
""",
        ok=False,
    )
    assert ran.status == "error"
    assert ran.reply["ename"] == "ToolInterrupted"
    assert ran.error == "ToolInterrupted: Stopped while tool was running."
    assert ran.seconds < 60
