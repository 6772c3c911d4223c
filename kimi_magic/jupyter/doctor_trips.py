"""The doctor's round trips: short questions whose answers show the dialect of a server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kimi_magic.core.messages import Message
from kimi_magic.core.sent import estimate
from kimi_magic.jupyter.doctor_endpoint import LARGER, Findings
from kimi_magic.turn.request import TurnRequest, parameters
from kimi_magic.wire.models import newest
from kimi_magic.wire.probe import Probe, Trip
from kimi_magic.wire.spending import Meter

if TYPE_CHECKING:
    from kimi_magic.session import Session
    from kimi_magic.wire.connector import ResolvedEndpoint, Target

__all__ = ["make_trips"]

LIMIT = 500  # tokens of each answer, reasoning included
# After one of these, as after a server that was not reached, the next request would fail alike.
LASTING = ("redirect", "page", "key", "quota", "rate")
NUMBERS = f"Which number is larger, {LARGER[1]} or {LARGER[0]}?"
WEATHER = "What is the weather in Bern and in Rome? Call the tool for both at once."
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"larger": {"type": "string", "enum": list(LARGER)}},
    "required": ["larger"],
    "additionalProperties": False,
}
IN_JSON = f'{NUMBERS} Answer with JSON only, in this form: {{"larger": "NUMBER"}}'
STRICT = {"name": "larger", "schema": SCHEMA, "strict": True}


def make_trips(session: Session, resolved: ResolvedEndpoint, findings: Findings) -> None:
    """Send the requests, and note what they show; an interrupt leaves the findings so far.

    Raises
    ------
    KimiError
        The request cannot be made.
    """
    connector, settings = session.connector, session.settings
    client, endpoint, target = resolved.client, resolved.target.endpoint, resolved.target
    probe = Probe(client, connector.known_keys())
    findings.listing = listing = probe.list_models()
    if endpoint.base_url:  # nobody may have named a model, and the list tells one
        named = settings.model or connector.default_model(endpoint)
        target = connector.target(endpoint, named or newest(listing.ids or ()))
    record = target.record
    findings.model, findings.answers = target.model, target.strictnesses[0]
    findings.batch_price = endpoint.batch_price if endpoint.batch else None
    findings.is_default = target.is_default and not settings.model
    findings.window = record.context_window
    findings.is_window_known = record.reasoning != "unknown" or bool(endpoint.context_window)
    if listing.failure is not None and listing.failure.is_unreached:
        return

    def ask(trip: Trip, prompt: str, **more: Any) -> bool:
        """Make a trip; return False if the next would fail alike."""
        messages = [{"role": "user", "content": prompt}]
        body = _parameters(session, target) | {"messages": messages, **more}
        meter = Meter(
            connector.spending,
            None,
            record,
            endpoint,
            asked=target.model,
            tokens=partial(estimate, [Message("user", prompt)], more.get("tools", ())),
            limit=LIMIT,
            budget=settings.most_spent,
        )
        probe.ask(body, record, meter, trip)
        failure = trip.failure
        return failure is None or not (failure.is_unreached or failure.kind in LASTING)

    findings.stream = Trip()
    ask(findings.stream, f"{NUMBERS} Explain it in one sentence.")
    if findings.stream.failure is not None:
        if findings.stream.failure.kind == "key":
            connector.forget(endpoint)  # a typed one: the next cell asks for another
        return
    answered_by = connector.model_records.get(findings.stream.model).name
    findings.same_model = not findings.stream.model or (
        answered_by == connector.model_records.get(target.model).name
        or _bare(findings.stream.model).startswith(_bare(target.model))
        or _bare(target.model).startswith(_bare(findings.stream.model))
    )
    findings.tools = Trip()
    if not ask(findings.tools, WEATHER, tools=[TOOL]):
        return
    findings.structured = Trip()
    form = {"type": "json_schema", "json_schema": STRICT}
    ask(findings.structured, IN_JSON, response_format=form)
    refused = findings.structured.failure
    # The Messages API has no way to ask for any JSON.
    if refused is not None and refused.kind == "request" and findings.wire == "chat":
        findings.any_json = Trip()
        ask(findings.any_json, IN_JSON, response_format={"type": "json_object"})


def _parameters(session: Session, target: Target) -> dict[str, Any]:
    """Return the parameters of a turn, with a small limit and little reasoning."""
    own = target.endpoint.max_tokens
    record = target.record
    # Reasoning that can be switched off stays on: its field is one of the facts to find.
    is_low = record.reasoning == "always" and "low" in record.efforts_at(target.endpoint)
    request = TurnRequest("", max_tokens=min(LIMIT, own or LIMIT), effort="low" if is_low else None)
    return parameters(request, target, session.settings)


def _bare(model: str) -> str:
    return model.lower().rpartition("/")[2].partition(":")[0]
