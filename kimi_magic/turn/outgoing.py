"""The requests of a turn, as they go out: drafts, and the loop that fills in their messages.

Nothing here sends or changes anything: a dry run makes the same requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from kimi_magic.chats.chat import Chat, Place
from kimi_magic.chats.context_window import Calibration, ContextWindow, estimate
from kimi_magic.config import Settings
from kimi_magic.core.interrupts import interruptible
from kimi_magic.core.messages import Message
from kimi_magic.core.sent import Sent, outline
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.logprobs import LOGPROBS, LogprobsAsked
from kimi_magic.turn.loop import Loop, Send
from kimi_magic.turn.prompt import ComposedPrompt
from kimi_magic.turn.request import (
    TurnRequest,
    as_seen,
    earlier_messages,
    parameters,
    system_prompt,
)
from kimi_magic.wire.connector import Target
from kimi_magic.wire.spending import Meter, Spending

if TYPE_CHECKING:
    from kimi_magic.schema.output import OutputSchema
    from kimi_magic.secrets.keys import Key
    from kimi_magic.tools.toolset import Toolset

__all__ = ["Draft", "Outgoing"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draft:
    """The requests of a turn without their messages.

    ``common`` are the parameters of all of them, ``schema`` those that hold an answer to its form;
    ``limit_field`` is the name of the limit of tokens. With ``whole_messages``, the messages hold
    all that APIs other than chat completions take.
    """

    common: dict[str, Any]
    schema: dict[str, Any]
    limit_field: str
    whole_messages: bool = False

    def body(self, send: Send) -> dict[str, Any]:
        """Return the body of one request, as the wire takes it."""
        messages = [message.to_dict(whole=self.whole_messages) for message in send.messages]
        body = self.parameters(send) | {"messages": messages}
        if send.whole:
            body["stream"] = False
            body.pop("stream_options", None)
        return body

    def parameters(self, send: Send) -> dict[str, Any]:
        """Return the parameters of one request."""
        common = self.common
        if send.max_tokens:
            common = common | {self.limit_field: send.max_tokens}
        if send.logprobs:
            common = common | LOGPROBS
        if send.tools:
            return common
        # A server that holds the answer to a schema makes no calls.
        return {k: v for k, v in common.items() if k != "tools"} | self.schema

    def recorded(self, last: Send | None) -> dict[str, Any]:
        """Return the parameters of the turn's last request, and the tools that were offered."""
        return self.common | (self.parameters(last) if last else {})


@dataclass(frozen=True, slots=True)
class Outgoing:
    """All that a turn sends, without the keys of ``keys``, unless they may be sent.

    ``chat`` is the conversation that the turn continues, at ``place``. ``lacking`` are the models
    that give no logprobs.
    """

    request: TurnRequest
    prompt: ComposedPrompt
    toolset: Toolset | None
    schema: OutputSchema | None
    settings: Settings
    keys: Sequence[Key]
    place: Place
    chat: Chat | None
    lacking: set[tuple[str, str, str]]

    def drafts(self, target: Target) -> list[Draft]:
        """Return the drafts to try, the strictest hold on the answer first."""
        common = parameters(self.request, target, self.settings)
        if self.toolset:
            common["tools"] = self.toolset.schemas()
        if self.schema is None:
            schemas: Iterable[dict[str, Any]] = [{}]
        else:
            schemas = map(self.schema.request, target.strictnesses)
        field = target.record.limit_field
        whole = target.endpoint.wire != "chat"
        return [Draft(self._sendable(common), self._sendable(s), field, whole) for s in schemas]

    def new_loop(self, target: Target, draft: Draft, *, outlined: bool = True) -> Loop:
        """Return the loop that asks the target with one of the drafts."""
        request, settings = self.request, self.settings
        endpoint, model = target.endpoint, target.record
        earlier: tuple[Message, ...] = ()
        calibration = Calibration()
        if self.chat:
            key = endpoint.reasoning_key
            earlier = earlier_messages(
                self.chat, self.place, model, fresh=request.fresh, reasoning_key=key
            )
            calibration = self.chat.calibrations.get((endpoint.name, target.model), calibration)
        (prompt,) = as_seen([self.prompt.message], model)
        asks = request.logprobs and endpoint.wire == "chat"
        return Loop(
            self._sendable((*system_prompt(request, settings, model), *earlier)),
            prompt,
            retries=settings.retries,
            tools=draft.common.get("tools", ()),
            max_steps=request.max_steps or settings.max_steps,
            window=ContextWindow(
                model.context_window, draft.common.get(model.limit_field, 0), calibration
            ),
            check=_checker(self.schema) if self.schema else None,
            continues=request.continues,
            # Moonshot: not together with a response_format.
            partial_mode=request.cut_in_text and endpoint.partial_mode and self.schema is None,
            max_tokens=draft.common.get(model.limit_field, 0),
            limit_is_ours=request.max_tokens is None and settings.max_tokens is None,
            model=model,
            reasoning_key=endpoint.reasoning_key,
            logprobs=LogprobsAsked(target if asks else None, self.lacking),
            outline=self.outline if outlined else None,
        )

    def outline(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Sent:
        """Outline a request, by names without keys."""
        masks = Redactor(self.keys, shapes=not self.request.allow_secrets)
        return outline(messages, tools, masks.value(self.prompt.attached))

    def meter(
        self, spending: Spending, send: Send, target: Target, body: Mapping[str, Any]
    ) -> Meter:
        """Return what counts one request, and refuses it where the budget is used up."""
        return Meter(
            spending,
            self.request.chat,
            target.record,
            target.endpoint,
            asked=target.model,
            tokens=partial(estimate, send.messages, send.tools),
            limit=body.get(target.record.limit_field) or 0,
            budget=self.settings.most_spent,
        )

    def _sendable(self, value: T) -> T:
        if self.request.allow_secrets or not self.keys:
            return value
        return Redactor(self.keys).value(value)


def _checker(schema: OutputSchema) -> Callable[[str], str]:
    """Return the function that tells the model what of its answer does not fit."""
    from kimi_magic.schema.output import SchemaMismatch

    def check(text: str) -> str:
        try:
            with interruptible():
                schema.read(text)
        except SchemaMismatch as mismatch:
            return mismatch.correction
        return ""

    return check
