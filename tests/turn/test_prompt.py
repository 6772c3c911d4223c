"""Prompts, their variables and their cells as the server receives them, from a real kernel."""

from __future__ import annotations

from html import unescape

import pytest

from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel, Ran

SECRET = "fake-key-0123456789abcdef"


def prompt(server: ScriptedServer, number: int = -1) -> str:
    content = server.requests[number].body["messages"][-1]["content"]
    assert isinstance(content, str)
    return content


def next_cells(ran: Ran) -> list[str]:
    return [p["text"] for p in ran.reply["payload"] if p["source"] == "set_next_input"]


def test_expressions_are_put_in_once(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    kernel.run("name = 'Ada {{ 1 + 1 }} {name} $name'; n = [1, 2]")
    kernel.run("%%kimi\n{{ name }}, {{ len(n) }}: {n} $n \\{{ n }} {'a': {1}}")
    assert prompt(asked) == "Ada {{ 1 + 1 }} {name} $name, 2: {n} $n {{ n }} {'a': {1}}"


def test_an_expression_that_fails_sends_nothing(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    kernel.run("%%kimi\nFirst", cell="a")
    ran = kernel.run("%%kimi\nWhat is {{ missing.thing }}?", ok=False, cell="a")
    assert "missing" in ran.error
    assert "NameError" in ran.error
    assert len(ran.error.splitlines()) <= 4
    assert len(asked.requests) == 1
    assert kernel.run("print(len(kimi.chat().turns))").stdout == "1\n", "the chat is as it was"


def test_raw_and_python_leave_braces_alone(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    asked.reply("OK.")
    kernel.run("%%kimi --raw\n{{ x }}")
    kernel.run("kimi.ask('{{ x }}', show=False)")
    assert [prompt(asked, 0), prompt(asked, 1)] == ["{{ x }}"] * 2


def test_inputs_outputs_and_errors_by_number(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    number = kernel.run("6 * 7").reply["execution_count"]
    kernel.run("1 / 0", ok=False)
    kernel.run(f"%%kimi\n{{{{ In[{number}] }}}} {{{{ Out[{number}] }}}} "
               f"{{{{ Err[{number + 1}] }}}}")  # fmt: skip
    assert prompt(asked).startswith("6 * 7 42 ")
    assert "ZeroDivisionError: division by zero" in prompt(asked)


def test_variables_and_cells_go_along(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    asked.reply("OK.")
    kernel.run("import pandas as pd\nsales = pd.DataFrame({'amount': range(100)}); limit = 7")
    number = kernel.run("print('seen')").reply["execution_count"]
    kernel.run(f"%%kimi -v sales,limit --cells {number} --var-tokens 200\nHow much?")
    said = prompt(asked)
    assert said.endswith("How much?")
    assert "100 rows" in said
    assert "amount" in said
    assert "print('seen')" in said
    assert len(said) < 3 * 200 * 4
    kernel.run("kimi.ask('How much?', variables={'x': 5}, show=False)")
    assert "The variable `x`" in prompt(asked)
    assert kernel.run("print(kimi.chat().turns[0].prompt)").stdout == "How much?\n"
    ran = kernel.run("%%kimi -v sale\nHow much?", ok=False)
    assert "sales" in ran.error, "the nearest name is told"


def test_a_dry_run_sends_nothing(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run("limit = 7\ndef f(x: int): 'Do.'\n")
    told = kernel.run("%%kimi -v limit -T f --dry-run\nHow much is {{ limit }}?").stdout
    assert asked.requests == []
    for part in ("You are Kimi", "How much is 7?", "The variable `limit`", '"name": "f"', "About",
                 "or summaries: limit.", "Nothing was sent"):  # fmt: skip
        assert part in told
    assert kernel.run("print(len(kimi.chat().turns))").stdout == "0\n"


def test_keys_are_masked_and_the_user_is_told(kernel: Kernel, asked: ScriptedServer) -> None:
    for _ in range(2):
        asked.reply("OK.")
    kernel.run(f"%env MOONSHOT_API_KEY={SECRET}")
    kernel.run(f"key = '{SECRET}'; other = 'sk-' + 'aB3' * 10; primary_key = 5")
    ran = kernel.run("%%kimi -v key,other,primary_key\n{{ key }} and {{ other }}")
    assert SECRET[:12] not in str(asked.requests[0].body)
    assert "aB3aB3aB3" not in str(asked.requests[0].body)
    assert "primary_key" in prompt(asked)
    assert "Masked in what is sent" in ran.record["text/plain"]
    assert SECRET[:12] not in str(ran.messages)
    kernel.run("%%kimi --allow-secrets\n{{ other }}")
    assert "aB3aB3aB3" in prompt(asked)


def test_a_tool_cannot_send_a_key(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run(f"%env MOONSHOT_API_KEY={SECRET}")
    kernel.run(
        "import os\ndef look():\n    'Look.'\n    print(os.environ['MOONSHOT_API_KEY'])\n"
        "    raise ValueError(os.environ['MOONSHOT_API_KEY'])\n"
    )
    asked.reply(reasoning="Hm.", tool_calls=[{"name": "look", "arguments": {}}])
    asked.reply("OK.")
    ran = kernel.run("%%kimi -T look\nGo", allow_stdin=True)
    assert SECRET[:12] not in str(asked.requests[1].body)
    assert SECRET[:12] not in str(ran.messages)


def test_fix_asks_about_the_last_error(kernel: Kernel, asked: ScriptedServer) -> None:
    assert "No cell has failed" in kernel.run("%kimi fix", ok=False).error
    kernel.run("numbers = [3, 1]")
    kernel.run("total = sum(numbers) / zero", ok=False)
    asked.reply("`zero` is not there.\n\n```python\ntotal = sum(numbers)\n```\n", reasoning="So.")
    ran = kernel.run("%kimi fix", allow_stdin=True)
    said = prompt(asked)
    assert "total = sum(numbers) / zero" in said
    assert "NameError" in said
    assert "The variable `numbers`" in said
    assert next_cells(ran) == ["total = sum(numbers)"]


def test_fix_knows_the_error_before_the_extension(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run("%unload_ext kimi_magic")
    kernel.run("total = sum([3, 1]) / zero", ok=False)
    asked.reply("`zero` is not there.")
    kernel.run("%load_ext kimi_magic\n%kimi fix")
    assert "total = sum([3, 1]) / zero" in prompt(asked)
    assert "NameError" in prompt(asked)


def test_explain_asks_about_the_last_cell(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("It multiplies.")
    kernel.run("print(6 * 7)")
    kernel.run("%kimi explain")
    assert "print(6 * 7)" in prompt(asked)


@pytest.mark.parametrize("answer", ["```python\nx = 1\n```", "x = 1"])
def test_only_code_goes_into_the_next_cell(
    kernel: Kernel, asked: ScriptedServer, answer: str
) -> None:
    asked.reply(answer)
    ran = kernel.run("%%kimi -f code\nSet x to 1.")
    assert "one Python code block" in prompt(asked)
    assert next_cells(ran) == ["x = 1"]


def test_summaries_of_ones_own(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    kernel.run(
        "class Shop: pass\nshop = Shop()\n"
        "@kimi.summarizer(Shop)\ndef of_shop(shop): return 'a little shop'\n"
    )
    kernel.run("%%kimi -v shop\nWhat?")
    assert "a little shop" in prompt(asked)
    assert kernel.run("print(kimi.summarize(shop))").stdout == "a little shop\n"


def test_a_dry_run_shows_what_would_be_left_out(kernel: Kernel, asked: ScriptedServer) -> None:
    for n in range(3):
        asked.reply("word " * 400)
        kernel.run(f"%%kimi\nQuestion {n}")
    kernel.run(f"kimi.add_endpoint(name='small', base_url='{asked.base_url}', context_window=1500, "
               "max_tokens=100)")  # fmt: skip
    ran = kernel.run("%%kimi -e small --dry-run\nNow?")
    told = ran.stdout + unescape("".join(shown["text/html"] for shown in ran.displays))
    assert "oldest turns were left out" in told
    asked.reply("OK.")
    kernel.run("%%kimi -e small\nNow?")
    for message in asked.requests[-1].body["messages"]:
        assert message["content"] in told
    assert "TurnRequest 0" not in told
