"""The turn through Node's ``openai`` package, as an ES module."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from kimi_magic.export.layout import comment
from kimi_magic.export.literals import JavaScript
from kimi_magic.export.program import Program

__all__ = ["write_node"]

TAB = "  "
JAVASCRIPT = JavaScript()

# Without a key of its own the package would take OpenAI's from the environment.
KEY = """
const apiKey = process.env.$variable;
if (!apiKey) throw new Error("$variable is not set.");
"""

READ_STREAM = """
let reasoned = false;
${before}for await (const chunk of stream) {
  const delta = chunk.choices?.[0]?.delta ?? {};
  // OpenAI's own API has no reasoning: servers call it one thing or the other.
  const reasoning = delta.reasoning_content || delta.reasoning;
  if (reasoning) {
    process.stdout.write(reasoning);
    reasoned = true;
  }
  if (delta.content) {
    if (reasoned) process.stdout.write("\\n\\n");
    reasoned = false;
    process.stdout.write(delta.content);
  }
${gather}}
process.stdout.write("\\n");
"""

BEFORE = "const calls = new Map();\n"
GATHER = """\
  for (const part of delta.tool_calls ?? []) {
    // Some servers number no calls, and send each in one piece.
    const place = part.index ?? part.id;
    const call = calls.get(place) ?? { name: "", arguments: "" };
    call.name = part.function?.name || call.name;
    call.arguments += part.function?.arguments ?? "";
    calls.set(place, call);
  }
"""
SHOW_CALLS = """
for (const call of calls.values()) {
  console.log(`The model calls ${call.name}(${call.arguments})`);
}
"""

READ_WHOLE = """
const message = completion.choices[0].message;
// OpenAI's own API has no reasoning: servers call it one thing or the other.
const reasoning = message.reasoning_content || message.reasoning;
if (reasoning) console.log(reasoning + "\\n");
if (message.content) console.log(message.content);
"""
SHOW_CALLS_WHOLE = """
for (const { function: call } of message.tool_calls ?? []) {
  console.log(`The model calls ${call.name}(${call.arguments})`);
}
"""


def write_node(program: Program) -> str:
    """Write the program."""
    about = program.about("Node", "npm install openai")
    parts = [
        comment("//", [*about, *program.unrun()]),
        'import OpenAI from "openai";',
        Template(KEY).substitute(variable=program.key_env) if program.key_env else "",
        _client(program),
        f"const tools = {JAVASCRIPT.write(program.tools)};" if program.tools else "",
        f"const messages = {JAVASCRIPT.write(program.messages)};",
        _request(program),
        _reading(program),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _client(program: Program) -> str:
    options = _lines({"baseURL": program.base_url})
    options += f"{TAB}apiKey,\n" if program.key_env else _lines({"apiKey": "none"})
    if not program.streams:
        options += _lines({"timeout": round(program.seconds * 1000)})
    return f"const client = new OpenAI({{\n{options}}});"


def _request(program: Program) -> str:
    parts = [
        _lines({"model": program.model}),
        f"{TAB}messages,\n",
        _lines({name: value for name, value in program.options.items() if name != "model"}),
        f"{TAB}tools,\n" if program.tools else "",
    ]
    answer = "stream" if program.streams else "completion"
    return f"const {answer} = await client.chat.completions.create({{\n{''.join(parts)}}});"


def _reading(program: Program) -> str:
    if not program.streams:
        return READ_WHOLE + (SHOW_CALLS_WHOLE if program.tools else "")
    before, gather = (BEFORE, GATHER) if program.tools else ("", "")
    reading = Template(READ_STREAM).substitute(before=before, gather=gather)
    return reading + (SHOW_CALLS if program.tools else "")


def _lines(values: Mapping[str, Any]) -> str:
    return "".join(
        f"{TAB}{name}: {JAVASCRIPT.write(value, TAB, len(name) + 3)},\n"
        for name, value in values.items()
    )
