"""The parts of a Python program for Anthropic's SDK: its client, its requests, its tool loop."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from string import Template
from typing import Any

from kimi_magic.export.formatting import PYTHON
from kimi_magic.export.program import Program

__all__ = ["CLIENT_CLASS", "NAME", "PACKAGE", "VERSION", "messages_parts"]

NAME, PACKAGE, CLIENT_CLASS = "Anthropic's Python SDK", "anthropic", "Anthropic"
# What other servers implement; the SDK sends a later version, which takes no temperature.
VERSION = "2023-06-01"
TAB = PYTHON.tab

CLIENT = """
$client = Anthropic(
$access)

$messages_are
"""

# The templates below are string.Template: $name, and no escaping of braces.
PRINT_EVENTS = """\
reasoned = False
for event in stream:
    if event.type == "thinking":
        print(event.thinking, end="", flush=True)
        reasoned = True
    elif event.type == "text":
        if reasoned:
            print("\\n")
            reasoned = False
        print(event.text, end="", flush=True)
print()
"""

PRINT_BLOCKS = """\
for block in $answer.content:
    if block.type == "thinking":
        print(block.thinking, end="\\n\\n")
    elif block.type == "text":
        print(block.text)
"""

READ_STREAM = f"""
with $client.messages.stream(
$request) as stream:
{textwrap.indent(PRINT_EVENTS, TAB)}"""

READ_WHOLE = f"""
$answer = $client.messages.create(
$request)

{PRINT_BLOCKS}"""

ASK_STREAM = f'''
def $ask():
    """Ask, print the answer, and return it for the history."""
    with $client.messages.stream(
$request    ) as stream:
{textwrap.indent(PRINT_EVENTS, TAB * 2)}        return stream.get_final_message()
'''

ASK_WHOLE = f'''
def $ask():
    """Ask, print the answer, and return it for the history."""
    $answer = $client.messages.create(
$request    )
{textwrap.indent(PRINT_BLOCKS, TAB)}    return $answer
'''

RUN = '''
def $run(call):
    """Run the function that the model calls, and return its result as a block."""
    name, failed = call.name, False
    try:
$confirm        content = $functions[name](**call.input)
        if not isinstance(content, str):
            content = json.dumps(content, ensure_ascii=False, default=str)
    except Exception as error:  # noqa: BLE001 - the model is told of any failure
        content, failed = f"Error: {type(error).__name__}: {error}", True
    print(f"{name}({json.dumps(call.input, ensure_ascii=False)})\\n{content}\\n")
    return {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": content,
        "is_error": failed,
    }
'''

# As in the notebook, a person says yes to each of these calls.
CONFIRM = """\
        question = f"Run {name}({call.input})? [y/N] "
        if name in $confirmed and input(question).strip().lower() != "y":
            raise PermissionError("the user declined this call")
"""

LOOP = """
$message = $ask()
while $message.stop_reason == "tool_use":
    calls = [block for block in $message.content if block.type == "tool_use"]
    # The blocks of thinking go back as they came.
    $messages += [
        {"role": "assistant", "content": $message.content},
        {"role": "user", "content": [*map($run, calls)]},
    ]
    $message = $ask()
"""


def messages_parts(program: Program, names: Mapping[str, str], confirmed: str) -> Iterator[str]:
    """Yield the parts of the program, from its client to its last answer.

    ``confirmed`` is a tuple, as source text, of the tools that ask a person; "" for none.
    """
    body = dict(program.encoded or {})
    values = {
        "answer": "answer" if program.tools else names["message"],
        "access": _access(program),
        "messages_are": PYTHON.assign(names["messages"], body["messages"]),
        "request": _request(program, body, names),
        "confirm": Template(CONFIRM).substitute(confirmed=confirmed) if confirmed else "",
    }
    parts = [CLIENT, READ_STREAM if program.streams else READ_WHOLE]
    if program.tools:
        parts = [CLIENT, ASK_STREAM if program.streams else ASK_WHOLE, RUN, LOOP]
    yield from (Template(part).substitute(names, **values) for part in parts)


def _access(program: Program) -> str:
    key = f'os.environ["{program.key_env}"]' if program.key_env else '"none"'
    base_url = PYTHON.keywords({"base_url": program.base_url})
    more = [*program.key_headers[1:], *program.headers]  # the SDK sends the first itself
    headers = PYTHON.headers("default_headers", more, {"anthropic-version": VERSION})
    # Without a time-out, the SDK refuses a long answer that is not streamed.
    timeout = PYTHON.keywords({"timeout": program.timeout})
    return f"{base_url}{TAB}api_key={key},\n{headers}{timeout}"


def _request(program: Program, body: Mapping[str, Any], names: Mapping[str, str]) -> str:
    from anthropic.resources.messages import Messages

    indent = TAB * (2 if program.tools else 1)
    written = {"messages", "stream"} | ({"tools"} if program.tools else set())
    fields = {name: value for name, value in body.items() if name not in written}
    tools = f"{indent}tools={names['tools']},\n" if program.tools else ""
    method = Messages.stream if program.streams else Messages.create
    return PYTHON.request(method, fields, indent, names["messages"], tools)
