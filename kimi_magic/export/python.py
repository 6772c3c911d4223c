"""The turn through OpenAI's Python SDK; with tools, their functions and the loop come along."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from string import Template
from typing import Any

from kimi_magic.export.function_sources import Sources, gather
from kimi_magic.export.layout import comment, keywords, stacked
from kimi_magic.export.literals import Python
from kimi_magic.export.program import Program

__all__ = ["write_python"]

TAB = "    "
PYTHON = Python()

CLIENT = """
$client = OpenAI(
$access)

$messages_are
"""

READ_STREAM = """
stream = $client.chat.completions.create(
$request)

reasoned = False
for chunk in stream:
    if not chunk.choices:  # the last one may count the tokens and say no more
        continue
    delta = chunk.choices[0].delta
    # OpenAI's own API has no reasoning: servers call it one thing or the other.
    reasoning = getattr(delta, "reasoning_content", None)
    reasoning = reasoning or getattr(delta, "reasoning", None)
    if reasoning:
        print(reasoning, end="", flush=True)
        reasoned = True
    if delta.content:
        if reasoned:
            print("\\n")
            reasoned = False
        print(delta.content, end="", flush=True)
print()
"""

READ_WHOLE = """
completion = $client.chat.completions.create(
$request)

message = completion.choices[0].message
# OpenAI's own API has no reasoning: servers call it one thing or the other.
reasoning = getattr(message, "reasoning_content", None)
reasoning = reasoning or getattr(message, "reasoning", None)
if reasoning:
    print(reasoning, end="\\n\\n")
print(message.content)
"""

ASK_STREAM = '''
def $ask():
    """Ask, print what streams in, and return the message for the history."""
    reasoning, key, content, calls = "", "reasoning_content", "", {}
    finish_reason = None
    stream = $client.chat.completions.create(
$request    )
    for chunk in stream:
        if not chunk.choices:  # the last one may count the tokens and say no more
            continue
        choice = chunk.choices[0]
        finish_reason = choice.finish_reason or finish_reason
        # OpenAI's own API has no reasoning: servers call it one thing or the other.
        for name in ("reasoning_content", "reasoning"):
            if piece := getattr(choice.delta, name, None):
                print(piece, end="", flush=True)
                reasoning, key = reasoning + piece, name
                break
        if piece := choice.delta.content:
            if reasoning and not content:
                print("\\n")
            print(piece, end="", flush=True)
            content += piece
        for part in choice.delta.tool_calls or []:
            # Some servers number no calls, and send each in one piece.
            index = getattr(part, "index", None)
            call = calls.setdefault(
                part.id if index is None else index,
                {"id": "", "name": "", "arguments": ""},
            )
            call["id"] = part.id or call["id"]
            call["name"] = part.function.name or call["name"]
            call["arguments"] += part.function.arguments or ""
    print()
    if finish_reason == "length":  # the last call may be cut off
        calls = {}
    # The reasoning goes back under the name by which it came.
    message = {"role": "assistant", key: reasoning}
    message["tool_calls"] = [
        {"id": call.pop("id"), "type": "function", "function": call}
        for call in calls.values()
    ]
    if content:  # beside calls an empty one is refused
        message["content"] = content
    return message
'''

ASK_WHOLE = '''
def $ask():
    """Ask, print the answer, and return it as a message for the history."""
    completion = $client.chat.completions.create(
$request    )
    answer = completion.choices[0].message.model_dump(exclude_none=True)
    # OpenAI's own API has no reasoning: servers call it one thing or the other.
    key = "reasoning" if answer.get("reasoning") else "reasoning_content"
    reasoning, content = answer.get(key, ""), answer.get("content")
    calls = answer.get("tool_calls", [])
    if completion.choices[0].finish_reason == "length":  # the last call may be cut off
        calls = []
    # The reasoning goes back under the name by which it came.
    message = {"role": "assistant", key: reasoning, "tool_calls": calls}
    if content:  # beside calls an empty one is refused
        message["content"] = content
    print(*filter(None, (reasoning, content)), sep="\\n\\n")
    return message
'''

RUN = '''
def $run(call):
    """Run a function that the model calls, and tell the model what came of it."""
    function, given = call["function"], {}
    name = function["name"]
    try:
        given = json.loads(function["arguments"] or "{}")
        content = $functions[name](**given)
        if not isinstance(content, str):
            content = json.dumps(content, ensure_ascii=False, default=str)
    except Exception as error:  # noqa: BLE001 - whatever it is, the model is told
        content = f"Error: {type(error).__name__}: {error}"
    print(f"{name}({function['arguments']})\\n{content}\\n")
    if not given:  # servers refuse what is no JSON, in the history as well
        function["arguments"] = "{}"
    return {
        "role": "tool",
        "tool_call_id": call["id"],
        "name": name,
        "content": content,
    }
'''

LOOP = """
$message = $ask()
while $message["tool_calls"]:
    $messages += [$message, *map($run, $message["tool_calls"])]
    $message = $ask()
"""

IN_THREAD = '''
def $in_thread(function):
    """Let a coroutine run where no event loop runs yet: a notebook has one."""

    def call(**arguments):
        with ThreadPoolExecutor() as pool:
            return pool.submit(asyncio.run, function(**arguments)).result()

    return call
'''

OURS = ("client", "messages", "message", "functions", "tools", "ask", "run", "in_thread")


def write_python(program: Program) -> str:
    """Write the program."""
    tools = [tool["function"]["name"] for tool in program.tools]
    sources = gather({tool: f for tool, f in program.functions.items() if tool in tools})
    names = _names(sources)
    parts = [CLIENT, READ_STREAM if program.streams else READ_WHOLE]
    if program.tools:
        parts = [CLIENT, ASK_STREAM if program.streams else ASK_WHOLE, RUN, LOOP]
    values = {
        "access": _access(program),
        "messages_are": PYTHON.assign(names["messages"], program.messages),
        "request": _request(program, names),
    }
    ours = [Template(part).substitute(names, **values) for part in parts]
    bench = list(_bench(program, sources, names))
    _import_what_is_ours(program, sources)
    return stacked(
        [
            comment("#", _about(program, sources)),
            sources.imports.text(),
            *sources.blocks.values(),
            *bench,
            *ours,
        ]
    )


def _names(sources: Sources) -> dict[str, str]:
    """What is ours gets out of the way of the notebook's names."""
    taken = {*sources.blocks, *sources.imports.names()}
    return {
        name: next(n for n in (name, f"kimi_{name}", f"_kimi_{name}") if n not in taken)
        for name in OURS
    }


def _import_what_is_ours(program: Program, sources: Sources) -> None:
    imports = sources.imports
    imports.add("openai", "OpenAI")
    if program.key_env:
        imports.add("os")
    if program.tools:
        imports.add("json")


def _about(program: Program, sources: Sources) -> Iterator[str]:
    packages = " ".join(sources.imports.packages())
    yield from program.about("OpenAI's Python SDK", f"pip install {packages}")
    left = [f"- {name}: {why}" for name, why in sources.missing.items()]
    left += [
        f"- {module}: a module of your own, to lie beside this file"
        for module in sources.imports.own_modules()
    ]
    if left:
        yield "Not taken along from the notebook:"
        yield from left


def _access(program: Program) -> str:
    key = f'os.environ["{program.key_env}"]' if program.key_env else '"none"'
    url, patience = {"base_url": program.base_url}, {"timeout": program.seconds}
    waits = "" if program.streams else keywords(patience, TAB)
    return f"{keywords(url, TAB)}{TAB}api_key={key},\n{waits}"


def _request(program: Program, names: Mapping[str, str]) -> str:
    from openai.resources.chat.completions import Completions

    indent = TAB * (2 if program.tools else 1)
    known = inspect.signature(Completions.create).parameters
    options = {name: value for name, value in program.options.items() if name in known}
    further = {name: value for name, value in program.options.items() if name not in known}
    parts = [
        keywords({"model": options.pop("model")}, indent),
        f"{indent}messages={names['messages']},\n",
        keywords(options, indent),
        f"{indent}tools={names['tools']},\n" if program.tools else "",
        keywords({"extra_body": further}, indent) if further else "",
    ]
    return "".join(parts)


def _bench(program: Program, sources: Sources, names: Mapping[str, str]) -> Iterator[str]:
    """The tools: what runs and what the model is told of it."""
    if not program.tools:
        return
    entries = [_entry(tool["function"]["name"], program, sources, names) for tool in program.tools]
    if any(f"{names['in_thread']}(" in entry for entry in entries):
        sources.imports.add("asyncio")
        sources.imports.add("concurrent.futures", "ThreadPoolExecutor")
        yield Template(IN_THREAD).substitute(names)
    yield f"{names['functions']} = {{\n{''.join(entries)}}}"
    yield PYTHON.assign(names["tools"], program.tools)


def _entry(tool: str, program: Program, sources: Sources, names: Mapping[str, str]) -> str:
    """A line of the dict of functions."""
    key = PYTHON.flat(tool)
    if tool not in sources.functions:
        return f"{TAB}# {key} stays in the notebook: put a function of yours here.\n"
    function, called = program.functions[tool], sources.functions[tool]
    remark = ""
    if sources.has_hints_of(called) and _is_checkable(function):
        sources.imports.add("pydantic", "validate_call")
        called = f"validate_call({called})"
    elif _is_hinted(function):
        remark = f"{TAB}# Its hints are not for JSON: it gets what the model sends.\n"
    if inspect.iscoroutinefunction(function):
        called = f"{names['in_thread']}({called})"
    elif inspect.isgeneratorfunction(function):
        called = f"lambda **given: list({called}(**given))"
    return f"{remark}{TAB}{key}: {called},\n"


def _is_checkable(function: Callable[..., Any]) -> bool:
    """Whether pydantic can read JSON as the hints say, and refuse what does not fit them."""
    import pydantic

    with suppress(Exception):  # hints are code of others, evaluated
        pydantic.validate_call(function)
        return _is_hinted(function)
    return False


def _is_hinted(function: Callable[..., Any]) -> bool:
    with suppress(Exception):  # as above
        return bool(set(getattr(function, "__annotations__", {})) - {"return"})
    return True
