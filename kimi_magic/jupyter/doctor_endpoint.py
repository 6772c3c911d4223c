"""The doctor on an endpoint: rules that turn its round trips into rows of the table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from kimi_magic.core.messages import ToolCall
from kimi_magic.core.text import clip, count
from kimi_magic.jupyter.doctor_table import Row, State
from kimi_magic.wire.probe import Failure, Listing, Trip

__all__ = ["LARGER", "Findings", "endpoint_rows", "is_kept_to_schema"]

LARGER = ("9.9", "9.11")  # the answers between which the model chooses, the right one first
AT_ONCE = 0.05  # seconds in which a buffered answer arrives
ENOUGH_CHUNKS = 4
SLOW = 0.5  # seconds; a quicker answer may arrive at once though nothing holds it back
SKEWED, FAR_SKEWED = 60.0, 300.0  # seconds; beyond the latter, signed tokens are often refused
MAX_NAME = 60
NOTHING_SENT = "how it streams, thinks, calls tools and counts is not known"


@dataclass(slots=True)
class Findings:
    """The facts of an endpoint, and its round trips; None where one was not made.

    Attributes
    ----------
    wire : str
        ``chat``, or the name of another API.
    via : str
        The variable of the proxy on the way.
    is_default : bool
        True if nobody named the model.
    window : int
        The context window that a turn counts with, in tokens.
    answers : str
        The strictest way in which a turn asks for structured answers.
    batch_price : float or None
        The share of its prices that an answer in a batch costs; None where there is no Batch API.
    same_model : bool
        True if the model that answered is the one that was asked, perhaps by another name.
    any_json : Trip or None
        The request for any JSON, made where a schema was refused.
    unsent : tuple of str
        The reason why nothing was sent, and what to do; empty where something was.
    """

    name: str
    address: str = ""
    model: str = ""
    wire: str = "chat"
    has_key: bool = False
    via: str = ""
    is_default: bool = False
    window: int = 0
    is_window_known: bool = True
    answers: str = "json_object"
    batch_price: float | None = None
    same_model: bool = True
    listing: Listing | None = None
    stream: Trip | None = None
    tools: Trip | None = None
    structured: Trip | None = None
    any_json: Trip | None = None
    unsent: tuple[str, ...] = ()

    @property
    def broke(self) -> Failure | None:
        """The failure that ended the examination at its beginning, if there was one."""
        if self.listing and self.listing.failure and self.listing.failure.is_unreached:
            return self.listing.failure
        return self.stream.failure if self.stream else None


def endpoint_rows(facts: Findings) -> Iterator[Row]:
    """Judge an endpoint."""
    if facts.unsent:
        means, do = facts.unsent
        found = f"nothing was sent to {facts.name}"
        yield Row("endpoint.sent", "unknown", found, f"{means}: {NOTHING_SENT}", do)
        return
    yield from _way(facts)
    yield from _key(facts)
    yield from _model(facts)
    if facts.stream and facts.stream.is_answered:
        yield _streaming(facts.stream)
        yield _reasoning(facts.stream, facts.tools)
        yield _usage(facts.stream)
    if facts.tools and not facts.tools.stopped:
        yield from _tool_calls(facts.tools)
    if facts.structured and not facts.structured.stopped:
        yield _structured(facts, facts.structured)
    if facts.broke is None and facts.model:
        yield _window(facts)
    if facts.batch_price is not None:
        price = f", for {facts.batch_price:.0%} of the price" if facts.batch_price < 1 else ""
        means = f'`kimi.map(…, engine="batch")` gives it many rows to answer later{price}'
        yield Row("endpoint.batch", "ok", "the Batch API is known to be there", means)
    yield from _clock(facts)


def _way(facts: Findings) -> Iterator[Row]:
    """Judge the way to the server: it answers, it is reached, or it is not."""
    through = f", through the proxy of {facts.via}" if facts.via else ""
    broke = facts.broke
    if broke is None:
        trip = facts.stream
        status = f" (HTTP {trip.status})" if trip and trip.status else ""
        if status or (facts.listing and not facts.listing.failure):
            yield Row("endpoint.address", "ok", f"{facts.address} answers{status}{through}")
        return
    is_reached = broke.kind in ("key", "rate", "quota", "request", "server", "silent")
    if is_reached or (_has_models(facts) and broke.kind in ("missing", "here")):
        status = f" (HTTP {broke.status})" if broke.status else ""
        yield Row("endpoint.address", "ok", f"{facts.address} is reached{status}{through}")
        if broke.kind not in ("key", "missing"):
            yield Row("endpoint.answer", "mend", broke.said, *_of_failure(broke))
        return
    means, do = _of_failure(broke)
    if facts.via and broke.kind in ("name", "refused", "slow"):
        means = f"the proxy of {facts.via} is not found or does not answer, or the host behind it"
    elif broke.kind == "name":
        do = (
            "check the spelling, the network and the VPN; `-e NAME` or KIMI_BASE_URL choose another"
        )
    yield Row("endpoint.address", "mend", broke.said, means, do)


_CAUSES = {
    "name": "the name of the host is not found (DNS)",
    "tls": "TLS fails: the certificate or the protocol does not fit",
    "proxy": "the proxy on the way does not let it through",
    "refused": "nobody listens at this address and port",
    "slow": "no connection in time: a firewall drops it, or the host is down",
    "redirect": "it leads elsewhere, and no prompt goes there",
    "page": "a page of HTML came in place of an answer, as from the login of a proxy or a portal",
    "missing": "nothing answers at this path",
    "stream": "it speaks another protocol, or something on the way changes answers",
    "broken": "the connection broke",
    "quota": "the account has nothing left",
    "rate": "the account may ask less often than this",
    "server": "the server fails, not this machine",
    "silent": "the server is reached, and no answer came in time",
    "request": "the server refuses what a turn sends",
    "here": "nothing was sent",
}
_LOG_IN = "open the address in a browser and log in, or have NO_PROXY name the host; "


def _of_failure(failure: Failure) -> tuple[str, str]:
    """Return the meaning of a failure, and what to do."""
    first = _LOG_IN if failure.kind == "page" else ""
    return _CAUSES.get(failure.kind, ""), f"{first}{failure.advice}"


def _has_models(facts: Findings) -> bool:
    return facts.listing is not None and facts.listing.ids is not None


def _key(facts: Findings) -> Iterator[Row]:
    broke = facts.broke
    if broke is not None and broke.kind == "key":
        yield Row("endpoint.key", "mend", broke.said, "the key is not accepted", broke.advice)
    elif facts.stream and facts.stream.status and not facts.stream.failure:
        if facts.has_key:
            yield Row("endpoint.key", "ok", "the key is accepted")
        else:
            yield Row("endpoint.key", "ok", "it answers without a key")


def _model(facts: Findings) -> Iterator[Row]:
    broke, listing, name = facts.broke, facts.listing, clip(facts.model, MAX_NAME)
    if broke is not None:
        if broke.kind == "missing" and _has_models(facts):
            yield Row("endpoint.model", "mend", broke.said, "the model is not there", broke.advice)
        return
    if listing is not None and listing.failure is not None:
        yield Row(
            "endpoint.models",
            "look",
            f"no list of models: {listing.failure.said}",
            "`%kimi models` and completion know none, a model that ended is not replaced",
            "name the model: `-m ID` or `%config KimiMagics.model`",
        )
    trip = facts.stream
    if trip is None or not trip.is_answered:
        return
    is_listed = listing is None or listing.ids is None or facts.model in listing.ids
    told = "" if is_listed else ", although the server does not list it"
    if not facts.same_model:
        yield Row(
            "endpoint.model",
            "look",
            f"{clip(trip.model, MAX_NAME)} answers where {name} was asked",
            "another model than the one that you asked, or its name at a provider behind this one",
            "`%kimi models` lists what there is; ask the provider which one it serves",
        )
        return
    called = f", as {clip(trip.model, MAX_NAME)}" if trip.model not in ("", facts.model) else ""
    default = "it is asked by default" if facts.is_default else "it was named for it"
    yield Row("endpoint.model", "ok", f"{name} answers{called}{told}", default)


def _streaming(trip: Trip) -> Row:
    seconds = f"{trip.wait:.1f} s" if trip.wait >= 0.1 else f"{trip.wait * 1000:.0f} ms"
    if trip.is_whole:
        return Row(
            "endpoint.stream",
            "look",
            "the answer came as one document, though a stream was asked for",
            "nothing is seen until an answer is whole",
            "does the server or a gateway before it support `stream`?",
        )
    if trip.pieces > 1 and (trip.span > AT_ONCE or trip.wait < SLOW):
        pieces = f"{count(trip.chunks, 'chunk')} in {count(trip.pieces, 'piece')}"
        return Row("endpoint.stream", "ok", f"it streams: {pieces}, the first after {seconds}")
    if trip.chunks < ENOUGH_CHUNKS or trip.wait < SLOW:
        return Row(
            "endpoint.stream",
            "unknown",
            f"the whole stream came at once, after {seconds}",
            "the answer was too short or too quick to tell if something holds it back",
        )
    return Row(
        "endpoint.stream",
        "look",
        f"{count(trip.chunks, 'chunk')} came all at once, after {seconds}",
        "a proxy or a gateway on the way buffers: nothing is seen until an answer is whole",
        "switch its buffering off for text/event-stream (nginx: `proxy_buffering off`)",
    )


def _reasoning(trip: Trip, tools: Trip | None) -> Row:
    fields = trip.reasoning_fields or (tools.reasoning_fields if tools else ())
    chars = trip.reasoning_chars or (tools.reasoning_chars if tools else 0)
    check = "endpoint.reasoning"
    if fields:
        return Row(check, "ok", f"reasoning comes as {' and '.join(fields)}", "it is shown apart")
    if chars and not trip.is_chat:
        return Row(check, "ok", "reasoning comes in blocks of its own", "it is shown apart")
    if chars:
        return Row(
            check,
            "look",
            "reasoning comes inside the text, between tags",
            "kimi-magic takes it out, but a tag that is cut or missing mixes it with the answer",
            "start the server with the model's parser, such as `--reasoning-parser kimi_k3`",
        )
    return Row(
        check,
        "unknown",
        "no reasoning came",
        "the model does not reason on so short a question, or the server keeps it to itself",
        "`%%kimi --effort high` asks for more, where the model has levels",
    )


def _usage(trip: Trip) -> Row:
    usage = trip.usage
    if not usage.total_tokens:
        return Row(
            "endpoint.usage",
            "look",
            "no token counts came",
            "footers, `%kimi usage` and a budget go by estimates",
            "does the server support `stream_options: {include_usage: true}`?" * trip.is_chat,
        )
    place = {"last": "in a last chunk", "choice": "beside the finish reason"}.get(
        trip.usage_place, "with the answer"
    )
    parts = [f"{usage.prompt_tokens:,} in", f"{usage.completion_tokens:,} out"]
    parts += [f"{usage.reasoning_tokens:,} of reasoning"] * bool(usage.reasoning_tokens)
    parts += [f"{usage.cached_tokens:,} cached"] * bool(usage.cached_tokens)
    apart = "" if usage.reasoning_tokens else "reasoning is not counted apart"
    return Row("endpoint.usage", "ok", f"token counts come {place}: {', '.join(parts)}", apart)


def _tool_calls(trip: Trip) -> Iterator[Row]:
    check = "endpoint.tool_calls"
    if trip.failure:
        yield _failed(check, "a request with a tool", trip.failure)
        return
    if trip.calls:
        yield _calls(trip)
        yield _ids(trip.calls)
    elif raw := _RAW.search(trip.text):
        found = f"tokens of a call stand in the text: {raw[0]}"
        yield Row(check, "mend", found, "no tool is ever called", _PARSER)
    else:
        cut = ", as the answer was cut" if trip.finish_reason == "length" else ""
        yield Row(
            check,
            "unknown",
            f"no tool was called{cut}",
            "the model may answer without, or the server leaves calls out",
            "ask again; `%%kimi -T` shows a turn with a tool",
        )


def _calls(trip: Trip) -> Row:
    """Judge the form in which calls came."""
    check, calls = "endpoint.tool_calls", count(len(trip.calls), "call")
    if trip.is_chat and not trip.sent_calls:
        found = f"{calls} came as raw tokens in the text"
        return Row(check, "look", found, "kimi-magic reads them, other programs do not", _PARSER)
    if wrong := [call for call in trip.calls if not _is_object(call.arguments)]:
        found = f"the arguments of {count(len(wrong), 'call')} are no JSON"
        return Row(check, "look", found, "the model is told, and tries again")
    bare = ", whole and without an index" if trip.is_chat and not trip.sent_indexes else ""
    return Row(check, "ok", f"{calls}, parsed{bare}")


_RAW = re.compile(r"<\|tool_call\w*\|>|<\|open\|>\s*(?:tools|call)|<tool_call>|<function=")
_PARSER = (
    "start the server with the model's parser, such as `--tool-call-parser kimi_k3 "
    "--enable-auto-tool-choice`"
)
_FORMS = (
    (re.compile(r"(?:functions\.)?[\w.-]+:\d+"), "functions.NAME:N"),
    (re.compile(r"call_[\w-]+"), "call_…"),
    (re.compile(r"chatcmpl-tool-[\w-]+"), "chatcmpl-tool-…"),
    (re.compile(r"toolu_[\w-]+"), "toolu_…"),
)


def _ids(calls: Sequence[ToolCall]) -> Row:
    ids = [call.id for call in calls]
    form = next((name for known, name in _FORMS if known.fullmatch(ids[0])), "their own")
    form = f"they have the form {form}"
    if not all(ids):
        return Row("endpoint.call_ids", "ok", "calls have no ids", "kimi-magic numbers them itself")
    if len(set(ids)) < len(ids):
        return Row(
            "endpoint.call_ids",
            "look",
            "ids of calls are not unique",
            f"{form}; kimi-magic numbers them anew, other programs mix their results up",
            "a newer version of the server may have it right",
        )
    alone = "" if len(ids) > 1 else " (there was one call)"
    return Row("endpoint.call_ids", "ok", f"ids of calls are unique{alone}", form)


def _is_object(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        return isinstance(json.loads(text or "{}"), dict)
    return False


def is_kept_to_schema(text: str) -> bool:
    """Return True for an answer that is JSON of the form that the schema describes."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        return isinstance(found, dict) and found.get("larger") in LARGER and len(found) == 1
    return False


def _structured(facts: Findings, trip: Trip) -> Row:
    check, looser = "endpoint.structured", facts.any_json
    asked = {"json_schema": "a schema", "json_object": "any JSON", "text": "nothing"}
    turn = f"turns ask the server for {asked.get(facts.answers, facts.answers)}, and check it"
    if trip.failure is None:
        if is_kept_to_schema(trip.text):
            more = "" if facts.answers == "json_schema" else _STRICTER
            return Row(check, "ok", "answers are held to a schema (json_schema)", turn, more)
        if trip.finish_reason == "length":
            return Row(check, "unknown", "the answer in JSON was cut: its limit was too low")
        return Row(
            check,
            "look",
            "json_schema is taken, and the answer does not keep to it",
            f"{turn}; a wrong answer is asked for once more",
            "kimi.add_endpoint(…, answers='json_object') asks for less",
        )
    if trip.failure.kind != "request":
        return _failed(check, "a request for structured output", trip.failure)
    if looser is not None and looser.failure is None:
        state: State = "look" if facts.answers == "json_schema" else "ok"
        do = "kimi.add_endpoint(…, answers='json_object')" if state == "look" else ""
        return Row(check, state, "json_object is taken, json_schema is refused", turn, do)
    state = "ok" if facts.answers == "text" else "look"
    do = "kimi.add_endpoint(…, answers='text')" if state == "look" else ""
    both = " and json_object are" if facts.wire == "chat" else " is"
    return Row(check, state, f"json_schema{both} refused", turn, do)


_STRICTER = "kimi.add_endpoint(…, answers='json_schema') has turns ask for it"


def _failed(check: str, request: str, failure: Failure) -> Row:
    return Row(check, "look", f"{request} failed: {failure.said}", *_of_failure(failure))


def _window(facts: Findings) -> Row:
    listed = facts.listing.windows.get(facts.model) if facts.listing else None
    own = f"{facts.window:,} tokens" if facts.is_window_known else "an unknown number of tokens"
    check = "endpoint.window"
    if listed is None:
        if facts.is_window_known:
            found = f"the server tells no context window; {facts.model} is known to have {own}"
            return Row(check, "ok", found)
        return Row(
            check,
            "look",
            "the context window is not known",
            f"turns count with {facts.window:,} tokens",
            "kimi.add_endpoint(…, context_window=N) tells it",
        )
    if listed < facts.window:
        return Row(
            check,
            "look",
            f"the server's context window has {listed:,} tokens",
            f"turns count with {facts.window:,}: a long chat may be refused",
            f"kimi.add_endpoint(…, context_window={listed})",
        )
    return Row(check, "ok", f"the context window has {listed:,} tokens", f"turns count with {own}")


def _clock(facts: Findings) -> Iterator[Row]:
    """Tell how far the clocks are apart, by the smallest difference: a Date has whole seconds."""
    trips = (facts.stream, facts.tools, facts.structured, facts.any_json)
    skews = [trip.skew for trip in trips if trip and trip.skew is not None]
    if not skews:
        return
    skew = min(skews, key=abs)
    if abs(skew) < SKEWED:
        yield Row("endpoint.clock", "ok", "the clocks here and there agree")
        return
    ahead = "behind" if skew > 0 else "ahead of"
    state: State = "mend" if abs(skew) >= FAR_SKEWED else "look"
    yield Row(
        "endpoint.clock",
        state,
        f"this machine's clock is {abs(skew):,.0f} s {ahead} the server's",
        "certificates and signed requests may be refused, times in records are wrong",
        "set the clock, or have it set by NTP",
    )
