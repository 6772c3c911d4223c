"""The chat-completions API: its requests, the end of its streams and the shapes of its errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kimi_magic.secrets.keys import Key
from kimi_magic.wire.openai.accumulator import Accumulator
from kimi_magic.wire.protocols import Request, ServerError

__all__ = ["ChatCompletions", "words_of"]

MAX_READ = 10_000
MAX_NAMED = 5
_STATUS = re.compile("[45][0-9][0-9]")


class ChatCompletions:
    """The `Wire` of OpenAI-compatible servers."""

    models_path = "/models"

    def headers(self, key: Key | None) -> dict[str, str]:
        """Return the SDK's headers, but none that the environment's ``OPENAI_*`` would add."""
        import httpx2
        import openai

        # Only its headers are wanted; a transport of its own would load all certificates.
        sdk = openai.OpenAI(
            base_url="http://127.0.0.1",
            api_key=key.value if key else "none",
            http_client=httpx2.Client(transport=httpx2.BaseTransport(), trust_env=False),
        )
        return {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": sdk.user_agent,
            **sdk.platform_headers(),
            **sdk.auth_headers,
        }

    def request(self, body: Mapping[str, Any]) -> Request:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return Request("/chat/completions", text.encode())

    def fold(self, keys: Sequence[Key] = ()) -> Accumulator:
        return Accumulator(keys)

    def is_end(self, data: bytes) -> bool:
        return data.strip() == b"[DONE]"

    def is_error(self, chunk: Mapping[str, Any]) -> bool:
        if chunk.get("error"):
            return True
        if "choices" in chunk:
            return False
        return chunk.get("object") == "error" or bool(chunk.get("detail"))

    def read_error(self, body: object) -> ServerError:
        """Read an error in any of the servers' shapes; its code may be a status as a number."""
        words = words_of(body)
        if not isinstance(body, Mapping):
            return ServerError(words)
        inner = body.get("error")
        source = inner if isinstance(inner, Mapping) else body
        code = str(source.get("code") or source.get("status") or "")
        status = int(code) if _STATUS.fullmatch(code) else None
        return ServerError(words, f"{source.get('type') or ''} {code}", status)

    def read_models(self, body: Any) -> list[str]:
        ids = (model.get("id") for model in body["data"] if isinstance(model, dict))
        return sorted(name for name in ids if isinstance(name, str) and name)


def words_of(body: object, depth: int = 4) -> str:
    """Return the server's own words in an error body of any shape."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        # An error page of a proxy says it in its title.
        body = re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", body[:MAX_READ])
        title = re.search(r"(?is)<title>(.*?)</title>", body)
        return " ".join((title[1] if title else re.sub(r"<[^>]*>", " ", body)).split())
    if not depth or not body:
        return ""
    if isinstance(body, list):
        return "; ".join(words_of(item, depth - 1) for item in body[:MAX_NAMED])
    if not isinstance(body, Mapping):
        return str(body)
    if body.get("error"):
        return words_of(body["error"], depth - 1)
    named = [body.get(name) for name in ("title", "message", "msg", "detail")]
    if isinstance(about := body.get("metadata"), Mapping):  # OpenRouter: what its provider said
        named.append(about.get("raw"))
    words = ": ".join(words_of(value, depth - 1) for value in named if value)
    with suppress(RecursionError):
        words = words or json.dumps(body, ensure_ascii=False)
    return words
