"""A program for OpenAI's Python SDK, with the tools' functions and the loop that calls them.

For an endpoint that speaks the Messages API it is one for Anthropic's SDK.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from string import Template
from typing import Any

from kimi_magic.export import anthropic_python
from kimi_magic.export.attempts import HEAVY_NAMES, aggregating, template_of
from kimi_magic.export.formatting import PYTHON, comment, join_parts
from kimi_magic.export.function_sources import Sources, gather
from kimi_magic.export.named_values import NAMED, names_by_parameter
from kimi_magic.export.program import Heavy, Program

__all__ = ["write_python"]

TAB = PYTHON.tab
Functions = Mapping[str, Callable[..., Any]]

CLIENT = """
$client = OpenAI(
$access)

$messages_are
"""

# The templates below are string.Template: $name, and no escaping of braces.
READ_STREAM = """
stream = $client.chat.completions.create(
$request)

reasoned = False
for chunk in stream:
    if not chunk.choices:  # the last one may hold nothing but the usage
        continue
    delta = chunk.choices[0].delta
    # Not in OpenAI's own API; servers use one of two names.
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
# Not in OpenAI's own API; servers use one of two names.
reasoning = getattr(message, "reasoning_content", None)
reasoning = reasoning or getattr(message, "reasoning", None)
if reasoning:
    print(reasoning, end="\\n\\n")
print(message.content)
"""

ASK_STREAM = '''
def $ask($given):
    """$purpose"""
    reasoning, key, content, calls = "", "reasoning_content", "", {}
    finish_reason = None
    stream = $client.chat.completions.create(
$request    )
    for chunk in stream:
        if not chunk.choices:  # the last one may hold nothing but the usage
            continue
        choice = chunk.choices[0]
        finish_reason = choice.finish_reason or finish_reason
        # Not in OpenAI's own API; servers use one of two names.
        for name in ("reasoning_content", "reasoning"):
            if piece := getattr(choice.delta, name, None):
$show_piece                reasoning, key = reasoning + piece, name
                break
        if piece := choice.delta.content:
$show_content            content += piece
        for part in choice.delta.tool_calls or []:
            # Some servers send no index, but the id with every piece.
            index = getattr(part, "index", None)
            call = calls.setdefault(
                part.id if index is None else index,
                {"id": "", "name": "", "arguments": ""},
            )
            call["id"] = part.id or call["id"]
            call["name"] = part.function.name or call["name"]
            call["arguments"] += part.function.arguments or ""
${show_end}    if finish_reason == "length":  # the last call may be cut off
        calls = {}
    # Return the reasoning under the name it came with.
    message = {"role": "assistant", key: reasoning}
    message["tool_calls"] = [
        {"id": call.pop("id"), "type": "function", "function": call}
        for call in calls.values()
    ]
    if content:  # servers refuse empty content beside calls
        message["content"] = content
    return message
'''

ASK_WHOLE = '''
def $ask($given):
    """$purpose"""
    completion = $client.chat.completions.create(
$request    )
    answer = completion.choices[0].message.model_dump(exclude_none=True)
    # Not in OpenAI's own API; servers use one of two names.
    key = "reasoning" if answer.get("reasoning") else "reasoning_content"
    reasoning, content = answer.get(key, ""), answer.get("content")
    calls = answer.get("tool_calls", [])
    if completion.choices[0].finish_reason == "length":  # the last call may be cut off
        calls = []
    # Return the reasoning under the name it came with.
    message = {"role": "assistant", key: reasoning, "tool_calls": calls}
    if content:  # servers refuse empty content beside calls
        message["content"] = content
$show_answer    return message
'''

RUN = '''
def $run(call):
    """Run the function that the model calls, and return its result as a message."""
    function, given = call["function"], {}
    name = function["name"]
    try:
        given = json.loads(function["arguments"] or "{}")
$confirm        content = $functions[name](**given)
        if not isinstance(content, str):
            content = json.dumps(content, ensure_ascii=False, default=str)
    except Exception as error:  # noqa: BLE001 - the model is told of any failure
        content = f"Error: {type(error).__name__}: {error}"
    print(f"{name}({function['arguments']})\\n{content}\\n")
    if not given:  # servers refuse broken JSON in the history
        function["arguments"] = "{}"
    return {
        "role": "tool",
        "tool_call_id": call["id"],
        "name": name,
        "content": content,
    }
'''

# As in the notebook, a person says yes to each of these calls.
CONFIRM = """\
        question = f"Run {name}({function['arguments']})? [y/N] "
        if name in $confirmed and input(question).strip().lower() != "y":
            raise PermissionError("the user declined this call")
"""

LOOP = """
$message = $ask()
while $message["tool_calls"]:
    $messages += [$message, *map($run, $message["tool_calls"])]
    $message = $ask()
"""

# What the two above print, unless several of them run at once.
SHOW = {
    "show_piece": '                print(piece, end="", flush=True)\n',
    "show_content": """\
            if reasoning and not content:
                print("\\n")
            print(piece, end="", flush=True)
""",
    "show_end": "    print()\n",
    "show_answer": '    print(*filter(None, (reasoning, content)), sep="\\n\\n")\n',
}

ATTEMPT = '''
def $attempt(number):
    """Return the reasoning and the answer of one attempt; None for none."""
    reasoning = answer = ""
    try:
$take
    except OpenAIError as error:
        print(f"Attempt {number + 1} failed: {error}")
        return None
    print(f"Attempt {number + 1} has ended.")
    return (reasoning, answer) if answer.strip() else None
'''

TAKE_STREAM = """\
        stream = $client.chat.completions.create(
$request        )
        for chunk in stream:
            if not chunk.choices:  # the last one may hold nothing but the usage
                continue
            delta = chunk.choices[0].delta
            # Not in OpenAI's own API; servers use one of two names.
            piece = getattr(delta, "reasoning_content", None)
            reasoning += piece or getattr(delta, "reasoning", None) or ""
            answer += delta.content or ""\
"""

TAKE_WHOLE = """\
        completion = $client.chat.completions.create(
$request        )
        message = completion.choices[0].message
        # Not in OpenAI's own API; servers use one of two names.
        reasoning = getattr(message, "reasoning_content", None)
        reasoning = reasoning or getattr(message, "reasoning", None) or ""
        answer = message.content or ""\
"""

TAKE_STEPS = """\
        history, message = list($messages), None
        while message is None or message["tool_calls"]:
            message = $ask(history, number)
            for name in ("reasoning_content", "reasoning"):
                reasoning += message.get(name, "")
            answer = message.get("content", "")
            history.append(message)
            for call in message["tool_calls"]:
                with $lock:  # one at a time, as in the notebook
                    result = $run(call)
                history.append(result)
                function = call["function"]
                called = f"{function['name']}({function['arguments']})"
                reasoning += f"\\n\\n[Called {called}: {result['content']}]\\n\\n"\
"""

IN_THREAD = '''
def $in_thread(function):
    """Run a coroutine in a thread, as a notebook already runs an event loop."""

    def call(**arguments):
        with ThreadPoolExecutor() as pool:
            return pool.submit(asyncio.run, function(**arguments)).result()

    return call
'''

SPREAD = '''
def $spread(function, *in_order, rest="", further=""):
    """Call a function of which not all parameters can be given by name."""

    def call(**given):
        values = [given.pop(name) for name in in_order if name in given]
        values += given.pop(rest, ())
        return function(*values, **given.pop(further, {}), **given)

    return call
'''

_KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)

SERVED = f"{TAB}# {{tool}} is {{place}}: `mcp.Client`, of the package mcp, calls it.\n"

NAMES = (
    *("client", "messages", "message", "functions", "tools", "ask", "run", "in_thread"),
    *("variables", "named", "spread"),
    *HEAVY_NAMES,
)


def write_python(program: Program) -> str:
    """Return the source of the program."""
    offered = [tool["function"]["name"] for tool in program.tools]
    functions = {name: f for name in offered if (f := program.functions.get(name)) is not None}
    named = {
        name: found
        for tool in program.tools
        if (name := tool["function"]["name"]) in functions
        and (
            found := names_by_parameter(
                tool["function"]["parameters"], functions[name], program.called
            )
        )
    }
    sources = gather(functions, named)
    names = _free_names(sources)
    if program.encoded is not None:
        asking = _confirmed(program, functions)
        main = list(anthropic_python.messages_parts(program, names, asking))
    elif program.heavy:
        main = list(_heavy_parts(program, program.heavy, names, sources, functions))
    else:
        parts = [CLIENT, READ_STREAM if program.streams else READ_WHOLE]
        if program.tools:
            parts = [CLIENT, ASK_STREAM if program.streams else ASK_WHOLE, RUN, LOOP]
        values = {
            "access": _access(program),
            "messages_are": PYTHON.assign(names["messages"], program.messages),
            "request": _request(program, names),
            "given": "",
            "purpose": "Ask, print the answer, and return it for the history.",
            "confirm": _confirm(program, functions),
        }
        main = [Template(part).substitute(names, **values, **SHOW) for part in parts]
    definitions = list(_tool_definitions(program, functions, sources, names, named))
    if program.encoded is None:
        sources.imports.add("openai", "OpenAI")
    else:
        sources.imports.add(anthropic_python.PACKAGE, anthropic_python.CLIENT_CLASS)
    asked = (program, program.heavy.judge) if program.heavy else (program,)
    if any(each.key_env or each.headers for each in asked):
        sources.imports.add("os")
    if program.tools:
        sources.imports.add("json")
    opening = comment("#", _opening(program, sources))
    gathered = [*sources.placeholders.values(), *sources.blocks.values()]
    return join_parts([opening, sources.imports.text(), *gathered, *definitions, *main])


def _free_names(sources: Sources) -> dict[str, str]:
    """Choose names for our own variables and functions that the notebook's code does not use."""
    taken = {*sources.blocks, *sources.placeholders, *sources.imports.names()}
    return {
        name: next(n for n in (name, f"kimi_{name}", f"_kimi_{name}") if n not in taken)
        for name in NAMES
    }


def _opening(program: Program, sources: Sources) -> Iterator[str]:
    packages = " ".join(sources.imports.packages())
    sdk = "OpenAI's Python SDK" if program.encoded is None else anthropic_python.NAME
    yield from program.opening(sdk, f"pip install {packages}", runs_tools=True, runs_attempts=True)
    missing = [f"- {name}: {reason}" for name, reason in sources.missing.items()]
    missing += [
        f"- {module}: a module of your own; put it beside this file"
        for module in sources.imports.own_modules()
    ]
    if missing:
        yield "Not exported from the notebook:"
        yield from missing


def _access(program: Program) -> str:
    key = f'os.environ["{program.key_env}"]' if program.key_env else '"none"'
    timeout = "" if program.streams else PYTHON.keywords({"timeout": program.timeout})
    base_url = PYTHON.keywords({"base_url": program.base_url})
    headers = PYTHON.headers("default_headers", program.headers)
    return f"{base_url}{TAB}api_key={key},\n{headers}{timeout}"


def _heavy_parts(
    program: Program,
    heavy: Heavy,
    names: Mapping[str, str],
    sources: Sources,
    functions: Functions,
) -> Iterator[str]:
    """Yield the parts of a program of several attempts, from its clients to its last answer."""
    sources.imports.add("openai", "OpenAIError")
    values = {
        "access": _access(program),
        "messages_are": PYTHON.assign(names["messages"], program.messages),
        "given": "history, number",
        "purpose": "Ask, and return the answer as a message for the history.",
        **dict.fromkeys(SHOW, ""),
    }
    judge, judge_names = heavy.judge, dict(names)
    yield Template(CLIENT).substitute(names, **values)
    if _access(judge) != values["access"]:
        judge_names["client"] = names["judge"]
        own = "\n$client = OpenAI(\n$access)\n"
        yield Template(own).substitute(judge_names, access=_access(judge))
    yield template_of(heavy, names)
    request = _request(program, names, heavy=True)
    if program.tools:
        sources.imports.add("threading", "Lock")
        yield f"{names['lock']} = Lock()"
        ask = ASK_STREAM if program.streams else ASK_WHOLE
        yield Template(ask).substitute(names, request=request, **values)
        yield Template(RUN).substitute(names, confirm=_confirm(program, functions))
        take = Template(TAKE_STEPS).substitute(names)
    else:
        take = Template(TAKE_STREAM if program.streams else TAKE_WHOLE).substitute(
            names, request=request
        )
    yield Template(ATTEMPT).substitute(names, take=take)
    yield from aggregating(heavy, program, names, sources.imports)
    last = Template(READ_STREAM if judge.streams else READ_WHOLE)
    yield last.substitute(judge_names, request=_request(judge, names))


def _request(program: Program, names: Mapping[str, str], *, heavy: bool = False) -> str:
    from openai.resources.chat.completions import Completions

    levels = 2 if program.tools else 1
    levels = 3 if heavy and not program.tools else levels
    indent = TAB * levels
    messages = "history" if heavy and program.tools else names["messages"]
    seed = program.options.get("seed")
    options, seeds = program.options, ""
    if heavy and isinstance(seed, int):
        del options["seed"]
        seeds = f"{indent}seed={seed} + number,\n"
    tools = f"{indent}tools={names['tools']},\n" if program.tools else ""
    return PYTHON.request(Completions.create, options, indent, messages, seeds, tools)


def _confirm(program: Program, functions: Functions) -> str:
    """Return the lines that ask a person before the calls of some tools."""
    asking = _confirmed(program, functions)
    return Template(CONFIRM).substitute(confirmed=asking) if asking else ""


def _confirmed(program: Program, functions: Functions) -> str:
    """Return the names of those tools as a tuple; "" for none."""
    asking = sorted(program.confirmed & functions.keys())
    return f"({', '.join(map(PYTHON.flat, asking))},)" if asking else ""


def _tool_definitions(
    program: Program,
    functions: Functions,
    sources: Sources,
    names: Mapping[str, str],
    named: Mapping[str, Mapping[str, Sequence[str]]],
) -> Iterator[str]:
    """Yield the dict of functions to run, and the schemas to send."""
    if not program.tools:
        return
    offered = (tool["function"]["name"] for tool in program.tools)
    entries = [
        SERVED.format(tool=PYTHON.flat(tool), place=program.served[tool])
        if tool in program.served
        else _entry(tool, functions, sources, names, named.get(tool, ()))
        for tool in offered
    ]
    if any(f"{names['named']}(" in entry for entry in entries):
        listed = (paths for tool in sources.functions for paths in named.get(tool, {}).values())
        paths = sorted({path for group in listed for path in group})
        lines = "".join(f"{TAB}{PYTHON.flat(path)}: {path},\n" for path in paths)
        yield f"{names['variables']} = {{\n{lines}}}"
        yield Template(NAMED).substitute(names)
    if any(f"{names['spread']}(" in entry for entry in entries):
        yield Template(SPREAD).substitute(names)
    if any(f"{names['in_thread']}(" in entry for entry in entries):
        sources.imports.add("asyncio")
        sources.imports.add("concurrent.futures", "ThreadPoolExecutor")
        yield Template(IN_THREAD).substitute(names)
    yield f"{names['functions']} = {{\n{''.join(entries)}}}"
    yield PYTHON.assign(names["tools"], (program.encoded or program.body)["tools"])


def _entry(
    tool: str,
    functions: Functions,
    sources: Sources,
    names: Mapping[str, str],
    by_name: Iterable[str],
) -> str:
    """Return one line of the dict of functions; ``by_name`` are parameters that name variables."""
    key = PYTHON.flat(tool)
    if tool not in sources.functions:
        return f"{TAB}# {key} stays in the notebook: add a function of your own here.\n"
    function, expression = functions[tool], sources.functions[tool]
    remark = ""
    if sources.has_hints_of(expression) and _can_validate(function):
        sources.imports.add("pydantic", "validate_call")
        expression = f"validate_call({expression})"
    elif _has_hints(function):
        remark = f"{TAB}# Gets the arguments unchecked: its type hints are not for JSON.\n"
    expression = _spread(expression, function, names["spread"])
    if by_name:
        expression = f"{names['named']}({', '.join([expression, *map(PYTHON.flat, by_name)])})"
    # The loop of the program is synchronous, and a result has to be JSON.
    if inspect.iscoroutinefunction(function):
        expression = f"{names['in_thread']}({expression})"
    elif inspect.isgeneratorfunction(function):
        expression = f"lambda **given: list({expression}(**given))"
    return f"{remark}{TAB}{key}: {expression},\n"


def _spread(expression: str, function: Callable[..., Any], spread: str) -> str:
    """Return an expression that takes all arguments by name, as the loop of the program has them.

    Such are ``x, /``, ``*values`` and ``**further``, which a call has as a list and an object.
    """
    parameters: Sequence[inspect.Parameter] = ()
    with suppress(TypeError, ValueError):
        parameters = list(inspect.signature(function).parameters.values())
    of = {kind: [each.name for each in parameters if each.kind is kind] for kind in _KINDS}
    alone, plain, rest, further = of.values()
    if not (alone or rest or further):
        return expression
    given = [expression, *map(PYTHON.flat, [*alone, *(plain if rest else ())])]
    given += [f"rest={PYTHON.flat(name)}" for name in rest]
    given += [f"further={PYTHON.flat(name)}" for name in further]
    return f"{spread}({', '.join(given)})"


def _can_validate(function: Callable[..., Any]) -> bool:
    """Return True if pydantic can read JSON arguments by the function's type hints."""
    import pydantic

    with suppress(Exception):  # evaluates type hints, which is user code
        pydantic.validate_call(function)
        return _has_hints(function)
    return False


def _has_hints(function: Callable[..., Any]) -> bool:
    with suppress(Exception):  # as above
        return bool(set(getattr(function, "__annotations__", {})) - {"return"})
    return True
