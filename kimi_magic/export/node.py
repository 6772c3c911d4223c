"""A program for Node's ``openai`` package, as an ES module."""

from __future__ import annotations

from string import Template

from kimi_magic.export.formatting import JAVASCRIPT, comment
from kimi_magic.export.program import Program

__all__ = ["write_node"]

TAB = JAVASCRIPT.tab

# Without a key the package would send OPENAI_API_KEY, which belongs to another server.
KEY = """
const apiKey = process.env.$variable;
if (!apiKey) throw new Error("$variable is not set.");
"""

READ_STREAM = """
let reasoned = false;
${before}for await (const chunk of stream) {
  const delta = chunk.choices?.[0]?.delta ?? {};
  // Not in OpenAI's own API; servers use one of two names.
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
    // Some servers send no index, but the id with every piece.
    const key = part.index ?? part.id;
    const call = calls.get(key) ?? { name: "", arguments: "" };
    call.name = part.function?.name || call.name;
    call.arguments += part.function?.arguments ?? "";
    calls.set(key, call);
  }
"""
SHOW_CALLS = """
for (const call of calls.values()) {
  console.log(`The model calls ${call.name}(${call.arguments})`);
}
"""

READ_WHOLE = """
const message = completion.choices[0].message;
// Not in OpenAI's own API; servers use one of two names.
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
    """Return the source of the program."""
    parts = [
        comment("//", program.opening("Node", "npm install openai")),
        'import OpenAI from "openai";',
        Template(KEY).substitute(variable=program.key_env) if program.key_env else "",
        _header_checks(program),
        _client(program),
        f"const tools = {JAVASCRIPT.write(program.tools)};" if program.tools else "",
        f"const messages = {JAVASCRIPT.write(program.messages)};",
        _request(program),
        _reading(program),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _header_checks(program: Program) -> str:
    variables = dict.fromkeys(header.variable for header in program.headers)
    return "\n".join(
        f'if (!process.env.{name}) throw new Error("{name} is not set.");' for name in variables
    )


def _client(program: Program) -> str:
    options = JAVASCRIPT.keywords({"baseURL": program.base_url})
    options += f"{TAB}apiKey,\n" if program.key_env else f'{TAB}apiKey: "none",\n'
    options += JAVASCRIPT.headers("defaultHeaders", program.headers)
    if not program.streams:
        options += JAVASCRIPT.keywords({"timeout": program.timeout * 1000})
    return f"const client = new OpenAI({{\n{options}}});"


def _request(program: Program) -> str:
    options = program.options
    parts = [
        JAVASCRIPT.keywords({"model": options.pop("model")}),
        f"{TAB}messages,\n",
        JAVASCRIPT.keywords(options),
        f"{TAB}tools,\n" if program.tools else "",
    ]
    result = "stream" if program.streams else "completion"
    return f"const {result} = await client.chat.completions.create({{\n{''.join(parts)}}});"


def _reading(program: Program) -> str:
    if not program.streams:
        return READ_WHOLE + (SHOW_CALLS_WHOLE if program.tools else "")
    before, gather = (BEFORE, GATHER) if program.tools else ("", "")
    reading = Template(READ_STREAM).substitute(before=before, gather=gather)
    return reading + (SHOW_CALLS if program.tools else "")
