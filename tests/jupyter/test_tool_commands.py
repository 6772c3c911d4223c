"""The tool bench, as a person at a front end uses it."""

from __future__ import annotations

import pytest

from tests.kernels import Kernel

DEFINE = '''
import kimi_magic as kimi

def forecast(days: int, city="Rome") -> dict:
    """Forecast the weather.

    Args:
        days: How many days ahead.
    """
    print("looking ahead")
    return {"city": city, "rain": [True] * days}

@kimi.tool(confirm=True)
def send(text: str) -> str:
    """Send a text."""
    return f"sent {text}"

class Frame: ...
frame = Frame()
def look(frame: Frame) -> bool:
    """Look at a frame."""
    return type(frame).__name__ == "Frame"
'''


@pytest.fixture
def bench(kernel: Kernel) -> Kernel:
    kernel.run("import kimi_magic.tools.decorator as o; o.offered.clear()")
    kernel.run(DEFINE)
    return kernel


def test_a_function_as_the_model_will_see_it(bench: Kernel) -> None:
    shown = bench.run("%kimi tool forecast").stdout
    assert '"name": "forecast"' in shown
    assert '"description": "How many days ahead."' in shown
    assert "no description of city" in shown, "what was not told is said"


def test_a_call_as_the_model_would_make_it(bench: Kernel) -> None:
    ran = bench.run('%kimi tool forecast {"days": "2"}')
    assert "looking ahead" in ran.stdout
    assert '{"city":"Rome","rain":[true,true]}' in ran.stdout
    shown = """Tool call (✓ done): forecast(days="2")
  looking ahead
  {'city': 'Rome', 'rain': [True, True]}"""
    assert ran.record["text/plain"] == shown, "as a turn shows it"
    assert ">forecast(days=&quot;2&quot;)</code>" in ran.record["text/html"]


def test_arguments_that_do_not_fit_run_nothing(bench: Kernel) -> None:
    ran = bench.run('%kimi tool forecast {"days": "many", "town": "Oslo"}')
    assert "looking ahead" not in ran.stdout
    assert "- days: got" in ran.stdout
    assert "- town: unknown field" in ran.stdout


def test_a_variable_of_the_notebook_by_its_name(bench: Kernel) -> None:
    assert "frame" in bench.run("%kimi tool look").stdout
    assert "true" in bench.run('%kimi tool look {"frame": "frame"}').stdout


def test_a_tool_that_asks_first(bench: Kernel) -> None:
    call = '%kimi tool send {"text": "hi"}'
    assert "nobody to ask" in bench.run(call).stdout
    assert "sent hi" in bench.run(call, allow_stdin=True, answer="y").stdout
    refused = bench.run(call, allow_stdin=True, answer="")
    assert "sent hi" not in refused.stdout


def test_keys_show_neither_in_the_schema_nor_in_what_a_call_gives(bench: Kernel) -> None:
    bench.run("import os; os.environ['MOONSHOT_API_KEY'] = 'q7'.join('wxyzabcdefgh')")
    bench.run(
        "def leak(text: str = os.environ['MOONSHOT_API_KEY']) -> str:\n"
        "    print(text)\n"
        "    if text == 'raise': raise OSError(os.environ['MOONSHOT_API_KEY'])\n"
        "    return text"
    )
    shown = [bench.run("%kimi tool leak"), bench.run("%kimi tool leak {}")]
    shown += [bench.run('%kimi tool leak {"text": "raise"}')]
    bench.run("del os.environ['MOONSHOT_API_KEY']")
    for ran in shown:
        assert "wq7x" not in f"{ran.stdout}{ran.displays}"
        assert "key]" in ran.stdout or "masked]" in ran.stdout


def test_a_function_defined_anew_is_the_one_that_is_meant(bench: Kernel) -> None:
    bench.run('def send(text: str) -> str:\n    return f"posted {text}"')
    assert "posted hi" in bench.run('%kimi tool send {"text": "hi"}').stdout


def test_a_part_of_the_parameters(bench: Kernel) -> None:
    for line in ("%kimi tool forecast(days)", '%kimi tool "forecast( days )"'):
        shown = bench.run(line).stdout
        assert '"days"' in shown
        assert '"city"' not in shown
        assert "- not offered: city" in shown
    ran = bench.run('%kimi tool forecast(days, city) {"days": 1, "city": "Oslo"}')
    assert '{"city":"Oslo","rain":[true]}' in ran.stdout
    bench.run("%kimi tools add forecast(days)")
    assert '"city"' not in bench.run("%kimi tool forecast(days)").stdout
    assert "unknown field" in bench.run('%kimi tool forecast(days) {"city": "Oslo"}').stdout


def test_a_large_function_is_told(bench: Kernel) -> None:
    bench.run(f"def large(a, b, c, d: int = 1):\n    {'A long text. ' * 200!r}")
    assert "- large takes about " in bench.run("%kimi tool large").stdout
    assert "takes about" not in bench.run("%kimi tool forecast").stdout


def test_what_is_offered_can_be_changed(bench: Kernel) -> None:
    assert bench.run("%kimi tools").stdout == "send: Send a text.\n"
    bench.run("%kimi tools add forecast")
    bench.run("%kimi tools remove send")
    assert bench.run("%kimi tools").stdout == "forecast: Forecast the weather.\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%kimi tool", "Which function?"),
        ("%kimi tool nothing", "there is no nothing"),
        ("%kimi tools add nothing", "There is no nothing"),
        ("%kimi tool forecast(dayz)", "forecast has no parameter dayz: did you mean days?"),
        ("%kimi tools add forecast(city)", "Forecast needs days, which params leaves out"),
        ("%kimi tool forecast(days", "forecast(days is no function"),
        ("%kimi tools remove nothing", "not offered"),
        ("%kimi tools forget send", "`%kimi tools` lists"),
    ],
)
def test_mistakes_take_one_line(bench: Kernel, line: str, words: str) -> None:
    ran = bench.run(line, ok=False)
    assert words in ran.error
    assert len(ran.error.splitlines()) == 1
