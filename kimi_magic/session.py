"""One kernel's settings, endpoints, keys and chats, and the doors to a turn."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kimi_magic.chats.chat import Chat, Chats, ChatTurn, Place
from kimi_magic.config import Settings
from kimi_magic.core.errors import KimiError, TurnInterrupted, redact_errors
from kimi_magic.core.events import Envelope, Event, LaneEvent, Sink, TurnFinished, TurnPrepared
from kimi_magic.core.frontend import (
    can_answer,
    cell_number,
    is_captured,
    notebook_path,
    running_cell,
    running_shell,
    user_namespace,
)
from kimi_magic.core.interrupts import holding_interrupts, waiting, whole_imports
from kimi_magic.core.nesting import depth, inside_turn
from kimi_magic.core.processes import process_name
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import mend_surrogates, reveal
from kimi_magic.core.turn_record import EndpointFacts, TurnRecord
from kimi_magic.display.display_hook import leave_out_repr
from kimi_magic.display.view import Unseen, View, ViewOptions, open_view
from kimi_magic.secrets.redact import Redactor, redact_logs
from kimi_magic.turn.tapes_in_use import TapesInUse
from kimi_magic.wire.connector import Connector
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.host import attach

if TYPE_CHECKING:
    from kimi_magic.chats.journal import Journal, StoredChat
    from kimi_magic.chats.journal_writer import JournalWriter
    from kimi_magic.secrets.keys import Key
    from kimi_magic.turn.dry_run import DryRun
    from kimi_magic.turn.heavy import HeavyTurn
    from kimi_magic.turn.request import TurnRequest
    from kimi_magic.turn.runner import PreparedTurn

__all__ = ["Session", "current"]

T = TypeVar("T")
LONGEST_FLUSH = 1.0  # seconds that a reader of the journal waits for what is not written yet
NO_JOURNAL = "No turns are kept: the setting journal is off."
TOO_DEEP = (
    "Tools ask inside of tools {} deep already, as one does that leads back to itself. "
    "%config KimiMagics.max_depth = N allows more."
)


class Session:
    """One kernel's settings, endpoints, keys and chats.

    Parameters
    ----------
    settings : Settings, optional
        The magics hand in themselves, so that ``%config KimiMagics`` sets what holds here.

    Attributes
    ----------
    last : Reply or None
        The latest reply.
    last_sweep : pandas.DataFrame or None
        The rows of the latest sweep.
    chats : Chats
    connector : Connector
        The endpoints, their keys and models.
    tapes : TapesInUse
        Those that answers are played from.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.last: Reply | None = None
        self.last_sweep: Any = None
        self.chats = Chats(self._ask_in_chat, self._forget_chat)
        self.connector = Connector()
        # A turn under way stays in the file in which it began, also if the setting changes.
        self._writers: dict[Path, JournalWriter] = {}
        self._writers_lock = threading.Lock()
        self.tapes = TapesInUse(lambda: self.settings)
        redact_errors(self.redact)
        redact_logs(self.redact)
        attach(self)

    @whole_imports()
    def ask(
        self,
        request: TurnRequest,
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
            After the record was frozen; ``error.reply`` is what had arrived.
        """
        from kimi_magic.turn.approval import asking

        if show is None:
            show = threading.current_thread() is threading.main_thread() and not depth.get()
        self._check_limits()
        try:
            turn = self._prepare(request)
            view = self._open_view(options or ViewOptions(), request) if show else Unseen()
        except KeyboardInterrupt:
            raise TurnInterrupted("Stopped before anything was sent.") from None
        if show:
            by_default = not (request.endpoint or self.settings.endpoint)
            turn = replace(turn, shown_in=cell_number(), announces_practice=by_default)
        last = _Last(self)
        with inside_turn(), holding_interrupts() as hold:
            try:
                for _ in turn.run(
                    [last, *self.journal_sinks(request, view), view], asking(view, self.redact)
                ):
                    pass
            except (KimiError, TurnInterrupted) as error:
                if isinstance(error, KimiError) and hold is not None and hold.pending:
                    raise last.stopped() from None
                if show and not is_captured(running_shell()):
                    error.told_in = cell_number()
                raise
            if hold is not None and hold.pending:
                raise last.stopped()
        assert last.reply is not None, "a turn ends with TurnFinished"
        if show:
            leave_out_repr(last.reply)
        return last.reply

    def stream(self, request: TurnRequest) -> Iterator[Event]:
        """Yield one turn's events as they happen; the last is ``TurnFinished``."""
        self._check_limits()
        last = _Last(self)
        stop = False
        turn = self._prepare(request)
        with closing(turn.run([last, *self.journal_sinks(request)])) as envelopes:
            while True:
                # Only while the turn works: between two events the consumer's own code runs.
                with inside_turn(), holding_interrupts() as hold:
                    try:
                        envelope = envelopes.throw(last.stopped()) if stop else next(envelopes)
                    except StopIteration:
                        return
                    stop = hold is not None and bool(hold.pending)
                    if hold is not None:
                        hold.pending = 0
                if envelope is not None and not isinstance(envelope.event, TurnPrepared):
                    event, lane = envelope.event, envelope.lane
                    try:
                        yield LaneEvent(lane, event) if lane else event
                    except GeneratorExit:
                        if stop:  # it arrived before the consumer left
                            signal.raise_signal(signal.SIGINT)
                        raise

    @whole_imports()
    def prepare(
        self, request: TurnRequest, *, ask_for_key: bool = True
    ) -> PreparedTurn | HeavyTurn:
        """Make a turn ready that the caller runs, such as beside others in lanes.

        Nobody is asked for a key where none is needed, as for a look at what would be sent.

        Raises
        ------
        KimiError
            The request would be refused.
        """
        self._check_limits()
        return self._prepare(request, ask_for_key=ask_for_key)

    @whole_imports()
    def dry_run(self, request: TurnRequest) -> DryRun:
        """Describe what a request would send, to the letter; nothing is sent or changed.

        Raises
        ------
        KimiError
            The request would be refused.
        """
        from kimi_magic.turn.dry_run import describe_request
        from kimi_magic.turn.runner import PreparedTurn

        prepared, first = self._prepare(request, ask_for_key=False), []
        if isinstance(prepared, PreparedTurn):
            turn = prepared
        else:
            turn, first = prepared.turn, [prepared.announcement()]
        parameters, send, notices = turn.first_request(turn.model)
        sent = turn.outgoing(None).outline(send.messages, send.tools)
        return describe_request(
            turn.endpoint,
            parameters,
            send,
            [*first, *notices],
            sent=sent,
            masked=turn.prompt.masked,
        )

    def sees(self, endpoint: str | None, model: str | None) -> bool:
        """Return True if the model that would be asked reads images, or is not known yet."""
        tape = self.tapes.current
        chosen = self.connector.choose(endpoint, self.settings, tape)
        lead = self.connector.lead(endpoint, self.settings, tape)
        led = lead.model if lead else None
        return self.connector.may_see(chosen, model or self.settings.model or led)

    @whole_imports()
    def to_continue(self, chat: str) -> TurnRequest:
        """Make the request that continues a chat's latest turn.

        Raises
        ------
        KimiError
            There is no such turn, or it came to its end.
        """
        from kimi_magic.turn.request import continuation

        return continuation(self.chats.known(chat), Place(*running_cell()))

    @whole_imports()
    def consents(self, question: str, shown: Mapping[str, str]) -> bool | None:
        """Ask a person to agree to what is shown; None where nobody can answer."""
        from kimi_magic.turn.approval import agreed_by_person

        return agreed_by_person(question, self.redact(dict(shown)))

    @property
    @whole_imports()
    def journal(self) -> Journal:
        """The turns that were kept, in the file that the settings name now."""
        from kimi_magic.chats.journal import Journal

        self.settings.read_environment()
        path = self.settings.journal_path
        if path in self._writers:
            self._writers[path].flush(LONGEST_FLUSH)
        return Journal(path)

    def resumable(self) -> list[StoredChat]:
        """Return the chats of this notebook that an earlier kernel left, the latest first."""
        return self.journal.chats(notebook_path(), kernel=process_name(), recover=True)

    @whole_imports()
    def resume(self, name: str) -> Chat:
        """Go on with a chat of this notebook that an earlier kernel left.

        Raises
        ------
        KimiError
            There is none, or a chat of that name has turns here.
        """
        if self.journal.path is None:
            raise KimiError(NO_JOURNAL)
        if self.chats.peek(name).turns:
            other = "" if name == self.chats.current else f" {name}"
            raise KimiError(
                f"The chat {name} has turns here already: `%kimi reset{other}` ends it, or ask in "
                "another with -c."
            )
        left = {stored.name: stored for stored in self.resumable()}
        if name not in left:
            others = f" There is {reveal(', '.join(left))}." if left else ""
            raise KimiError(f"The journal has no chat {name} of this notebook.{others}")
        from kimi_magic.chats.journal import replies
        from kimi_magic.turn.rebuild import rebuild

        again = Chat(name, self._ask_in_chat)
        turns = self.journal.turns_of(left[name])
        rebuild(again, replies(turns), connector=self.connector, settings=self.settings)
        (chat,) = self.chats.restore([again])
        if writer := self.journal_writer:
            writer.adopt(name, left[name].row)
        return chat

    @whole_imports()
    def snippet(
        self, reply: Reply, form: str, *, chat: bool = False, with_data: bool = False
    ) -> str:
        """Write the turn as a program; ``form`` is one of ``export.FORMS``.

        ``chat`` writes the turns before it as well, ``with_data`` the data of the notebook.

        Raises
        ------
        KimiError
            No such form, or nothing was sent.
        """
        from kimi_magic.export import leave_out, program_of, write
        from kimi_magic.tools.decorator import asks_first
        from kimi_magic.tools.mcp_tool import served_names
        from kimi_magic.turn.request import CONTINUE, ELSEWHERE
        from kimi_magic.wire.apis import encoder_of

        earlier = self.chats.peek(reply.chat).turns if reply.chat else ()
        filled = [t for each in (reply, *(turn.reply for turn in earlier)) for t in each.filled]
        values = {*filled, *map(self._masks().text, filled)}
        # A request to go on means nothing without the answer that it goes on with.
        chat = chat or reply.record.prompt == CONTINUE
        reply, notes = leave_out(reply, chat=chat, with_data=with_data, values=values)
        facts = reply.record.endpoint
        how: dict[str, Any] = {"encode": encoder_of(facts.wire) if facts else None}
        if reply.trajectories:
            from kimi_magic.turn.aggregation import PROMPT, room_for_attempts

            endpoint = self.connector.catalogue.of(reply.record.endpoint) or ELSEWHERE
            judge = self.connector.target(endpoint, str(reply.record.parameters.get("model") or ""))
            how["prompt"] = self.settings.heavy_prompt or PROMPT
            how["chars"] = room_for_attempts(judge.record.context_window)
        program = program_of(reply, self.connector.known_keys(), **how)
        confirmed = frozenset(name for name, f in reply.functions.items() if asks_first(f))
        served = served_names(tool["function"]["name"] for tool in program.tools)
        own: dict[str, Any] = {
            "notes": (*program.notes, *notes),
            "confirmed": confirmed,
            "served": served,
        }
        program = replace(program, **own)
        return self.redact(write(program, form))

    @whole_imports()
    def load(self, path: str | os.PathLike[str]) -> list[Chat]:
        """Rebuild the chats whose turns a notebook carries, in the order of its cells.

        Raises
        ------
        KimiError
            It carries none, or is none, or one of its chats has turns here; nothing has changed.
        """
        from kimi_magic.chats.notebook_file import read_turns
        from kimi_magic.turn.rebuild import rebuild

        file = Path(path).expanduser()
        stored: dict[str, list[Reply]] = {}
        for record in read_turns(file):
            if record.chat is not None:
                stored.setdefault(record.chat, []).append(Reply.of(self._believed(record)))
        if not stored:
            raise KimiError(f"{file.name} carries no turns of a chat.")
        chats = []
        for name, replies in stored.items():
            chats.append(chat := Chat(name, self._ask_in_chat))
            rebuild(
                chat, replies, connector=self.connector, settings=self.settings, made_here=False
            )
        return self.chats.restore(chats)

    @whole_imports()
    def save(
        self, path: str | os.PathLike[str], chat: str | Chat = "main", *, force: bool = False
    ) -> Path:
        """Write a chat as a notebook: its prompts as cells, its records as their outputs.

        Raises
        ------
        KimiError
            There is no such chat, it has no turns, or the file exists and ``force`` is not given.
        """
        from kimi_magic.chats.notebook_file import SavedCell, notebook_text, write_whole
        from kimi_magic.display.record import record_of
        from kimi_magic.turn.cell_source import cell_source

        file = Path(path).expanduser()
        if file.suffix != ".ipynb":
            raise KimiError(f"A notebook's name ends with .ipynb; {file.name!r} does not.")
        known = chat if isinstance(chat, Chat) else self.chats.known(chat)
        if not known.turns:
            raise KimiError(f"The chat {known.name} has no turns to save.")
        masks = self._masks()
        options = self._view_options(ViewOptions())
        cells = []
        for turn in known.turns:
            data, metadata = record_of(turn.reply, options)
            shown = self.redact(data)
            source = cell_source(self._spelled_out(turn))
            cells.append(SavedCell(masks.text(source), shown, metadata))
        text = mend_surrogates(notebook_text(cells))
        write_whole(file, text.encode(), replace_it=force)
        return file

    def redact(self, value: T) -> T:
        """Redact known keys in a text, a tool's result, or a structure of these."""
        return Redactor(self.connector.known_keys()).value(value)

    def close(self) -> None:
        """End the embedded engine, close idle connections, and write the journal to its end."""
        self.connector.close()
        self.tapes.close()
        for writer in self._open_writers():
            writer.close()

    @property
    def journal_writer(self) -> JournalWriter | None:
        """The writer of the file that the settings name now; None where no turns are kept."""
        path = self.settings.journal_path
        if path is None:
            return None
        with whole_imports():
            from kimi_magic.chats.journal_writer import JournalWriter

        with self._writers_lock:
            if path not in self._writers:
                self._writers[path] = JournalWriter(path, self.connector.known_keys)
            return self._writers[path]

    @whole_imports()
    def find_key(self, endpoint: Endpoint) -> Key | None:
        """Look an endpoint's key up, or let a person type it where somebody can."""
        with waiting():  # for a person, or for a keyring that asks one
            return self.connector.key(endpoint, getpass if can_answer() else None)

    @whole_imports()
    def _prepare(
        self, request: TurnRequest, *, ask_for_key: bool = True
    ) -> PreparedTurn | HeavyTurn:
        from kimi_magic.turn.request import check_heavy, judge_request

        check_heavy(request)
        turn = self._prepare_one(request, ask_for_key=ask_for_key)
        if request.heavy is None and not request.attempts:
            return turn
        from kimi_magic.turn.heavy import HeavyTurn

        judge = judge_request(request)
        own = replace(turn, request=judge)
        if request.judge:
            own = self._prepare_one(judge, ask_for_key=ask_for_key)
        count = request.heavy or len(request.attempts)
        heavy = HeavyTurn(turn, replace(own, toolset=None), count)
        heavy.check()
        return heavy

    @whole_imports()
    def _prepare_one(self, request: TurnRequest, *, ask_for_key: bool = True) -> PreparedTurn:
        from kimi_magic.turn.runner import prepare

        return prepare(
            request,
            settings=self.settings,
            connector=self.connector,
            chats=self.chats,
            find_key=self.find_key if ask_for_key else self.connector.key_at_hand,
            namespace=user_namespace(),
            place=Place(*running_cell()),
            tape=self.tapes.current,
            news=self.tapes.news,
        )

    @whole_imports()
    def _ask_in_chat(
        self, prompt: Any, *, chat: str, show: bool | None = None, **options: Any
    ) -> Reply:
        from kimi_magic.turn.request import make_request

        return self.ask(make_request(prompt, chat=chat, **options), show=show)

    def _open_view(self, options: ViewOptions, request: TurnRequest) -> View:
        options = self._view_options(options)
        if request.no_history:
            options = replace(options, portable=None)
        return open_view(self.settings.view, options)

    def _view_options(self, options: ViewOptions) -> ViewOptions:
        own = self.settings
        return replace(
            options,
            keep_reasoning=own.keep_reasoning_open,
            max_chars=own.max_output_chars,
            portable=self._portable,
            mask=lambda facts: self._masks().value(facts),
            times=own.record_times,
        )

    def _spelled_out(self, turn: ChatTurn) -> ChatTurn:
        """Return a turn whose request names what the settings chose for it."""
        from kimi_magic.turn.request import TurnRequest, request_of

        request = turn.request
        if not isinstance(request, TurnRequest):
            return turn
        asked = request_of(turn.reply.record, self.connector, Settings())
        names = ("system", "effort", "temperature", "top_p")
        chosen = {n: getattr(asked, n) for n in names if getattr(request, n) is None}
        return replace(turn, request=replace(request, **chosen))

    def _believed(self, record: TurnRecord) -> TurnRecord:
        """Return a record of somebody else's with the name of its endpoint alone.

        A program must not send a key to an address that stands in a file.
        """
        if record.endpoint is None:
            return record
        here = self.connector.catalogue.of(record.endpoint)
        facts = here.facts if here else EndpointFacts(record.endpoint.name)
        return replace(record, endpoint=facts)

    def _portable(self, record: TurnRecord) -> dict[str, Any]:
        """Return the form of a turn that a notebook may carry: without a key, and bounded."""
        from kimi_magic.chats.portable_turn import portable

        own = self.settings
        return portable(
            record, self._masks(), max_chars=own.max_output_chars, times=own.record_times
        )

    def _masks(self) -> Redactor:
        """Return what masks a text that a file keeps: known keys, and all that looks like one."""
        return Redactor(self.connector.known_keys(), shapes=True)

    def journal_sinks(self, request: TurnRequest, view: View | None = None) -> list[Sink]:
        """Return the sink that keeps a turn, if it is to be kept."""
        writer = None if request.no_history else self.journal_writer
        if writer is None:
            return []
        from kimi_magic.turn.sinks import JournalSink

        shown = None if isinstance(view, Unseen) else view
        return [JournalSink(writer, notebook_path(), shown)]

    def _forget_chat(self, name: str) -> None:
        for writer in self._open_writers():
            writer.forget(name)

    def _open_writers(self) -> list[JournalWriter]:
        with self._writers_lock:
            return list(self._writers.values())

    def _check_limits(self) -> None:
        self.settings.read_environment()
        self.connector.spending.check(self.settings.most_spent)
        if depth.get() > self.settings.max_depth:
            raise KimiError(TOO_DEEP.format(self.settings.max_depth))


class _Last:
    """The sink that keeps the session's latest reply."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.reply: Reply | None = None

    def handle(self, envelope: Envelope) -> None:
        if isinstance(envelope.event, TurnFinished) and not envelope.lane:
            self.reply = self._session.last = envelope.event.reply

    def stopped(self) -> TurnInterrupted:
        """Make the error of a turn that was interrupted when it had finished."""
        interrupt = TurnInterrupted("Stopped when the answer was there.")
        interrupt.reply = self.reply
        return interrupt

    def tick(self) -> None:
        """Do nothing: only the finished turn counts."""

    def close(self) -> None:
        """Do nothing: only the finished turn counts."""


_current: Session | None = None
_current_lock = threading.Lock()


def current(settings: Settings | None = None) -> Session:
    """Return this kernel's session, made when it is first wanted.

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
