"""The request that aggregates trajectories: what stands in it, and what it leaves out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from PIL import Image

import kimi_magic as kimi
from kimi_magic.chats.context_window import CHARS_PER_TOKEN
from kimi_magic.core.messages import ImagePart, Message, TextPart
from kimi_magic.session import Session
from kimi_magic.testing import Request, ScriptedServer
from kimi_magic.turn.aggregation import ABOVE, LEAST_ROOM, PROMPT, aggregation_message
from kimi_magic.turn.loop import MOST_CORRECTIONS
from tests.kernels import Kernel
from tests.turns import make_reply


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def pictures(request: Request) -> int:
    return json.dumps(request.body["messages"]).count('"image_url": {')


def text_of(request: Request) -> str:
    content = request.body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(p.get("text", "") for p in content)


@given(
    st.integers(500, 20_000), st.integers(0, 80_000), st.lists(st.integers(0, 30_000), min_size=1)
)
def test_it_has_the_size_it_may_have(tokens: int, length: int, lengths: list[int]) -> None:
    """The problem stands in it once in full; the attempts keep half of what that leaves."""
    problem = "p" * length
    replies = [make_reply(f"{n} " + "a" * size, "r" * size) for n, size in enumerate(lengths)]
    text = aggregation_message(Message("user", problem), replies, tokens=tokens).text
    marks = 100 * len(replies)
    least = len(PROMPT) + length + 2 * LEAST_ROOM
    assert len(text) <= max(tokens * CHARS_PER_TOKEN, least) + marks
    assert problem in text
    spare = tokens * CHARS_PER_TOKEN - len(PROMPT) - length
    wanted = sum(2 * size for size in lengths)
    kept = text.count("a") + text.count("r") - PROMPT.count("a") - PROMPT.count("r")
    assert kept >= min(wanted, spare // 2) * 0.5


@pytest.mark.parametrize(
    ("tokens", "restated"),
    [(100_000, "p" * 40_000), (18_000, "missing]"), (11_000, ABOVE)],
)
def test_a_long_problem_is_restated_as_far_as_it_fits(tokens: int, restated: str) -> None:
    problem = "p" * 40_000
    replies = [make_reply("Nine.", "Hm. " * 9000), make_reply("Ten.", "Hm. " * 9000)]
    text = aggregation_message(Message("user", problem), replies, tokens=tokens).text
    assert restated in text.rpartition("# The problem once more")[2]
    assert text.count("Nine.") == text.count("Ten.") == 1
    assert "max_output_chars" not in text


def test_a_template_may_name_the_problem_once() -> None:
    text = aggregation_message(
        Message("user", "Why?"), [make_reply("So.")], tokens=9, template="{problem} {count}"
    ).text
    assert text == "Why? 1"


def test_a_problem_that_fills_most_of_the_window(server: ScriptedServer, session: Session) -> None:
    """In a script of one character a token, which the server's own count tells."""
    window, problem = 20_000, "問題" * 5000
    kimi.add_endpoint(
        name="small", base_url=server.base_url, context_window=window, max_tokens=1000
    )
    for text in ("一", "二", "一"):
        server.reply(text, reasoning="考" * 4000, usage={"prompt_tokens": len(problem) + 20})
    server.reply("一")
    reply = kimi.ask(problem, endpoint="small", heavy=3, show=False)
    assert reply.text == "一"
    asked = text_of(server.requests[-1])
    assert problem in asked
    assert asked.count("<answer>") == 3
    assert len(asked) + 1000 < window
    assert asked.count("考") > 1000


def test_pictures_go_to_each_trajectory_and_to_the_aggregation(
    kernel: Kernel, picture: Path
) -> None:
    with ScriptedServer("moonshot-k3") as server:
        kernel.run(f"kimi.add_endpoint(name='x', base_url={server.base_url!r}, like='moonshot')")
        for text in ("Red.", "Blue.", "It is red."):
            server.reply(text)
        kernel.run(f"%%kimi -e x -m kimi-k3 --heavy 2 --image {picture} -o answer\nWhich colour?")
        assert [pictures(request) for request in server.requests] == [1, 1, 1]
        assert text_of(server.requests[-1]).count("Which colour?") == 2
    assert kernel.run("print(answer)").stdout == "It is red.\n"


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({"model": "kimi-k2-thinking"}, "^kimi-k2-thinking reads no images"),
        (
            {"model": "kimi-k3", "judge": "kimi-k2-thinking"},
            "^kimi-k2-thinking reads no images, so it cannot judge: .*`--judge kimi-k3`",
        ),
    ],
)
def test_a_model_that_does_not_see_is_refused_before_anything_is_paid(
    session: Session, picture: Path, models: dict[str, Any], words: str
) -> None:
    url = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    prompt: list[dict[str, Any]] = [
        {"type": "text", "text": "Which?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    with ScriptedServer("moonshot-k3") as server:
        kimi.add_endpoint(name="x", base_url=server.base_url, like="moonshot")
        with pytest.raises(kimi.KimiError, match=words):
            kimi.ask(prompt, endpoint="x", heavy=3, show=False, **models)
        assert server.requests == []


def test_a_picture_has_its_own_room() -> None:
    prompt = Message("user", (TextPart("Which?"), ImagePart("AAAA", width=9, height=9)))
    message = aggregation_message(prompt, [make_reply("Red.")], tokens=1000)
    assert message.images == prompt.images
    assert message.text.count("Which?") == 2


FITS, MISFIT = '{"n": 1}', '{"m": "none"}'


@pytest.mark.parametrize(
    ("answers", "final", "data", "agreement"),
    [
        ([FITS, FITS, FITS, MISFIT], '{"n": 2}', {"n": 2}, {'{"n": 1}': 1.0}),
        ([FITS, FITS, FITS, FITS], MISFIT, {"n": 1}, {'{"n": 1}': 1.0}),
    ],
    ids=["a trajectory", "the aggregation"],
)
def test_answers_that_do_not_fit_the_schema(
    server: ScriptedServer,
    session: Session,
    answers: list[str],
    final: str,
    data: Any,
    agreement: dict[str, float],
) -> None:
    """An answer that does not fit is none; where the aggregation's does not, the majority stands.

    A model that is told so answers as before.
    """
    session.settings.max_concurrency = 1
    for answer in (*answers, final):
        for _ in range(1 + MOST_CORRECTIONS if answer is MISFIT else 1):
            server.reply(answer)
    reply = kimi.ask("x", heavy=4, schema="n int", show=False)
    assert reply.data == data
    assert reply.agreement == agreement
    misfits = [each for each in reply.trajectories if each.error is not None]
    assert len(misfits) == answers.count(MISFIT)
    assert all("does not fit" in str(each.error) for each in misfits)


def test_no_answer_that_fits_the_schema(server: ScriptedServer) -> None:
    """All failed for one reason, which is the error: of its own class."""
    for _ in range(3 * (1 + MOST_CORRECTIONS)):
        server.reply(MISFIT)
    with pytest.raises(kimi.KimiError, match="does not fit what was asked for") as caught:
        kimi.ask("x", heavy=3, schema="n int", show=False)
    assert type(caught.value).__name__ == "SchemaMismatch"
    assert caught.value.reply is not None
    assert len(caught.value.reply.trajectories) == 3


def test_a_key_that_is_refused_says_what_to_do(session: Session) -> None:
    with ScriptedServer(key="right") as server:
        kimi.add_endpoint(name="x", base_url=server.base_url, key_env="X_API_KEY", like="moonshot")
        kimi.settings.connect_timeout = 5
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("X_API_KEY", "wrong-key-of-the-tests")
            with pytest.raises(kimi.KeyRefused) as caught:
                kimi.ask("x", endpoint="x", heavy=3, show=False)
    assert "X_API_KEY" in str(caught.value)
    assert caught.value.reply is not None
    assert caught.value.reply.trajectories[0].error is not caught.value


@pytest.mark.parametrize("failing", [2, 3])
def test_until_some_agree_and_others_fail(
    server: ScriptedServer, session: Session, failing: int
) -> None:
    """Those that agree are enough, however many failed; what cannot agree any more goes on."""
    session.settings.max_concurrency = 1
    for _ in range(failing):
        server.error(400, "No.")
    answers = ["a", "a"] if failing == 3 else ["a", "b", "c"]
    for text in answers:
        server.reply(text)
    server.reply("at last")
    events = kimi.stream("x", heavy=failing + 3, until_agree=2)
    heard = [getattr(event, "text", "") for event in events]
    reply = kimi.last
    assert reply is not None
    assert reply.text == "at last"
    assert len(reply.trajectories) == failing + 3
    stopped = sum(isinstance(each.error, kimi.TurnInterrupted) for each in reply.trajectories)
    assert stopped == (1 if failing == 3 else 0)
    assert ("2 of 2 agree: 1 stopped early." in heard) == (failing == 3)
