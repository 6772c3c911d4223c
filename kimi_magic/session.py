"""One kernel's settings and chats, and the conductor of a turn.

It wires the rooms together: which endpoint and key, which history, the driver, the view, and what
is kept afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from getpass import getpass
from typing import TYPE_CHECKING, Any, TypeVar

from kimi_magic.approval import Approval, Approved, AskPerson, ask_with_input, asking
from kimi_magic.calling import caller, offered_tools
from kimi_magic.chats import Chats, ChatTurn, Place
from kimi_magic.composing import Composed, compose
from kimi_magic.config import Key, Settings
from kimi_magic.connect import Connector, Line
from kimi_magic.discretion import keys_of, without_keys
from kimi_magic.driver import drive, watch
from kimi_magic.endpoints.catalogue import Catalogue, Endpoint
from kimi_magic.errors import KeyRefused, KimiError, TurnInterrupted
from kimi_magic.events import Event, Notice, Preparing, TurnFinished, TurnStarted
from kimi_magic.exporting import program_of
from kimi_magic.loop import Send, Turn
from kimi_magic.messages import Message, Reply, as_content
from kimi_magic.preview import preview
from kimi_magic.question import Question, make_question, request_body, system_prompt
from kimi_magic.tools.offers import main
from kimi_magic.view import (
    Unseen,
    View,
    ViewOptions,
    can_answer,
    cell_number,
    open_view,
    running_cell,
)

if TYPE_CHECKING:
    from kimi_magic.endpoints.client import Exchange
    from kimi_magic.tools.calls import Approve
    from kimi_magic.tools.toolset import Toolset

__all__ = ["Session", "current"]

HOW_TO_GET_KIMI = (
    "No key was found, so a small practice model answers; it is often wrong. For Kimi K2 Thinking "
    "set NVIDIA_API_KEY (build.nvidia.com) or MOONSHOT_API_KEY (platform.moonshot.ai)."
)
MASKED = "Masked in what is sent: {}. --allow-secrets sends it."
GO_ON = "Go on exactly where you stopped; repeat nothing."
Announce = Callable[[Event], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    """A question that nothing speaks against: who is asked with which key, and who hears of
    what takes its time before the first event."""

    question: Question
    prompt: Composed
    endpoint: Endpoint
    key: Key | None
    toolset: Toolset | None
    place: Place
    shown: bool = False
    shown_in: int | None = None
    announce: Announce = lambda _: None
    ask: AskPerson = ask_with_input


class Session:
    """One kernel's settings, endpoints, keys and chats.

    Parameters
    ----------
    settings : Settings, optional
        The magics hand in themselves, so that ``%config KimiMagics`` sets what holds here.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.last: Reply | None = None
        self.chats = Chats(self._ask_in_chat)
        self._connector = Connector()
        self._here = threading.local()
        self._told_how_to_get_kimi = False

    def ask(
        self,
        question: Question,
        *,
        show: bool | None = None,
        options: ViewOptions | None = None,
    ) -> Reply:
        """Take one turn to its end, shown as it goes.

        Parameters
        ----------
        show : bool, optional
            By default a turn is shown in the main thread, unless it runs inside another one.

        Raises
        ------
        KimiError, TurnInterrupted
            After the view was frozen; ``error.reply`` is what had arrived.
        """
        depth = getattr(self._here, "depth", 0)
        if show is None:
            show = threading.current_thread() is threading.main_thread() and not depth
        try:
            job = self._prepare(question)
            view = self._open_view(options or ViewOptions()) if show else Unseen()
        except KeyboardInterrupt:
            raise TurnInterrupted("Stopped before anything was sent.") from None
        shown_in = cell_number() if show else None
        self._here.depth = depth + 1
        try:
            job = replace(
                job, shown=show, shown_in=shown_in, announce=view.handle, ask=asking(view)
            )
            return watch(self._turn(job), view)
        finally:
            self._here.depth = depth
            view.close()

    def _open_view(self, options: ViewOptions) -> View:
        own = self.settings
        keep, most = own.keep_reasoning_open, own.max_output_chars
        return open_view(own.view, replace(options, keep_reasoning=keep, max_chars=most))

    def stream(self, question: Question) -> Iterator[Event]:
        """Yield one turn's events as they happen; the last is ``TurnFinished``."""
        for event in self._turn(self._prepare(question)):
            if event is not None:
                yield event

    @property
    def catalogue(self) -> Catalogue:
        return self._connector.catalogue

    def choose_endpoint(self, name: str | Endpoint | None = None) -> Endpoint:
        """The endpoint itself, or by its name; else the configured, else the first that can answer.

        Raises
        ------
        ConfigError
            No such endpoint, or nobody to ask at all.
        """
        self.settings.read_environment()
        if isinstance(name, Endpoint):
            return name
        return self._connector.choose(name or self.settings.endpoint)

    def key_at_hand(self, endpoint: Endpoint) -> Key | None:
        """The endpoint's key, if it is found without asking anybody."""
        return self._connector.key_at_hand(endpoint)

    def models(self, endpoint: str | None = None) -> list[str]:
        """The ids of the models that an endpoint's server offers.

        Raises
        ------
        KimiError
            It cannot be asked.
        """
        chosen = self.choose_endpoint(endpoint)
        key = self._connector.key(chosen, getpass if can_answer() else None)
        return self._connector.models(chosen, key, self.settings, print)

    def known_models(self) -> list[str]:
        """The ids of models that were heard of: of the endpoints, and what servers listed."""
        return self._connector.known_models()

    def preview(self, question: Question) -> str:
        """What a question would send, to the letter; nothing is sent.

        Raises
        ------
        KimiError
            The question would be refused.
        """
        prompt, toolset = self._composed(question), self._offered(question)
        endpoint = self.choose_endpoint(question.endpoint)
        model = question.model or self.settings.model or endpoint.model
        body = request_body(question, endpoint, model, self.settings)
        before = self._before(question, Place(*running_cell()), model)
        schemas = toolset.schemas() if toolset else []
        shown = preview(endpoint, body, (*before, prompt.message), schemas, prompt)
        return self.without_keys(shown)

    def snippet(self, reply: Reply, form: str) -> str:
        """The turn as a program; ``form`` is one of ``export.FORMS``.

        Raises
        ------
        KimiError
            No such form, or nothing was sent.
        """
        from kimi_magic.export import write

        return self.without_keys(write(program_of(reply, self._connector.known_keys()), form))

    def to_go_on(self, chat: str) -> Question:
        """The question that goes on with a chat's latest turn.

        Raises
        ------
        KimiError
            There is none.
        """
        if not self.chats.get(chat).turns:
            raise KimiError(f"The chat {chat} has no turn to go on with.")
        return Question(GO_ON, chat=chat)

    def without_keys(self, value: T) -> T:
        """The same without any key that is known, of a text or what holds texts."""
        return without_keys(value, self._connector.known_keys())

    def close(self) -> None:
        """End the embedded engine and close idle connections."""
        self._connector.close()

    def _ask_in_chat(
        self, prompt: Any, *, chat: str, show: bool | None = None, **how: Any
    ) -> Reply:
        return self.ask(make_question(prompt, chat=chat, **how), show=show)

    def _prepare(self, question: Question) -> _Job:
        """All that can be refused before anything is shown."""
        prompt = self._composed(question)
        toolset = self._offered(question)
        endpoint = self.choose_endpoint(question.endpoint)
        key = self._connector.key(endpoint, getpass if can_answer() else None)
        return _Job(question, prompt, endpoint, key, toolset, Place(*running_cell()))

    def _composed(self, question: Question) -> Composed:
        secrets = self._connector.known_keys()
        tokens = self.settings.summary_tokens
        return compose(question, main(), secrets, tokens=tokens)

    def _offered(self, question: Question) -> Toolset | None:
        return offered_tools(question.tools, question.approve or self.settings.approve)

    def _turn(self, job: _Job) -> Generator[Event | None, None, None]:
        """The turn's events, ticks between them, and in the end its failure, if it failed."""
        question = job.question
        turn, model = Turn((), job.prompt.message, retries=0), question.model or job.endpoint.model
        request: dict[str, Any] = {}
        error: KimiError | TurnInterrupted | None = None
        try:
            line = self._connect(job)
            model = line.model
            request = self._request(job, line)
            turn = Turn(
                self._before(question, job.place, model),
                job.prompt.message,
                retries=self.settings.retries,
                tools=request.get("tools", ()),
                max_steps=question.max_steps or self.settings.max_steps,
                budget=self._connector.budget(line, request.get("max_tokens", 0)),
            )
            make_calls = caller(job.toolset, self._approve(job), self._connector.known_keys)
            yield TurnStarted(model, line.endpoint.name, line.practice)
            yield from self._tell_how_to_get_kimi(job, line)
            if job.prompt.masked:
                yield Notice(MASKED.format(", ".join(job.prompt.masked)))
            yield from drive(turn, self._sender(job, request), make_calls)
        except KimiError as failure:
            error = failure
            if isinstance(failure, KeyRefused):
                self._connector.forget(job.endpoint)
        except GeneratorExit:
            stopped = TurnInterrupted("No more events were asked for.")
            self._keep(job, turn, self._reply(job, turn, model, request, stopped))
            raise
        except KeyboardInterrupt:
            error = TurnInterrupted("Stopped. What had arrived is kept in kimi.last.")
            if not (turn.partial or turn.calling):
                self._connector.free(job.endpoint)
        reply = self._reply(job, turn, model, request, error)
        if others := self._keep(job, turn, reply):
            turns = "1 later turn was" if others == 1 else f"{others} later turns were"
            yield Notice(f"{turns} set aside: `%kimi chat {reply.chat} --all` shows all.")
        yield TurnFinished(reply)
        if error is not None:
            raise error from None

    def _before(self, question: Question, place: Place, model: str) -> tuple[Message, ...]:
        """What is sent before the prompt: the system prompt, and the chat so far."""
        chat = self.chats.get(question.chat) if question.chat else None
        earlier = chat.history(place, fresh=question.fresh) if chat else ()
        said = (*system_prompt(question, self.settings, model), *earlier)
        return said if question.allow_secrets else self.without_keys(said)

    def _request(self, job: _Job, line: Line) -> dict[str, Any]:
        """What the turn's requests hold beside their messages."""
        body = request_body(job.question, line.endpoint, line.model, self.settings)
        body |= {"tools": job.toolset.schemas()} if job.toolset else {}
        return body if job.question.allow_secrets else self.without_keys(body)

    def _sender(self, job: _Job, request: dict[str, Any]) -> Callable[[Send], Exchange]:
        """How the turn's requests go out."""

        def send(command: Send) -> Exchange:
            body = request | {"messages": [message.to_dict() for message in command.messages]}
            if not command.tools:
                body.pop("tools", None)
            if command.whole:
                body["stream"] = False
                body.pop("stream_options", None)
            # Each time anew: the embedded engine may have been ended since.
            return self._connect(job).client.chat(body, keys_of(self._connector.known_keys()))

        return send

    def _approve(self, job: _Job) -> Approve | None:
        """Who says yes to the turn's calls."""
        if (job.question.approve or self.settings.approve) == "no":
            return lambda *_: False
        if job.toolset is None or not can_answer():
            return None
        chat = job.question.chat
        approved: Approved = self.chats.get(chat).approved if chat else {}
        return Approval(job.toolset.namespace, approved, job.ask, job.announce)

    def _connect(self, job: _Job) -> Line:
        return self._connector.connect(
            job.endpoint,
            job.key,
            job.question.model,
            self.settings,
            lambda text: job.announce(Preparing(text)),
        )

    def _reply(
        self,
        job: _Job,
        turn: Turn,
        model: str,
        request: dict[str, Any],
        error: KimiError | TurnInterrupted | None,
    ) -> Reply:
        """What the turn has come to, with all that would ask it again."""
        tools = job.toolset.tools if job.toolset else []
        return replace(
            turn.reply(model=model, chat=job.question.chat, error=error),
            shown_in=job.shown_in,
            request=request,
            endpoint=job.endpoint,
            functions={tool.name: tool.function for tool in tools},
        )

    def _keep(self, job: _Job, turn: Turn, reply: Reply) -> int:
        """Keep the reply, and its turn in the chat; how many other turns were set aside for it."""
        if isinstance(reply.error, KimiError | TurnInterrupted):
            reply.error.reply = reply
        self.last = reply
        messages = turn.messages()
        if not (reply.chat and messages):
            return 0
        asked = self.without_keys(_text_of(job.question))
        made = ChatTurn(asked, reply, messages, job.place)
        return self.chats.get(reply.chat).append(made, fresh=job.question.fresh)

    def _tell_how_to_get_kimi(self, job: _Job, line: Line) -> Iterator[Event]:
        """Once, where the practice model answers though nobody chose it."""
        chosen = job.question.endpoint or self.settings.endpoint
        if line.practice and job.shown and not chosen and not self._told_how_to_get_kimi:
            self._told_how_to_get_kimi = True
            yield Notice(HOW_TO_GET_KIMI)


def _text_of(question: Question) -> str:
    """The prompt as it was asked, without what was attached."""
    return Message("user", as_content(question.prompt)).text


_current: Session | None = None
_current_lock = threading.Lock()


def current(settings: Settings | None = None) -> Session:
    """This kernel's session, made when it is first wanted.

    Parameters
    ----------
    settings : Settings, optional
        Take these over as the session's settings.
    """
    global _current  # noqa: PLW0603 - one session a process is what a kernel is
    with _current_lock:
        if _current is None:
            _current = Session(settings)
        elif settings is not None:
            _current.settings = settings
        return _current
