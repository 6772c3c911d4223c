"""Programs of heavy mode: the attempts go out at once, and one request aggregates them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.core.reply import Reply
from kimi_magic.session import Session
from kimi_magic.testing import Request, ScriptedServer
from kimi_magic.turn.request import make_request
from tests.snippets import KEY, MODEL, check_layout, meaning, run

PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "Which is more, "},
    {"type": "text", "text": "9.11 or 9.9?"},
]


@dataclass
class Way:
    """A form, the name of the endpoint, and the folder in which its programs run."""

    form: str
    provider: str
    folder: Path

    def run(self, reply: Reply, **environment: str | None) -> str:
        return run(kimi.snippet(reply, self.form), self.form, self.folder, **environment)


@pytest.fixture(params=["python", "langchain", "langchain at nvidia", "node"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    form, _, provider = request.param.partition(" at ")
    folder = request.getfixturevalue("node_folder") if form == "node" else tmp_path
    return Way(form, provider or "lab", folder)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("LAB_API_KEY", KEY)
    with ScriptedServer("nvidia", key=KEY, models=[MODEL, "judge"]) as server:
        for name in ("lab", "nvidia"):
            kimi.add_endpoint(
                name=name,
                base_url=server.base_url,
                like="nvidia",
                key_env="LAB_API_KEY",
                model=MODEL,
            )
        yield server


def script(server: ScriptedServer, *texts: str, final: str) -> None:
    for text in texts:
        server.reply(text, reasoning=f"I think {text}</reasoning>")
    server.reply(final, reasoning="They part.")


def by_seed(requests: list[Request]) -> list[dict[str, Any]]:
    return sorted((meaning(request.body) for request in requests), key=lambda body: body["seed"])


@pytest.mark.parametrize("prompt", ["Which is more, 9.11 or 9.9?", PARTS], ids=["text", "parts"])
def test_the_attempts_and_their_aggregation(
    session: Session, way: Way, lab: ScriptedServer, prompt: Any
) -> None:
    """The program sends what the turn sent; the attempts stand in another order."""
    script(lab, "Nine", "Ten", "Eleven", final="It is nine.")
    options: dict[str, Any] = {"heavy": 3, "judge": "judge", "seed": 7, "stop": "END"}
    reply = kimi.ask(prompt, endpoint=way.provider, show=False, **options)
    script(lab, "Nine", "Ten", "Eleven", final="It is nine.")
    printed = way.run(reply)
    sent, again = lab.requests[:4], lab.requests[4:]
    assert by_seed(again[:3]) == by_seed(sent[:3])
    asked, asked_again = (meaning(requests[3].body) for requests in (sent, again))
    # A model's own system prompt is that of the attempts.
    texts = [body.pop("messages")[-1]["content"] for body in (asked, asked_again)]
    assert asked == asked_again
    assert asked["model"] == "judge"
    assert sorted(texts[0].splitlines()) == sorted(texts[1].splitlines())
    assert texts[1].count("</reasoning>") == 3, "none ends before its end"
    assert printed.rstrip().endswith("They part.\n\nIt is nine.")


def test_a_stored_turn(session: Session, way: Way, lab: ScriptedServer) -> None:
    """Of the attempts its record has the answers alone: the request is that of the aggregation."""
    script(lab, "a", "b", final="c")
    reply = kimi.ask("x", endpoint=way.provider, heavy=2, show=False)
    stored = Reply.from_dict(json.loads(json.dumps(reply.to_dict())))
    script(lab, "a", "b", final="c")
    assert way.run(stored).rstrip().endswith("c")
    assert [meaning(r.body) for r in lab.requests[3:5]] == [
        meaning(r.body) for r in lab.requests[:2]
    ]


def test_too_few_answers(session: Session, way: Way, lab: ScriptedServer) -> None:
    script(lab, "a", "b", "c", final="d")
    reply = kimi.ask("x", endpoint=way.provider, heavy=3, show=False)
    lab.reply("a")
    for _ in range(2):
        lab.error(400, "No such thing.")
    with pytest.raises(AssertionError, match="Too few attempts gave an answer"):
        way.run(reply)


def test_the_tools_run_in_each_attempt(
    session: Session, lab: ScriptedServer, tmp_path: Path
) -> None:
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    def script_it() -> None:
        call = {"name": "double", "arguments": {"n": 21}}
        for _ in range(2):  # so late that each attempt has asked
            lab.reply(reasoning="Call.", tool_calls=[call], delay=1)
        for text in ("42", "42, surely", "So 42."):
            lab.reply(text)

    lab.lenient = True
    script_it()
    reply = kimi.ask("Double 21", endpoint="lab", heavy=2, tools=[double], show=False)
    script_it()
    text = kimi.snippet(reply)
    printed = run(text, "python", tmp_path)
    sent, again = lab.requests[:5], lab.requests[5:]
    assert [len(r.body["messages"]) for r in again] == [len(r.body["messages"]) for r in sent]
    assert again[0].body["tools"] == sent[0].body["tools"]
    assert "tools" not in again[4].body
    assert again[4].body["messages"][-1]["content"].count("[Called double({") == 2
    assert printed.count('double({"n": 21})') == 2
    assert printed.rstrip().endswith("So 42.")
    check_layout(text, tmp_path)
    stored = Reply.from_dict(reply.to_dict())
    assert '"name": "double"' in kimi.snippet(stored), "its tools stand in the record"


@pytest.mark.parametrize("form", ["langchain", "node", "curl"])
def test_what_is_left_out_is_said(session: Session, lab: ScriptedServer, form: str) -> None:
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    script(lab, "a", "b", final="c")
    reply = kimi.ask("x", endpoint="lab", heavy=2, tools=[double], show=False)
    words = " ".join(kimi.snippet(reply, form).replace("#", "").replace("//", "").split())
    assert "This is one of the 2 attempts of heavy mode. The others, and the request that" in words


@pytest.mark.parametrize("form", ["python", "langchain"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", ["x", PARTS], ids=["text", "parts"])
def test_the_layout(
    session: Session, lab: ScriptedServer, tmp_path: Path, form: str, stream: bool, prompt: Any
) -> None:
    script(lab, "a", "b", final="c")
    request = make_request(prompt, endpoint="lab", heavy=2, seed=7, stream=stream)
    check_layout(kimi.snippet(session.ask(request, show=False), form), tmp_path)
