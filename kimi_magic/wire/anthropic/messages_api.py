"""The Messages API: requests, errors, events → deltas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kimi_magic.secrets.keys import Key
from kimi_magic.wire.anthropic.block_fold import BlockFold
from kimi_magic.wire.anthropic.messages_body import messages_body
from kimi_magic.wire.openai.chat_completions import words_of
from kimi_magic.wire.protocols import Request, ServerError
from kimi_magic.wire.sse import NamedEvent

__all__ = ["Messages"]

# What other servers implement. The SDK sends 2026-10-21 since its version 2: that one takes no
# temperature and no top_p (platform.claude.com, *Versions*).
VERSION = "2023-06-01"
END = b"message_stop"
LONGEST_END = 200
# An error in mid-stream has a type and no status (docs.claude.com, *Errors*).
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Messages:
    """The `Wire` of Anthropic and of the servers that speak its API.

    Parameters
    ----------
    signed : bool
        The server is Anthropic's own: it takes no thinking that it has not signed, and no key in
        two headers.
    """

    models_path = "/v1/models?limit=1000"

    def __init__(self, *, signed: bool = False) -> None:
        self._signed = signed

    def headers(self, key: Key | None) -> dict[str, str]:
        """Return the SDK's headers, but none that the environment's ``ANTHROPIC_*`` would add."""
        import anthropic
        import httpx2

        # Only its headers are wanted; a transport of its own would load all certificates.
        sdk = anthropic.Anthropic(
            base_url="http://127.0.0.1",
            api_key=key.value if key else "none",
            http_client=httpx2.Client(transport=httpx2.BaseTransport(), trust_env=False),
        )
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": sdk.user_agent,
            **sdk.platform_headers(),
            "anthropic-version": VERSION,
        }
        if key:
            headers["X-Api-Key"] = key.value
            if not self._signed:  # other servers read one header or the other
                headers["Authorization"] = f"Bearer {key.value}"
        return headers

    def request(self, body: Mapping[str, Any]) -> Request:
        encoded = messages_body(body, signed=self._signed)
        text = json.dumps(encoded, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return Request("/v1/messages", text.encode())

    def fold(self, keys: Sequence[Key] = ()) -> BlockFold:
        return BlockFold(keys)

    def is_end(self, data: bytes) -> bool:
        if isinstance(data, NamedEvent):
            return data.name == END
        if len(data) > LONGEST_END or END not in data:  # a server that names no events
            return False
        with suppress(ValueError):
            event = json.loads(data)
            return isinstance(event, dict) and event.get("type") == END.decode()
        return False

    def is_error(self, chunk: Mapping[str, Any]) -> bool:
        return chunk.get("type") == "error" or ("type" not in chunk and bool(chunk.get("error")))

    def read_error(self, body: object) -> ServerError:
        words = words_of(body)
        if not isinstance(body, Mapping):
            return ServerError(words)
        inner = body.get("error")
        source = inner if isinstance(inner, Mapping) else body
        kind = str(source.get("type") or "")
        details = source.get("details")
        code = details.get("error_code") if isinstance(details, Mapping) else source.get("code")
        return ServerError(words, f"{kind} {code or ''}", STATUSES.get(kind))

    def read_models(self, body: Any) -> list[str]:
        ids = (model.get("id") for model in body["data"] if isinstance(model, dict))
        return sorted(name for name in ids if isinstance(name, str) and name)
