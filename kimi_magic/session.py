"""One kernel's settings, endpoints, keys and chats, and the doors to a turn."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from getpass import getpass
from typing import TYPE_CHECKING, Any, TypeVar

from kimi_magic.chats.chat import Chats, Place
from kimi_magic.config import Settings
from kimi_magic.core.errors import KimiError, TurnInterrupted, redact_errors
from kimi_magic.core.events import Event
from kimi_magic.core.frontend import can_answer, cell_number, running_cell
from kimi_magic.core.messages import Reply
from kimi_magic.display.view import Unseen, View, ViewOptions, open_view
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from kimi_magic.tools.decorator import main
from kimi_magic.turn.approval import asking
from kimi_magic.turn.conductor import Conductor, Job
from kimi_magic.turn.driver import watch
from kimi_magic.turn.dry_run import preview
from kimi_magic.turn.prompt import Composed, compose
from kimi_magic.turn.request import GO_ON, TurnRequest, make_request
from kimi_magic.turn.tool_calls import offered_tools
from kimi_magic.wire.connector import Connector
from kimi_magic.wire.endpoints import Catalogue, Endpoint

if TYPE_CHECKING:
    from kimi_magic.schema.output import OutputSchema

__all__ = ["Session", "current"]

T = TypeVar("T")
ENDED = ("stop", "content_filter")


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
        redact_errors(self.redact)

    def ask(
        self,
        question: TurnRequest,
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

    def stream(self, question: TurnRequest) -> Iterator[Event]:
        """Yield one turn's events as they happen; the last is ``TurnFinished``."""
        with closing(self._turn(self._prepare(question))) as events:
            while True:
                depth = getattr(self._here, "depth", 0)
                self._here.depth = depth + 1  # what a tool asks meanwhile is inside this turn
                try:
                    event = next(events)
                except StopIteration:
                    return
                finally:
                    self._here.depth = depth
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

    def preview(self, question: TurnRequest) -> str:
        """What a question would send, to the letter; nothing is sent.

        Raises
        ------
        KimiError
            The question would be refused.
        """
        self.settings.read_environment()
        endpoint = self.choose_endpoint(question.endpoint)
        self.key_at_hand(endpoint)
        job = self._job(question, endpoint)
        model = question.model or self.settings.model or job.endpoint.model
        return preview(job.endpoint, *self._conductor(job).first_request(model), job.prompt)

    def snippet(self, reply: Reply, form: str) -> str:
        """The turn as a program; ``form`` is one of ``export.FORMS``.

        Raises
        ------
        KimiError
            No such form, or nothing was sent.
        """
        from kimi_magic.export import write
        from kimi_magic.export.from_reply import program_of

        return self.redact(write(program_of(reply, self._connector.known_keys()), form))

    def to_go_on(self, chat: str) -> TurnRequest:
        """The question that goes on with a chat's latest turn.

        Raises
        ------
        KimiError
            There is none, or it came to its end.
        """
        known = self.chats.known(chat)
        unanswered: TurnRequest | None = known.unanswered
        if unanswered is not None and not unanswered.continues:
            return replace(unanswered, goes_on=True)
        turns = known.before(Place(*running_cell()))
        replaced: TurnRequest | None = next((t.question for t in known.turns[len(turns) :]), None)
        if replaced and not replaced.goes_on:
            raise KimiError("The turn to go on with is this cell's: go on in a cell of its own.")
        if replaced and not replaced.continues:
            return replaced
        if not turns:
            raise KimiError(f"The chat {chat} has no turn to go on with.")
        latest = turns[-1]
        if latest.reply.error is None and latest.reply.finish_reason == "stop":
            raise KimiError("The latest turn came to its end: ask on in a cell of your own.")
        asked: TurnRequest = latest.question
        steps = latest.reply.steps
        return replace(
            asked,
            prompt=GO_ON,
            goes_on=True,
            resumes=bool(steps) and steps[-1].finish_reason not in ENDED,
            fresh=False,
            variables=None,
            cells=(),
            expressions=(),
        )

    def redact(self, value: T) -> T:
        """Redact known keys from a text, a tool's result, or what holds these."""
        return Redactor(self._connector.known_keys()).value(value)

    def close(self) -> None:
        """End the embedded engine and close idle connections."""
        self._connector.close()

    def _ask_in_chat(
        self, prompt: Any, *, chat: str, show: bool | None = None, **how: Any
    ) -> Reply:
        return self.ask(make_request(prompt, chat=chat, **how), show=show)

    def _prepare(self, question: TurnRequest) -> Job:
        """All that can be refused before anything is shown."""
        self.settings.read_environment()
        endpoint = self.choose_endpoint(question.endpoint)
        # Before the prompt is composed: the key is redacted in it from then on.
        key = self._connector.key(endpoint, getpass if can_answer() else None)
        return replace(self._job(question, endpoint), key=key)

    def _job(self, question: TurnRequest, endpoint: Endpoint) -> Job:
        schema = self._schema(question)
        prompt = self._composed(question, schema)
        toolset = offered_tools(question.tools, question.approve or self.settings.approve)
        return Job(question, prompt, endpoint, None, toolset, schema, Place(*running_cell()))

    def _composed(self, question: TurnRequest, schema: OutputSchema | None) -> Composed:
        return compose(
            question,
            main(),
            self._connector.known_keys(),
            tokens=self.settings.summary_tokens,
            closing=schema.instruction if schema else "",
        )

    def _schema(self, question: TurnRequest) -> OutputSchema | None:
        if question.schema is None:
            return None
        from kimi_magic.schema.output import output_schema

        return output_schema(question.schema, main())

    def _turn(self, job: Job) -> Generator[Event | None, None, None]:
        return self._conductor(job).run()

    def _conductor(self, job: Job) -> Conductor:
        return Conductor(job, self.settings, self._connector, self.chats, self._remember)

    def _remember(self, reply: Reply) -> None:
        self.last = reply


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
