"""The recipes of the model's own page: its chat, and its streaming."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import kimi_magic as kimi
from kimi_magic.core.events import ContentDelta, ReasoningDelta
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel


@pytest.fixture
def nvidia(session: Session) -> Iterator[ScriptedServer]:
    with ScriptedServer(dialect="nvidia", models=["moonshotai/kimi-k2-thinking"]) as server:
        kimi.add_endpoint(
            name="page", base_url=server.base_url, like="nvidia", model="kimi-k2-thinking"
        )
        yield server


def test_the_chat_in_one_piece(kernel: Kernel, asked: ScriptedServer) -> None:
    """User content as a list of parts, the default system prompt, answer and reasoning shown."""
    asked.reply("9.9 is bigger.", reasoning="Compare 9.11 with 9.90.")
    question = [{"type": "text", "text": "which one is bigger, 9.11 or 9.9? think carefully."}]
    shown = kernel.run(f"kimi.ask({question}, max_tokens=4096)")
    body = asked.requests[0].body
    assert body["messages"] == [
        {"role": "system", "content": "You are Kimi, an AI assistant created by Moonshot AI."},
        {"role": "user", "content": question},
    ]
    assert (body["temperature"], body["max_tokens"]) == (1.0, 4096)
    assert "9.9 is bigger." in shown.record["text/html"]
    assert "Compare 9.11 with 9.90." in shown.record["text/html"]


def test_the_chat_without_a_stream(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("9.9 is bigger.", reasoning="Compare 9.11 with 9.90.")
    shown = kernel.run("%%kimi --no-stream --max-tokens 4096\n9.11 or 9.9? think carefully.")
    assert asked.requests[0].body["stream"] is False
    assert "9.9 is bigger." in shown.record["text/plain"]
    assert "Compare 9.11 with 9.90." in shown.record["text/plain"]


def test_the_streaming_recipe(nvidia: ScriptedServer) -> None:
    """Its parameters, and reasoning before content."""
    nvidia.reply("9.9 is bigger.", reasoning="Compare 9.11 with 9.90.", rate=50)
    deltas = [
        event
        for event in kimi.stream("9.11 or 9.9?", endpoint="page")
        if isinstance(event, ReasoningDelta | ContentDelta)
    ]
    sent = {
        k: v for k, v in nvidia.requests[0].body.items() if k not in ("messages", "stream_options")
    }
    assert sent == {
        "model": "moonshotai/kimi-k2-thinking",
        "temperature": 1,
        "top_p": 0.9,
        "max_tokens": 16384,
        "stream": True,
    }
    kinds = [type(delta) for delta in deltas]
    assert kinds.index(ContentDelta) == kinds.count(ReasoningDelta) > 1
    assert kimi.last is not None
    assert kimi.last.text == "9.9 is bigger."
    assert kimi.last.reasoning == "Compare 9.11 with 9.90."
