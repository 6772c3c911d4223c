"""A program for Node's ``openai`` package, as an ES module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from string import Template

from kimi_magic.export.formatting import JAVASCRIPT, comment
from kimi_magic.export.program import Heavy, Program

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


ATTEMPTS = r"""
// Returns the reasoning and the answer of one attempt; null for none.
async function attempt(number) {
  let [reasoning, answer] = ["", ""];
  try {
$take
  } catch (error) {
    console.log(`Attempt $${number + 1} failed: $${error}`);
    return null;
  }
  console.log(`Attempt $${number + 1} has ended.`);
  return answer.trim() ? { reasoning, answer } : null;
}

// Cuts a text in its middle, and keeps it from ending the element that it is in.
function quoted(text, limit) {
  const whole = text.replace(/<(?=\/?(?:attempt|reasoning|answer)\b)/gi, "&lt;");
  const half = Math.floor(limit / 2);
  if (whole.length <= limit) return whole;
  return whole.slice(0, half) + "\n[...]\n" + whole.slice(whole.length - half);
}

const all = await Promise.all(Array.from({ length: $count }, (_, n) => attempt(n)));
const attempts = all.filter(Boolean);
if (attempts.length < $enough) throw new Error("Too few attempts gave an answer.");
// In an order that means nothing.
for (let i = attempts.length - 1; i > 0; i--) {
  const j = Math.floor(Math.random() * (i + 1));
  [attempts[i], attempts[j]] = [attempts[j], attempts[i]];
}
const used = attempts.reduce((sum, { answer }) => sum + answer.length, 0);
const room = Math.max($chars - used, 0) / attempts.length;
const places = {
  count: String(attempts.length),
  problem: $problem,
  attempts: attempts
    .map(
      ({ reasoning, answer }, n) =>
        `<attempt number="$${n + 1}">\n` +
        `<reasoning>\n$${quoted(reasoning, room)}\n</reasoning>\n` +
        `<answer>\n$${quoted(answer, $chars / attempts.length)}\n</answer>\n</attempt>`,
    )
    .join("\n\n"),
};
const text = template.replace(
  /\{(count|problem|attempts)\}/g,
  (_, name) => places[name],
);
messages[messages.length - 1] = { role: "user", content: $content };
"""
TAKE_STREAM = """\
    const stream = await client.chat.completions.create({
$request    });
    for await (const chunk of stream) {
      const delta = chunk.choices?.[0]?.delta ?? {};
      // Not in OpenAI's own API; servers use one of two names.
      reasoning += delta.reasoning_content || delta.reasoning || "";
      answer += delta.content ?? "";
    }\
"""
TAKE_WHOLE = """\
    const completion = await client.chat.completions.create({
$request    });
    const message = completion.choices[0].message;
    // Not in OpenAI's own API; servers use one of two names.
    reasoning = message.reasoning_content || message.reasoning || "";
    answer = message.content ?? "";\
"""


def write_node(program: Program) -> str:
    """Return the source of the program."""
    if program.heavy and not program.tools:  # with tools an attempt would come to no answer
        return _joined(_heavy_parts(program, program.heavy))
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
    return _joined(parts)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _heavy_parts(program: Program, heavy: Heavy) -> Iterator[str]:
    """Yield the parts of a program of several attempts."""
    judge = heavy.judge
    yield comment("//", program.opening("Node", "npm install openai", runs_attempts=True))
    yield 'import OpenAI from "openai";'
    for variable, key in {judge.key_env: "judgeKey", program.key_env: "apiKey"}.items():
        if variable:
            yield Template(KEY).substitute(variable=variable).replace("apiKey", key)
    yield _header_checks(program, judge)
    yield _client(program)
    own = _client(judge)
    client = "client" if own == _client(program) else "judge"
    if client == "judge":
        key = "apiKey" if judge.key_env == program.key_env else "apiKey: judgeKey"
        own = own.replace(f"{TAB}apiKey,\n", f"{TAB}{key},\n")
        yield own.replace("const client", "const judge")
    yield f"const messages = {JAVASCRIPT.write(program.messages)};"
    yield f"const template = {JAVASCRIPT.write(heavy.prompt)};"
    seed = program.options.get("seed")
    indent = TAB * 3
    options = {n: v for n, v in program.options.items() if n != "seed" or not isinstance(v, int)}
    seeds = f"{indent}seed: {seed} + number,\n" if isinstance(seed, int) else ""
    request = f"{indent}messages,\n{JAVASCRIPT.keywords(options, indent)}{seeds}"
    take = Template(TAKE_STREAM if program.streams else TAKE_WHOLE).substitute(request=request)
    last = "messages[messages.length - 1].content"
    problem, content = last, "text"
    asked = program.messages[-1].get("content")
    if not isinstance(asked, str):
        problem = f'{last}.map((part) => part.text ?? "").join("")'
        pictures = f'...{last}.filter((part) => part.type !== "text")'
        content = f'[{pictures}, {{ type: "text", text }}]'
    yield Template(ATTEMPTS).substitute(
        take=take,
        count=heavy.count,
        enough=heavy.enough,
        chars=heavy.chars,
        problem=problem,
        content=content,
    )
    yield _request(judge).replace("await client.", f"await {client}.", 1)
    yield _reading(judge)


def _header_checks(*programs: Program) -> str:
    variables = dict.fromkeys(header.variable for each in programs for header in each.headers)
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
