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
from kimi_magic.core.events import Retrying, StepFinished, ToolStarted
from kimi_magic.core.messages import Completion, Message, ToolCall, Usage, as_reasoning
from kimi_magic.core.reply import Reply
from kimi_magic.turn.loop import Loop, Pause, RunTools, Send, Stopped

PROMPT = Message("user", "9.11 or 9.9?")
ANSWER = Completion(
    Message("assistant", "9.9", reasoning=as_reasoning("Compare.")),
    "stop",
    Usage(9, 5, requests=1),
    "kimi",
)


def play(turn: Loop, *answers: Completion | EndpointError) -> list[Any]:
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
    turn = Loop([system], PROMPT, retries=3)
    seen = play(turn, ANSWER)
    assert kinds(seen) == ["RequestStarted", "Send", "StepFinished"]
    assert seen[1] == Send((system, PROMPT))
    record = turn.record(model="asked for", chat="main")
    assert (record.text, record.reasoning, record.finish_reason) == ("9.9", "Compare.", "stop")
    assert (record.model, record.chat, record.usage) == ("kimi", "main", ANSWER.usage)
    assert Reply(record).messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "9.11 or 9.9?"},
        {"role": "assistant", "content": "9.9", "reasoning_content": "Compare."},
    ]
    assert [message.role for message in record.exchange] == ["user", "assistant"]


def test_a_failed_request_goes_out_again_after_a_pause() -> None:
    turn = Loop([], PROMPT, retries=3)
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
        play(Loop([], PROMPT, retries=retries), *failures)


@pytest.mark.parametrize(
    "failure", [BadRequest("400"), ContentFiltered("no"), RateLimited("429", retry_after=3600.0)]
)
def test_what_another_try_cannot_help_fails_at_once(failure: EndpointError) -> None:
    with pytest.raises(type(failure)):
        play(Loop([], PROMPT, retries=3), failure)


@pytest.mark.parametrize("kind", [ServerFailed, BadRequest, ContextTooLong])
def test_nothing_is_asked_again_once_something_was_shown(kind: type[EndpointError]) -> None:
    failure = kind("cut")
    failure.partial = Completion(Message("assistant", "", reasoning=as_reasoning("So")))
    earlier = [Message("user", "Begin"), Message("assistant", "Begun")]
    with pytest.raises(kind):
        play(Loop(earlier, PROMPT, retries=3, continues=True, partial_mode=True), failure)
    with pytest.raises(kind):
        play(Loop(earlier, PROMPT, retries=3), failure)


@pytest.mark.parametrize(
    ("partial", "content"),
    [
        (Message("assistant", "9.", reasoning=as_reasoning("So")), "9."),
        (Message("assistant", "", reasoning=as_reasoning("So")), "[The answer was cut off.]"),
    ],
)
def test_a_turn_that_was_cut_is_a_valid_history(partial: Message, content: str) -> None:
    turn = Loop([], PROMPT, retries=0)
    run = turn.run()
    while not isinstance(next(run), Send):
        pass
    with pytest.raises(StopIteration):
        run.throw(Stopped(Completion(partial)))
    record = turn.record(model="kimi", chat=None, failed=True)
    (_, answer) = record.exchange
    assert (answer.content, answer.reasoning_text) == (content, "So")
    assert record.reasoning == "So"
    assert record.finish_reason is None


def test_a_turn_that_brought_nothing_leaves_no_history() -> None:
    turn = Loop([], PROMPT, retries=0)
    record = turn.record(model="kimi", chat=None)
    assert record.exchange == ()
    assert record.text == ""


def test_an_empty_answer_is_asked_for_once_more_and_can_be_sent_back() -> None:
    turn = Loop([], PROMPT, retries=0)
    empty = Completion(
        Message("assistant", "", reasoning=as_reasoning("Hm.")), "stop", Usage(9, 5, requests=1)
    )
    seen = play(turn, empty, empty)
    assert kinds(seen).count("Notice") == 1
    record = turn.record(model="kimi", chat=None)
    assert record.messages[-1].to_dict()["content"] == "[No answer was given.]"
    assert len(record.steps) == 1
    assert record.usage.requests == 2, "what the first one cost counts"


@pytest.mark.parametrize(
    ("reason", "arguments", "made"),
    [(None, "", False), (None, "{}", True), ("tool_calls", "", True)],
)
def test_a_call_that_broke_off_before_its_arguments_is_not_made(
    reason: str | None, arguments: str, made: bool
) -> None:
    """A tool with defaults would run with all of them."""
    call = ToolCall("functions.clean:0", "clean", arguments)
    turn = Loop([], PROMPT, retries=0, tools=[{"type": "function", "function": {"name": "clean"}}])
    run = turn.run()
    while not isinstance(next(run), Send):
        pass
    seen: Any = run.send(Completion(Message("assistant", "", tool_calls=(call,)), reason))
    while not isinstance(seen, RunTools | ToolStarted):
        seen = next(run)
    assert isinstance(seen, RunTools) == made


def test_a_chat_that_outgrew_the_window_loses_its_oldest_turns() -> None:
    said = [Message("system", "Be brief.")]
    for n in range(4):
        said += [Message("user", f"q{n}"), Message("assistant", f"a{n}")]
    too_long = ContextTooLong("too long")
    turn = Loop(said, PROMPT, retries=0)
    seen = play(turn, too_long, too_long, ANSWER)
    sent = [[m.text for m in item.messages] for item in seen if isinstance(item, Send)]
    assert [len(messages) for messages in sent] == [10, 6, 4]
    assert sent[-1] == ["Be brief.", "q3", "a3", PROMPT.text]
    assert kinds(seen).count("Notice") == 2
    with pytest.raises(ContextTooLong):
        play(Loop([], PROMPT, retries=0), ContextTooLong("too long"))


def test_a_chat_without_a_system_prompt_whose_last_turn_was_stopped_in_its_tools_is_shortened() -> (
    None
):
    calls = (ToolCall("functions.look:0", "look", "{}"),)
    history = [
        Message("user", "q0"),
        Message("assistant", "a0"),
        Message("user", "q1"),
        Message("assistant", None, as_reasoning(""), tool_calls=calls),
        Message("tool", "Cancelled", tool_call_id="functions.look:0", name="look"),
    ]
    too_long = ContextTooLong("too long")
    seen = play(Loop(history, PROMPT, retries=0), too_long, too_long, ANSWER)
    sent = [[m.text for m in item.messages] for item in seen if isinstance(item, Send)]
    assert sent[1:] == [["q1", "", "Cancelled", PROMPT.text], [PROMPT.text]]
