"""A program for LangChain: ChatNVIDIA for NVIDIA's endpoint, ChatDeepSeek for all others.

ChatOpenAI drops the reasoning. ChatDeepSeek is built on the same base class and keeps it,
whichever of its two names the server uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from kimi_magic.export.formatting import PYTHON, comment, join_parts
from kimi_magic.export.imports import Imports
from kimi_magic.export.program import Program

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

SHOW_CALLS = """
for call in [*reply.tool_calls, *reply.invalid_tool_calls] if reply else []:
    print(f"The model calls {call['name']}({call['args']})")
"""


def write_langchain(program: Program) -> str:
    """Return the source of the program."""
    at_nvidia = program.provider == "nvidia" or ".nvidia.com/" in program.base_url
    package = "langchain-nvidia-ai-endpoints>=1.4.2" if at_nvidia else "langchain-deepseek>=1.1"
    messages = [_message(message, at_nvidia=at_nvidia) for message in program.messages]
    complete = at_nvidia or not any("additional_kwargs" in message for message in messages)
    kind = "ChatNVIDIA" if at_nvidia else "ChatDeepSeek" if complete else "ChatReasoner"
    imports = Imports()
    if program.key_env or program.headers:
        imports.add("os")
    if at_nvidia:
        imports.add("langchain_nvidia_ai_endpoints", "ChatNVIDIA")
    else:
        imports.add("langchain_deepseek", "ChatDeepSeek")
    parts = [
        comment("#", program.opening("LangChain", f'pip install "{package}"')),
        imports.text(),
        "" if complete else COMPLETE_HISTORY,
        _model(program, kind),
        PYTHON.assign("tools", program.tools) if program.tools else "",
        PYTHON.assign("messages", messages),
        _reading(program, at_nvidia=at_nvidia),
        SHOW_CALLS if program.tools else "",
    ]
    return join_parts(filter(None, parts))


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
    # ChatNVIDIA would send a default of its own, 1,024; None leaves the limit to the server.
    limited = {"max_tokens", "max_completion_tokens"} & program.options.keys()
    limit = ", max_tokens=None" if at_nvidia and not limited else ""
    call = f"{llm}.{'stream' if program.streams else 'invoke'}(messages{limit})"
    before, gather = (BEFORE, GATHER) if program.tools else ("", "")
    reading = Template(READ_STREAM if program.streams else READ_WHOLE)
    return reading.substitute(call=call, before=before, gather=gather)
