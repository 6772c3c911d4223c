"""A program for LangChain: ChatNVIDIA for NVIDIA's endpoint, ChatDeepSeek for all others.

ChatOpenAI drops the reasoning. ChatDeepSeek is built on the same base class and keeps it,
whichever of its two names the server uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from string import Template
from typing import Any

from kimi_magic.export.attempts import HEAVY_NAMES, aggregating, template_of
from kimi_magic.export.formatting import PYTHON, comment, join_parts
from kimi_magic.export.imports import Imports
from kimi_magic.export.program import Heavy, Program

__all__ = ["write_langchain"]

COMPLETE_HISTORY = '''
class ChatReasoner(ChatDeepSeek):
    """Sends the reasoning and tool names of the history, which LangChain leaves out."""

    def _get_request_payload(self, input_, *, stop=None, **kwargs):
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        messages = self._convert_input(input_).to_messages()
        for sent, message in zip(payload["messages"], messages):
            sent |= message.additional_kwargs
        return payload
'''

READ_STREAM = """
${before}reasoned = False
for chunk in $call:
    if reasoning := chunk.additional_kwargs.get("reasoning_content"):
        print(reasoning, end="", flush=True)
        reasoned = True
    if chunk.content:
        if reasoned:
            print("\\n")
            reasoned = False
        print(chunk.content, end="", flush=True)
${gather}print()
"""

BEFORE = "reply = None\n"
GATHER = """\
    if chunk.tool_call_chunks:  # a call may come in pieces; chunks add up
        reply = chunk if reply is None else reply + chunk
"""

READ_WHOLE = """
reply = $call
if reasoning := reply.additional_kwargs.get("reasoning_content"):
    print(reasoning, end="\\n\\n")
print(reply.content)
"""

ATTEMPT = '''
def attempt(number):
    """Return the reasoning and the answer of one attempt; None for none."""
    try:
$take
    except Exception as error:  # noqa: BLE001 - the packages have no class in common
        print(f"Attempt {number + 1} failed: {error}")
        return None
    print(f"Attempt {number + 1} has ended.")
    reasoning = reply.additional_kwargs.get("reasoning_content") or ""
    return (reasoning, reply.content) if reply.content.strip() else None
'''

TAKE_STREAM = """\
        reply = None
        for chunk in $call:
            reply = chunk if reply is None else reply + chunk
        if reply is None:
            return None\
"""

TAKE_WHOLE = """\
        reply = $call\
"""

SHOW_CALLS = """
for call in [*reply.tool_calls, *reply.invalid_tool_calls] if reply else []:
    print(f"The model calls {call['name']}({call['args']})")
"""


def write_langchain(program: Program) -> str:
    """Return the source of the program."""
    at_nvidia = _is_nvidia(program)
    package = _PACKAGES[at_nvidia]
    # Its calls are shown and not made, so an attempt with tools would come to no answer.
    heavy = None if program.tools else program.heavy
    messages = [_message(message, at_nvidia=at_nvidia) for message in program.messages]
    complete = at_nvidia or not any("additional_kwargs" in message for message in messages)
    kind = "ChatNVIDIA" if at_nvidia else "ChatDeepSeek" if complete else "ChatReasoner"
    imports = Imports()
    if program.key_env or program.headers:
        imports.add("os")
    for nvidia in {at_nvidia, _is_nvidia(heavy.judge)} if heavy else {at_nvidia}:
        if nvidia:
            imports.add("langchain_nvidia_ai_endpoints", "ChatNVIDIA")
        else:
            imports.add("langchain_deepseek", "ChatDeepSeek")
    if heavy:
        if _is_nvidia(heavy.judge) != at_nvidia:
            package = '" "'.join(_PACKAGES)
        main = list(_attempts(program, heavy, kind, imports))
    opening = program.opening("LangChain", f'pip install "{package}"', runs_attempts=bool(heavy))
    parts = [
        comment("#", opening),
        imports.text(),
        "" if complete else COMPLETE_HISTORY,
    ]
    if heavy:
        parts += [PYTHON.assign("messages", messages), *main]
        return join_parts(filter(None, parts))
    parts += [
        _model(program, kind),
        PYTHON.assign("tools", program.tools) if program.tools else "",
        PYTHON.assign("messages", messages),
        _reading(program, at_nvidia=at_nvidia),
        SHOW_CALLS if program.tools else "",
    ]
    return join_parts(filter(None, parts))


_PACKAGES = ("langchain-deepseek>=1.1", "langchain-nvidia-ai-endpoints>=1.4.2")


def _is_nvidia(program: Program) -> bool:
    return program.provider == "nvidia" or ".nvidia.com/" in program.base_url


def _attempts(program: Program, heavy: Heavy, kind: str, imports: Imports) -> Iterator[str]:
    """Yield the parts of a program of several attempts, from its models to its last answer."""
    names = {name: name for name in (*HEAVY_NAMES, "messages")}
    judge = heavy.judge
    seed = program.options.get("seed")
    if isinstance(seed, int):
        options = {name: value for name, value in program.body.items() if name != "seed"}
        program = replace(program, body=options)
    yield _model(program, kind)
    kind_of_judge = "ChatNVIDIA" if _is_nvidia(judge) else kind.replace("NVIDIA", "DeepSeek")
    yield _model(judge, kind_of_judge).replace("llm = ", "judge = ", 1)
    yield template_of(heavy, names)
    more = f", seed={seed} + number" if isinstance(seed, int) else ""
    call = _call(program, "llm", more, at_nvidia=kind == "ChatNVIDIA")
    take = Template(TAKE_STREAM if program.streams else TAKE_WHOLE).substitute(call=call)
    yield Template(ATTEMPT).substitute(take=take)
    yield from aggregating(heavy, program, names, imports)
    reading = Template(READ_STREAM if judge.streams else READ_WHOLE)
    call = _call(judge, "judge", at_nvidia=_is_nvidia(judge))
    yield reading.substitute(call=call, before="", gather="")


def _message(message: Mapping[str, Any], *, at_nvidia: bool) -> dict[str, Any]:
    """Return the message with unknown fields where LangChain passes them on untouched."""
    extra = dict(message)
    known = {"role": extra.pop("role"), "content": extra.pop("content", None) or ""}
    if "tool_call_id" in extra:
        known["tool_call_id"] = extra.pop("tool_call_id")
    reasoning = [key for key in ("reasoning_content", "reasoning") if key in extra]
    if at_nvidia and reasoning:
        # ChatNVIDIA sends back only the reasoning fields that it has noted as the server's.
        extra["_reasoning_api_fields"] = reasoning
    return known | ({"additional_kwargs": extra} if extra else {})


def _model(program: Program, kind: str) -> str:
    """Return the client with its options, under LangChain's names for them."""
    at_nvidia = kind == "ChatNVIDIA"
    # LangChain sends stream and stream_options itself, as its methods and options say.
    names = {name: name for name in ("model", "temperature", "top_p", "max_tokens", "seed", "stop")}
    if at_nvidia:
        names["max_tokens"] = names["max_completion_tokens"] = "max_completion_tokens"
    options = {names[key]: value for key, value in program.options.items() if key in names}
    known = {*names, "stream", "stream_options"}
    extra = {key: value for key, value in program.options.items() if key not in known}
    stream_options = program.options.get("stream_options")
    if not at_nvidia:
        options["stream_usage"] = bool((stream_options or {}).get("include_usage"))
    elif stream_options != {"include_usage": True}:
        options["stream_options"] = stream_options
    if extra:
        options["model_kwargs" if at_nvidia else "extra_body"] = extra
    key = f'os.environ["{program.key_env}"]' if program.key_env else '"none"'
    timeout = PYTHON.keywords({"timeout": program.timeout})
    if at_nvidia:
        timeout = f"{timeout.rstrip()}  # seconds; the default of 60 is short for reasoning\n"
    return (
        f"llm = {kind}(\n{PYTHON.keywords({'base_url': program.base_url})}"
        f"{PYTHON.tab}api_key={key},\n{PYTHON.headers('default_headers', program.headers)}"
        f"{PYTHON.keywords(options)}{timeout})"
    )


def _reading(program: Program, *, at_nvidia: bool) -> str:
    llm = "llm.bind_tools(tools)" if program.tools else "llm"
    call = _call(program, llm, at_nvidia=at_nvidia)
    before, gather = (BEFORE, GATHER) if program.tools else ("", "")
    reading = Template(READ_STREAM if program.streams else READ_WHOLE)
    return reading.substitute(call=call, before=before, gather=gather)


def _call(program: Program, llm: str, more: str = "", *, at_nvidia: bool) -> str:
    # ChatNVIDIA would send a default of its own, 1,024; None leaves the limit to the server.
    limited = {"max_tokens", "max_completion_tokens"} & program.options.keys()
    limit = ", max_tokens=None" if at_nvidia and not limited else ""
    return f"{llm}.{'stream' if program.streams else 'invoke'}(messages{limit}{more})"
