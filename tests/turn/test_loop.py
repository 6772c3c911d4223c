"""The turn as a generator: what it asks its driver for, and what it has come to."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_magic.core.errors import (
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    EndpointError,
    RateLimited,
    ServerFailed,
)
from kimi_magic.core.events import Retrying, StepFinished
from kimi_magic.core.messages import Completion, Message, Usage
from kimi_magic.turn.loop import Pause, Send, Turn

PROMPT = Message("user", "9.11 or 9.9?")
ANSWER = Completion(
    Message("assistant", "9.9", reasoning="Compare."), "stop", Usage(9, 5, requests=1), "kimi"
)


def play(turn: Turn, *answers: Completion | EndpointError) -> list[Any]:
    """Drive the turn with scripted answers; return all that it yielded."""
    run, script, seen = turn.run(), list(answers), []
    command: Any = next(run)
    while True:
        seen.append(command)
        try:
            if not isinstance(command, Send):
                command = run.send(None)
            elif isinstance(answer := script.pop(0), EndpointError):
                command = run.throw(answer)
            else:
                command = run.send(answer)
        except StopIteration:
            assert not script
            return seen


def kinds(seen: list[Any]) -> list[str]:
    return [type(item).__name__ for item in seen]


def test_one_step() -> None:
    system = Message("system", "Be brief.")
    turn = Turn([system], PROMPT, retries=3)
    seen = play(turn, ANSWER)
    assert kinds(seen) == ["RequestStarted", "Send", "StepFinished"]
    assert seen[1] == Send((system, PROMPT))
    reply = turn.reply(model="asked for", chat="main", error=None)
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("9.9", "Compare.", "stop")
    assert (reply.model, reply.chat, reply.usage) == ("kimi", "main", ANSWER.usage)
    assert reply.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "9.11 or 9.9?"},
        {"role": "assistant", "content": "9.9", "reasoning_content": "Compare."},
    ]
    assert [message.role for message in turn.messages()] == ["user", "assistant"]


def test_a_failed_request_goes_out_again_after_a_pause() -> None:
    turn = Turn([], PROMPT, retries=3)
    seen = play(turn, ServerFailed("502: busy"), RateLimited("429", retry_after=7.0), ANSWER)
    pauses = [item.seconds for item in seen if isinstance(item, Pause)]
    assert 0.3 <= pauses[0] <= 0.5
    assert pauses[1] == 7.0, "the server's own word counts"
    retrying = [item for item in seen if isinstance(item, Retrying)]
    assert [(r.attempt, r.retries, r.reason) for r in retrying] == [
        (1, 3, "502: busy"),
        (2, 3, "429"),
    ]
    assert isinstance(seen[-1], StepFinished)


@pytest.mark.parametrize("retries", [0, 2])
def test_tries_are_bounded(retries: int) -> None:
    failures = [ServerFailed(f"failure {n}") for n in range(retries + 1)]
    with pytest.raises(ServerFailed, match=f"failure {retries}"):
        play(Turn([], PROMPT, retries=retries), *failures)


@pytest.mark.parametrize(
    "failure", [BadRequest("400"), ContentFiltered("no"), RateLimited("429", retry_after=3600.0)]
)
def test_what_another_try_cannot_help_fails_at_once(failure: EndpointError) -> None:
    with pytest.raises(type(failure)):
        play(Turn([], PROMPT, retries=3), failure)


@pytest.mark.parametrize("kind", [ServerFailed, BadRequest, ContextTooLong])
def test_nothing_is_asked_again_once_something_was_shown(kind: type[EndpointError]) -> None:
    failure = kind("cut")
    failure.partial = Completion(Message("assistant", "", reasoning="So"))
    earlier = [Message("user", "Begin"), Message("assistant", "Begun")]
    with pytest.raises(kind):
        play(Turn(earlier, PROMPT, retries=3, goes_on=True, partial_mode=True), failure)
    with pytest.raises(kind):
        play(Turn(earlier, PROMPT, retries=3), failure)


@pytest.mark.parametrize(
    ("partial", "content"),
    [
        (Message("assistant", "9.", reasoning="So"), "9."),
        (Message("assistant", "", reasoning="So"), "[The answer was cut off.]"),
    ],
)
def test_a_turn_that_was_cut_is_a_valid_history(partial: Message, content: str) -> None:
    turn = Turn([], PROMPT, retries=0)
    turn.partial = Completion(partial)
    (_, said) = turn.messages()
    assert (said.content, said.reasoning) == (content, "So")
    reply = turn.reply(model="kimi", chat=None, error=KeyboardInterrupt())
    assert reply.reasoning == "So"
    assert reply.finish_reason is None


def test_a_turn_that_brought_nothing_leaves_no_history() -> None:
    turn = Turn([], PROMPT, retries=0)
    assert turn.messages() == ()
    assert turn.reply(model="kimi", chat=None, error=None).text == ""


def test_an_empty_answer_is_asked_for_once_more_and_can_be_sent_back() -> None:
    turn = Turn([], PROMPT, retries=0)
    empty = Completion(Message("assistant", "", reasoning="Hm."), "stop", Usage(9, 5, requests=1))
    seen = play(turn, empty, empty)
    assert kinds(seen).count("Notice") == 1
    assert turn.messages()[-1].to_dict()["content"] == "[No answer was given.]"
    reply = turn.reply(model="kimi", chat=None, error=None)
    assert len(reply.steps) == 1
    assert reply.usage.requests == 2, "what the first one cost counts"


def test_a_chat_that_outgrew_the_window_loses_its_oldest_turns() -> None:
    said = [Message("system", "Be brief.")]
    for n in range(4):
        said += [Message("user", f"q{n}"), Message("assistant", f"a{n}")]
    too_long = ContextTooLong("too long")
    turn = Turn(said, PROMPT, retries=0)
    seen = play(turn, too_long, too_long, ANSWER)
    sent = [[m.text for m in item.messages] for item in seen if isinstance(item, Send)]
    assert [len(messages) for messages in sent] == [10, 6, 4]
    assert sent[-1] == ["Be brief.", "q3", "a3", PROMPT.text]
    assert kinds(seen).count("Notice") == 2
    with pytest.raises(ContextTooLong):
        play(Turn([], PROMPT, retries=0), ContextTooLong("too long"))
