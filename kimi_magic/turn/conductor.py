"""One turn, from a question that nothing speaks against to the reply that is kept.

It wires the rooms together: the line to the model, the history, the loop and its driver, who says
yes to calls, what an answer must hold, and the chat.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from kimi_magic.chats.chat import Chats, ChatTurn, Place
from kimi_magic.chats.context_window import ContextWindow, Learnt
from kimi_magic.config import Settings
from kimi_magic.core.errors import BadRequest, KeyRefused, KimiError, TurnInterrupted
from kimi_magic.core.events import Event, Notice, Preparing, TurnFinished, TurnStarted
from kimi_magic.core.frontend import can_answer
from kimi_magic.core.messages import Message, Reply, as_content
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import keys_of, without_keys
from kimi_magic.turn.approval import Approval, Approved, AskPerson, ask_with_input
from kimi_magic.turn.driver import drive
from kimi_magic.turn.loop import Send, Turn
from kimi_magic.turn.prompt import Composed
from kimi_magic.turn.request import TurnRequest, request_body, system_prompt
from kimi_magic.turn.tool_calls import caller
from kimi_magic.wire.connector import Connector, ResolvedEndpoint
from kimi_magic.wire.endpoints import Endpoint

if TYPE_CHECKING:
    from kimi_magic.schema.output import OutputSchema
    from kimi_magic.tools.call import Approve
    from kimi_magic.tools.toolset import Toolset
    from kimi_magic.wire.client import Exchange

__all__ = ["Conductor", "Job"]

T = TypeVar("T")

HOW_TO_GET_KIMI = (
    "No key was found, so a small practice model answers; it is often wrong. For Kimi K2 Thinking "
    "set NVIDIA_API_KEY (build.nvidia.com) or MOONSHOT_API_KEY (platform.moonshot.ai)."
)
MASKED = "Masked in what is sent: {}. --allow-secrets sends it."
LESS_STRICT = "The server refused the request with its answer's schema: it is asked less strictly."


@dataclass(frozen=True, slots=True)
class Job:
    """A question that nothing speaks against, and who is asked with which key.

    Attributes
    ----------
    announce : callable
        Hears of what takes its time between the turn's own events.
    ask : callable
        How a person is asked whether a call may be made.
    """

    question: TurnRequest
    prompt: Composed
    endpoint: Endpoint
    key: Key | None
    toolset: Toolset | None
    schema: OutputSchema | None
    place: Place
    shown: bool = False
    shown_in: int | None = None
    announce: Callable[[Event], None] = lambda _: None
    ask: AskPerson = ask_with_input


class Conductor:
    """Takes one job to its reply.

    Parameters
    ----------
    remember : callable
        Gets the reply, whole or cut, before it is handed on.
    """

    def __init__(
        self,
        job: Job,
        settings: Settings,
        connector: Connector,
        chats: Chats,
        remember: Callable[[Reply], None],
    ) -> None:
        self._job = job
        self._settings = settings
        self._connector = connector
        self._chats = chats
        self._remember = remember
        self._turn = Turn((), job.prompt.message, retries=0)
        self._model = job.question.model or job.endpoint.model
        self._request: dict[str, Any] = {}
        self._held: dict[str, Any] = {}
        self._data: Any = None

    def run(self) -> Generator[Event | None, None, None]:
        """The turn's events, ticks between them, and in the end its failure, if it failed."""
        error: KimiError | TurnInterrupted | None = None
        try:
            line = self._connect()
            self._model = line.model
            yield TurnStarted(line.model, line.endpoint.name, line.practice)
            yield from self._opening(line)
            yield from self._take(line)
        except KimiError as failure:
            error = failure
            if isinstance(failure, KeyRefused):
                self._connector.forget(self._job.endpoint)
        except GeneratorExit:
            self._keep(self._reply(TurnInterrupted("No more events were asked for.")))
            raise
        except KeyboardInterrupt:
            error = TurnInterrupted("Stopped. What had arrived is kept in kimi.last.")
            if not (self._turn.partial or self._turn.calling):
                self._connector.free(self._job.endpoint)
        reply = self._reply(error)
        if others := self._keep(reply):
            turns = "1 later turn was" if others == 1 else f"{others} later turns were"
            yield Notice(f"{turns} set aside: `%kimi chat {reply.chat} --all` shows all.")
        yield TurnFinished(reply)
        if error is not None:
            raise error from None

    def first_request(self, model: str) -> tuple[dict[str, Any], Send, list[str]]:
        """What would be sent first, and what the reader would be told before; nothing is sent.

        Returns
        -------
        tuple
            The request beside its messages, the messages with the tools, and the notices.
        """
        endpoint = self._job.endpoint
        self._request = self._parameters(endpoint, model)
        self._held = self._ways(endpoint)[0]
        told = []
        for happening in self._new_turn(endpoint, model).run():
            if isinstance(happening, Notice):
                told.append(happening.text)
            if isinstance(happening, Send):
                return self._beside_messages(happening), happening, told
        raise AssertionError("a turn begins with a request")

    def _opening(self, line: ResolvedEndpoint) -> Iterator[Event]:
        """What the reader should know before anything is sent."""
        chosen = self._job.question.endpoint or self._settings.endpoint
        if line.practice and self._job.shown and not chosen and not self._connector.introduced:
            self._connector.introduced = True
            yield Notice(HOW_TO_GET_KIMI)
        if self._job.prompt.masked:
            yield Notice(MASKED.format(", ".join(self._job.prompt.masked)))

    def _take(self, line: ResolvedEndpoint) -> Iterator[Event | None]:
        """Drive the turn; an answer's schema less and less strictly, where a server refuses it."""
        schema = self._job.schema
        make_calls = caller(self._job.toolset, self._approve(), self._connector.known_keys)
        self._request = self._parameters(line.endpoint, line.model)
        ways = self._ways(line.endpoint)
        for held in ways:
            self._held = held
            self._turn = self._new_turn(line.endpoint, line.model)
            try:
                yield from drive(self._turn, self._send, make_calls)
                break
            except BadRequest as refused:
                # Of its kin one says that the request is too long, another that it is filtered.
                # With tools the first request, after which nothing has come, holds no schema.
                about_schema = type(refused) is BadRequest and "tools" not in self._request
                if held is ways[-1] or not about_schema or self._turn.messages():
                    raise
                yield Notice(LESS_STRICT)
        if schema and not self._turn.cut_short:
            self._data = schema.read(self._turn.text)

    def _new_turn(self, endpoint: Endpoint, model: str) -> Turn:
        question, schema = self._job.question, self._job.schema
        earlier: tuple[Message, ...] = ()
        learnt = Learnt()
        if question.chat:
            chat = self._chats.get(question.chat)
            earlier = chat.history(self._job.place, fresh=question.fresh)
            learnt = chat.learnt.setdefault((endpoint.name, model), learnt)
        return Turn(
            self._discreet((*system_prompt(question, self._settings, model), *earlier)),
            self._job.prompt.message,
            retries=self._settings.retries,
            tools=self._request.get("tools", ()),
            max_steps=question.max_steps or self._settings.max_steps,
            budget=ContextWindow(
                endpoint.context_window, self._request.get("max_tokens", 0), learnt
            ),
            check=_checker(schema) if schema else None,
            goes_on=question.continues,
            # Moonshot: not together with a response_format.
            partial_mode=question.resumes and endpoint.partial_mode and schema is None,
        )

    def _parameters(self, endpoint: Endpoint, model: str) -> dict[str, Any]:
        """What the turn's requests hold beside their messages."""
        body = request_body(self._job.question, endpoint, model, self._settings)
        body |= {"tools": self._job.toolset.schemas()} if self._job.toolset else {}
        return self._discreet(body)

    def _ways(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        """What holds the answer to its schema, the strictest first."""
        schema = self._job.schema
        if schema is None:
            return [{}]
        return [self._discreet(schema.request(strict)) for strict in endpoint.strictnesses]

    def _discreet(self, value: T) -> T:
        """The same without keys, unless they may be sent."""
        if self._job.question.allow_secrets:
            return value
        return without_keys(value, self._connector.known_keys())

    def _send(self, command: Send) -> Exchange:
        messages = [message.to_dict() for message in command.messages]
        body = self._beside_messages(command) | {"messages": messages}
        if command.whole:
            body["stream"] = False
            body.pop("stream_options", None)
        # Each time anew: the embedded engine may have been ended since.
        return self._connect().client.chat(body, keys_of(self._connector.known_keys()))

    def _beside_messages(self, command: Send) -> dict[str, Any]:
        """What a request holds beside its messages."""
        if command.tools:
            return self._request
        # A server that holds the answer to a schema makes no calls.
        return {k: v for k, v in self._request.items() if k != "tools"} | self._held

    def _connect(self) -> ResolvedEndpoint:
        job = self._job
        return self._connector.connect(
            job.endpoint,
            job.key,
            job.question.model,
            self._settings,
            lambda text: job.announce(Preparing(text)),
        )

    def _approve(self) -> Approve | None:
        """Who says yes to the turn's calls."""
        job = self._job
        if (job.question.approve or self._settings.approve) == "no":
            return lambda *_: False
        if job.toolset is None or not can_answer():
            return None
        chat = job.question.chat
        approved: Approved = self._chats.get(chat).approved if chat else {}
        return Approval(job.toolset.namespace, approved, job.ask, job.announce)

    def _reply(self, error: KimiError | TurnInterrupted | None) -> Reply:
        """What the turn has come to, with all that would ask it again."""
        job = self._job
        reply = replace(
            self._turn.reply(model=self._model, chat=job.question.chat, error=error),
            data=self._data,
            shown_in=job.shown_in,
            request=self._request,
            endpoint=job.endpoint,
            functions=job.toolset.functions if job.toolset else {},
        )
        if error is not None:
            error.reply = reply
        return reply

    def _keep(self, reply: Reply) -> int:
        """Keep the reply, and its turn in the chat; how many other turns were set aside for it."""
        self._remember(reply)
        job, messages = self._job, self._turn.messages()
        if not reply.chat:
            return 0
        if not messages:
            self._chats.get(reply.chat).unanswered = job.question
            return 0
        asked = Message("user", as_content(job.question.prompt)).text
        asked = without_keys(asked, self._connector.known_keys())
        made = ChatTurn(asked, reply, messages, job.place, job.question)
        return self._chats.get(reply.chat).append(made, fresh=job.question.fresh)


def _checker(schema: OutputSchema) -> Callable[[str], str]:
    """Tells the model what of its answer does not fit."""
    from kimi_magic.schema.output import SchemaMismatch

    def check(text: str) -> str:
        try:
            schema.read(text)
        except SchemaMismatch as mismatch:
            return mismatch.correction
        return ""

    return check
