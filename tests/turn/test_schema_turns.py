"""Answers that are data, from the question to ``reply.data``, in a real kernel."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

PERSON = "import pydantic\nclass Person(pydantic.BaseModel):\n    name: str\n    age: int\n"
ADA = '{"name": "Ada", "age": 36}'


def said(server: ScriptedServer, number: int = -1) -> str:
    return str(server.requests[number].body["messages"][-1]["content"])


def printed(kernel: Kernel, expression: str) -> Any:
    return json.loads(kernel.run(f"import json; print(json.dumps({expression}))").stdout)


def test_a_model_of_the_notebook(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run(PERSON)
    asked.reply(f"Here:\n```json\n{ADA}\n```", reasoning="So.")
    ran = kernel.run("%%kimi --schema Person -o answer\nWho?", allow_stdin=True)
    assert printed(kernel, "[type(answer.data).__name__, answer.data.age]") == ["Person", 36]
    assert said(asked).startswith("Who?")
    assert "age" in said(asked)
    assert asked.requests[0].body["response_format"]["type"] == "json_object"
    assert "Ada" in ran.record["text/html"]
    assert "```" not in ran.record["text/plain"], "the data stand for the answer"
    assert kernel.run("print(kimi.chat().turns[0].prompt)").stdout == "Who?\n"


def test_a_list_of_models_is_a_table(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run(PERSON)
    asked.reply(f'{{"items": [{ADA}, {{"name": "Alan", "age": 41}}]}}')
    ran = kernel.run("%%kimi --schema list[Person] -o answer\nWho?", allow_stdin=True)
    assert "<table>" in ran.record["text/html"]
    assert printed(kernel, "answer.to_pandas().age.tolist()") == [36, 41]


def test_fields_in_short(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply('{"name": "Ada", "age": 36, "tags": ["maths"]}')
    kernel.run("%%kimi --schema 'name, age int, tags list' -o answer\nWho?")
    assert printed(kernel, "answer.data['tags']") == ["maths"]


def test_what_does_not_fit_is_sent_back(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run(PERSON)
    asked.reply('{"name": "Ada", "age": "old"}', reasoning="Hm.")
    asked.reply(ADA)
    kernel.run("%%kimi --schema Person -o answer\nWho?")
    assert "age" in said(asked)
    assert "old" in said(asked)
    assert printed(kernel, "[answer.data.age, len(answer.steps)]") == [36, 2]


def test_after_two_corrections_it_fails_and_keeps_the_text(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    kernel.run(PERSON)
    for n in range(3):
        asked.reply(f"No {n}.")
    ran = kernel.run("%%kimi --schema Person\nWho?", ok=False)
    assert ran.reply["ename"] == "SchemaMismatch"
    assert len(ran.error.splitlines()) <= 4
    assert printed(kernel, "[kimi.last.text, kimi.last.data]") == ["No 2.", None]


def test_a_server_that_knows_no_schemas(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.error(400, "response_format is not supported")
    asked.reply(ADA)
    kernel.run(f"{PERSON}\nreply = kimi.ask('Who?', schema=Person, show=False)")
    assert "response_format" not in asked.requests[1].body
    assert printed(kernel, "reply.data.name") == "Ada"


def test_the_strictest_form_where_the_endpoint_has_it(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    asked.reply(ADA)
    kernel.run(
        f"{PERSON}\nkimi.add_endpoint(name='lab', base_url='{asked.base_url}', "
        "answers='json_schema')\nreply = kimi.ask('Who?', schema=Person, endpoint='lab')"
    )
    wanted = asked.requests[0].body["response_format"]
    assert wanted["type"] == "json_schema"
    assert wanted["json_schema"]["schema"]["required"] == ["name", "age"]


def test_any_json(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply('{"planets": ["Venus", {"name": "Mars <b>"}]}')
    ran = kernel.run("%%kimi -f json -o answer\nPlanets?", allow_stdin=True)
    assert printed(kernel, "answer.data['planets'][1]") == {"name": "Mars <b>"}
    assert "<details" in ran.record["text/html"]
    assert "<b>" not in ran.record["text/html"]


@pytest.mark.parametrize("schema", ["Nobody", "1 + 1", "print('x')"])
def test_what_is_no_schema_sends_nothing(
    kernel: Kernel, asked: ScriptedServer, schema: str
) -> None:
    ran = kernel.run(f'%%kimi --schema "{schema}"\nWho?', ok=False)
    if ran.status == "ok":  # a single word is a field of that name
        raise AssertionError(ran.record)
    assert len(ran.error.splitlines()) <= 4
    assert asked.requests == []


def test_with_tools_the_answer_is_held_to_the_schema_when_they_are_done(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    kernel.run(PERSON + "def look() -> str:\n    'Look.'\n    return 'Ada, 36'\n")
    asked.reply(reasoning="Hm.", tool_calls=[{"name": "look", "arguments": {}}])
    asked.reply("She is 36.")
    asked.reply(ADA)
    kernel.run("%%kimi -T look --schema Person -o answer\nWho?")
    shapes = [("tools" in r.body, "response_format" in r.body) for r in asked.requests]
    assert shapes == [(True, False), (True, False), (False, True)]
    assert printed(kernel, "answer.data.age") == 36


def test_an_answer_cut_at_its_limit_is_not_read(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run(PERSON)
    asked.reply('{"name": "A', finish_reason="length")
    ran = kernel.run("%%kimi --schema Person -o answer\nWho?", allow_stdin=True)
    assert "--max-tokens" in ran.record["text/plain"]
    assert printed(kernel, "answer.data") is None
