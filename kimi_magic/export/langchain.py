"""The turn through LangChain: ChatNVIDIA at NVIDIA's endpoint, ChatDeepSeek at any other.

LangChain's ChatOpenAI drops the reasoning. ChatDeepSeek, built on the same base, keeps it under
each of its names.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from kimi_magic.export.imports import Imports
from kimi_magic.export.layout import comment, keywords, stacked
from kimi_magic.export.literals import Python
from kimi_magic.export.program import Program

__all__ = ["write_langchain"]

TAB = "    "
PYTHON = Python()

SENDS_ALL = '''
class ChatReasoner(ChatDeepSeek):
    """Sends the history whole: LangChain leaves out its reasoning and the tools' names."""

    def _get_request_payload(self, input_, *, stop=None, **kwargs):
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        said = self._convert_input(input_).to_messages()
        for sent, message in zip(payload["messages"], said):
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
    if chunk.tool_call_chunks:  # a call may come in pieces, which add up
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
    """Write the program."""
    at_nvidia = program.provider == "nvidia" or ".nvidia.com/" in program.base_url
    package = "langchain-nvidia-ai-endpoints>=1.4.2" if at_nvidia else "langchain-deepseek>=1.1"
    messages = [_message(message, at_nvidia=at_nvidia) for message in program.messages]
    whole = at_nvidia or not any("additional_kwargs" in message for message in messages)
    kind = "ChatNVIDIA" if at_nvidia else "ChatDeepSeek" if whole else "ChatReasoner"
    about = program.about("LangChain", f'pip install "{package}"')
    parts = [
        comment("#", [*about, *program.unrun()]),
        _imports(program, at_nvidia=at_nvidia),
        "" if whole else SENDS_ALL,
        _model(program, kind),
        PYTHON.assign("tools", program.tools) if program.tools else "",
        PYTHON.assign("messages", messages),
        _reading(program, at_nvidia=at_nvidia),
        SHOW_CALLS if program.tools else "",
    ]
    return stacked(filter(None, parts))


def _imports(program: Program, *, at_nvidia: bool) -> str:
    imports = Imports()
    if program.key_env:
        imports.add("os")
    if at_nvidia:
        imports.add("langchain_nvidia_ai_endpoints", "ChatNVIDIA")
    else:
        imports.add("langchain_deepseek", "ChatDeepSeek")
    return imports.text()


def _message(message: Mapping[str, Any], *, at_nvidia: bool) -> dict[str, Any]:
    """A message in which LangChain loses nothing: it passes on what it does not know apart."""
    apart = ("role", "content", "tool_call_id")
    known = {"role": message["role"], "content": message.get("content") or ""}
    if "tool_call_id" in message:
        known["tool_call_id"] = message["tool_call_id"]
    further = {key: value for key, value in message.items() if key not in apart}
    reasoned = [key for key in ("reasoning_content", "reasoning") if key in further]
    if at_nvidia and reasoned:
        # ChatNVIDIA sends back what it has noted as the server's own.
        further["_reasoning_api_fields"] = reasoned
    return known | ({"additional_kwargs": further} if further else {})


def _model(program: Program, kind: str) -> str:
    """The client with its options, under the names that LangChain has for them."""
    at_nvidia = kind == "ChatNVIDIA"
    names = {name: name for name in ("model", "temperature", "top_p", "max_tokens", "seed", "stop")}
    if at_nvidia:
        names["max_tokens"] = "max_completion_tokens"
    own = {*names, "stream", "stream_options"}
    options = {names[key]: value for key, value in program.options.items() if key in names}
    further = {key: value for key, value in program.options.items() if key not in own}
    counted = program.options.get("stream_options")
    if not at_nvidia:
        options["stream_usage"] = bool((counted or {}).get("include_usage"))
    elif counted != {"include_usage": True}:
        options["stream_options"] = counted
    if further:
        options["model_kwargs" if at_nvidia else "extra_body"] = further
    key = f'os.environ["{program.key_env}"]' if program.key_env else '"none"'
    patience = keywords({"timeout": program.seconds}, TAB)
    if at_nvidia:
        patience = f"{patience.rstrip()}  # seconds; the default of 60 is short for reasoning\n"
    return (
        f"llm = {kind}(\n{keywords({'base_url': program.base_url}, TAB)}{TAB}api_key={key},\n"
        f"{keywords(options, TAB)}{patience})"
    )


def _reading(program: Program, *, at_nvidia: bool) -> str:
    asked = "llm.bind_tools(tools)" if program.tools else "llm"
    # Left to the server, not to ChatNVIDIA's own default of 1,024.
    limit = ", max_tokens=None" if at_nvidia and "max_tokens" not in program.options else ""
    call = f"{asked}.{'stream' if program.streams else 'invoke'}(messages{limit})"
    before, gather = (BEFORE, GATHER) if program.tools else ("", "")
    reading = Template(READ_STREAM if program.streams else READ_WHOLE)
    return reading.substitute(call=call, before=before, gather=gather)
