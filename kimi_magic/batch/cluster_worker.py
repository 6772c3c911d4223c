"""The worker's side of a map on a cluster: it is equipped, and asks for chunks of rows."""

from __future__ import annotations

import os
import pickle
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

from kimi_magic.batch.checkpoint import Answer, Checkpoint, Header
from kimi_magic.batch.cluster_post import (
    BOOT,
    Outfit,
    Post,
    Secrets,
    drop_post,
    keep_post,
    post_of,
    posts,
)
from kimi_magic.batch.cluster_request import RemoteRequest, unpack
from kimi_magic.batch.map_run import ENDS_ALL, INTERRUPTED, Limits, MapRun, told
from kimi_magic.batch.pace import Pace
from kimi_magic.batch.questions import Questions
from kimi_magic.batch.rows import Rows
from kimi_magic.chats.chat import NOWHERE, Chats
from kimi_magic.config import Settings
from kimi_magic.core.errors import ConfigError, KimiError
from kimi_magic.core.messages import Completion, Message
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from kimi_magic.session import current
from kimi_magic.turn.heavy import HeavyTurn
from kimi_magic.turn.lanes import Lane
from kimi_magic.turn.prompt import ComposedPrompt
from kimi_magic.turn.request import judge_request
from kimi_magic.turn.runner import PreparedTurn, prepare
from kimi_magic.wire.endpoints import Endpoint, from_environment
from kimi_magic.wire.inbox import Inbox

__all__ = [
    "OPERATION",
    "GivenRow",
    "TaskInbox",
    "equip",
    "forget",
    "introduce",
    "remote_turn",
    "run_chunk",
    "task_is_cancelled",
    "this_worker",
    "versions",
]

OPERATION = "kimi_map"
"""The name of the worker's handler that the kernel asks for the post."""
FROM_NOTEBOOK = "the notebook that runs the map"

GivenRow = tuple[str, Any]
"""The key of a row, and the content of its prompt."""


def versions() -> dict[str, str]:
    """Return the versions that the kernel and the workers must share."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"kimi-magic": version("kimi-magic"), "Python": python}


def introduce(endpoint: Endpoint, variables: Sequence[str]) -> dict[str, Any]:
    """Tell the kernel which versions there are, and which secrets the worker has of its own."""
    return {
        **versions(),
        "boot": BOOT,
        "has key": endpoint.key_env is None or _key_here(endpoint) is not None,
        "lacking": [name for name in variables if not os.environ.get(name, "").strip()],
    }


def _key_here(endpoint: Endpoint) -> Key | None:
    """Return the key of this worker's own environment.

    Its ``KIMI_API_KEY`` belongs to its ``KIMI_BASE_URL``, which may be another address.
    """
    try:
        if endpoint.key_env == "KIMI_API_KEY":
            own = from_environment()
            if own is None or own.base_url != endpoint.base_url:
                return None
        return current().connector.key_at_hand(endpoint)
    except ConfigError:
        return None


def equip(name: str, outfit: Outfit, secrets: Secrets, dask_worker: Any) -> None:
    """Make the post of a map, and have the worker answer when the kernel asks for it."""
    keep_post((name, dask_worker.address), Post(outfit, secrets, partial(_closes, dask_worker)))

    def answer(name: str, **orders: Any) -> dict[str, Any]:
        if orders["state"] == "end":
            forget(name, dask_worker)
        post = posts.get((name, dask_worker.address))
        return post.answer(orders) if post else {"boot": ""}

    dask_worker.handlers.setdefault(OPERATION, answer)


def forget(name: str, dask_worker: Any) -> None:
    """Remove the post of a map, with its secrets."""
    drop_post((name, dask_worker.address))


def _closes(worker: Any) -> bool:
    """Return True for a worker that waits for its tasks to end."""
    return worker.status.name in ("closing", "closed", "failed")


def run_chunk(name: str, number: int, rows: bytes) -> None:
    """Ask for the rows of a chunk; the answers leave by the post."""
    from distributed import get_worker

    post = post_of((name, get_worker().address))
    if post is None:
        return
    given: list[GivenRow] = unpack(rows)
    chunk: _ChunkRun | None = None
    waits = _Waiting()
    if not post.admit(number, waits):
        return
    try:
        chunk = _ChunkRun(post, given)
        post.replace(waits, chunk)
        chunk.take(show=False)
    except Exception as error:  # noqa: BLE001 - of any library that a tool or a schema needs
        post.put(("broken", number, told(error)))
    finally:
        post.leave(chunk or waits)
        post.put(("over", number))


class _Waiting:
    """A task that is not ready yet."""

    why = ""

    def wanted(self) -> int:
        return 0


class _Left(KimiError):
    """Ends the turn of a row that was not begun when the map stopped."""


class _ChunkRun(MapRun):
    """Asks for the rows of a chunk with the permits of the post."""

    def __init__(self, post: Post, given: Sequence[GivenRow]) -> None:
        made: RemoteRequest = unpack(post.outfit.made)
        questions = _GivenQuestions(remote_turn(made, post.secrets))
        nowhere = Checkpoint(None, Header("", "", 0), Redactor())
        self._lanes = post.outfit.lanes
        self._size = len(given)
        self._requests = made.request.heavy or 1  # of a row at once
        self._post = post
        self._raises = made.raises
        super().__init__(_GivenRows(given), questions, nowhere, Limits(post.outfit.lanes))
        self._todo = self._read()

    def _read(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the rows; then the next chunk may begin, while the last answers are waited for."""
        yield from enumerate(self._rows)
        from distributed import secede

        secede()

    def wanted(self) -> int:
        return min(self._lanes, (self._size - len(self.answers)) * self._requests)

    def _pace(self, most: int) -> Pace:
        return _PostPace(self._post, self._questions.one.settings.max_queue_bytes, most)

    def _keep(self, key: str, answer: Answer, error: BaseException | None) -> None:
        self.answers[key] = answer
        # Unless the map was stopped, another worker asks it.
        left = answer.error == INTERRUPTED and self._post.state != "stop"
        if left or isinstance(error, _Left):
            return
        if isinstance(error, ENDS_ALL):
            self.why = self.why or str(answer.error)
        self._post.put(("answer", key, answer, self._telling(error)))

    def _telling(self, error: BaseException | None) -> bytes | None:
        """Return the error itself where the kernel needs more than its text."""
        if error is None or not (self._raises or isinstance(error, ENDS_ALL)):
            return None
        if isinstance(error, KimiError) and not self._raises:
            error.reply = None
        try:
            return pickle.dumps(error)
        except Exception:  # noqa: BLE001 - an error of the user's may hold anything
            return pickle.dumps(KimiError(told(error)))


def remote_turn(made: RemoteRequest, secrets: Secrets) -> PreparedTurn | HeavyTurn:
    """Make the turn of all rows, with this worker's key or the one that it was given."""
    settings = Settings()
    for name, value in made.settings.items():  # after the environment, which does not lead here
        setattr(settings, name, value)
    endpoint = replace(made.endpoint, headers=secrets.headers)
    key = _key_here(endpoint)
    if key is None and secrets.key is not None:
        key = Key(secrets.key, FROM_NOTEBOOK, endpoint.key_env or "")
    connector = current().connector
    connector.remember([*([key] if key else ()), *endpoint.own_headers.secrets()])
    ready = partial(
        prepare,
        settings=settings,
        connector=connector,
        chats=Chats(_no_chat),
        find_key=lambda _: key,
        namespace={},
        place=NOWHERE,
    )
    request = replace(made.request, endpoint=endpoint)
    turn = ready(request)
    if request.heavy is None:
        return turn
    judge = replace(ready(judge_request(request)), toolset=None)
    return HeavyTurn(turn, judge, request.heavy)


def _no_chat(*_: Any, **__: Any) -> Any:
    raise AssertionError("rows are asked outside of chats")


class _GivenRows(Rows):
    """Rows whose prompts are filled in."""

    def __init__(self, given: Sequence[GivenRow]) -> None:
        self._given = given

    def __len__(self) -> int:
        return len(self._given)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for key, content in self._given:
            yield {"key": key, "content": content}


class _GivenQuestions(Questions):
    """The questions of such rows: nothing of them is composed here."""

    def __init__(self, turn: PreparedTurn | HeavyTurn) -> None:
        self.turn = turn

    def prompt(self, row: Mapping[str, Any]) -> Any:
        return row["content"]

    def key(self, row: Mapping[str, Any], prompt: Any) -> str:  # noqa: ARG002
        return str(row["key"])

    def _with(self, turn: PreparedTurn, prompt: Any) -> PreparedTurn:
        return replace(turn, prompt=ComposedPrompt(Message("user", prompt)))


class _PostPace(Pace):
    """Lanes that take their permits from the post."""

    def __init__(self, post: Post, most_bytes: int, most_requests: int) -> None:
        super().__init__(most_bytes, most_requests)
        is_cancelled = task_is_cancelled()
        self.inbox = TaskInbox(most_bytes, lambda: post.is_stopped or is_cancelled())
        self.post = post

    def lane(self, number: int) -> Lane:
        return _RowLane(self.post, super().lane(number))

    def has_room(self) -> bool:
        return self.post.has_room()

    def may_send(self) -> bool:
        return self.post.may_send()

    def sent(self) -> None:
        self.post.sent()

    def slow_down(self, until: float) -> None:
        self.post.slow_down(until)

    def answered(self, completion: Completion) -> None:
        began = completion.timings.first_token
        seconds = completion.usage.seconds if began is None else began
        self.post.answered(completion.usage.total_tokens, seconds)


class _RowLane:
    """The lane of one row: when the map stops, a row that was not begun is left."""

    def __init__(self, post: Post, lane: Lane) -> None:
        self.number, self.inbox, self.held = lane.number, lane.inbox, lane.held
        self.sent, self.wait, self.receive = lane.sent, lane.wait, lane.receive
        self.slow_down, self.pause, self.answered = lane.slow_down, lane.pause, lane.answered
        self._lane = lane
        self._post = post
        self._begun = False

    def may_send(self) -> bool:
        if not self._begun and self._post.state != "go":
            raise _Left("not asked")
        may = self._lane.may_send()
        self._begun = self._begun or may
        return may


class TaskInbox(Inbox):
    """An inbox in which the end of a task arrives as an interrupt: Dask stops no thread."""

    def __init__(self, most: int, is_over: Callable[[], bool]) -> None:
        super().__init__(most)
        self._is_over = is_over
        self._told = False

    def wait(self, timeout: float) -> None:
        if not self._told and self._is_over():
            self._told = True
            raise KeyboardInterrupt
        super().wait(timeout)


def this_worker() -> Any:
    """Return the worker that runs this task; None outside of one."""
    distributed = sys.modules.get("distributed")
    try:
        return distributed.get_worker() if distributed else None
    except ValueError:
        return None


def task_is_cancelled() -> Callable[[], bool]:
    """Return a function that is true when nobody wants this task any more: its client is gone."""
    worker = this_worker()
    if worker is None:
        return lambda: False
    from distributed.worker import thread_state

    return partial(_is_cancelled, worker, getattr(thread_state, "key", None))


def _is_cancelled(worker: Any, key: Any) -> bool:
    task = worker.state.tasks.get(key)
    return task is None or task.state == "cancelled" or _closes(worker)
