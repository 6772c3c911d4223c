"""The Batch API of a scripted server: files, and batches that end when a test says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import BodyPartReader, web

from kimi_magic.testing.answers import Answer, json_answer

__all__ = ["BatchDesk"]

UNDER_WAY = ("in_progress", "cancelling")
CREATED = 1762387200
FIELDS = {"custom_id", "method", "url", "body"}
AnswerOne = Callable[[dict[str, Any], Mapping[str, str]], Answer]


@dataclass(slots=True)
class _Batch:
    facts: dict[str, Any]
    lines: list[dict[str, Any]]
    headers: Mapping[str, str]


class BatchDesk:
    """Takes files and batches, and hands results out."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, _Batch] = {}

    async def read_upload(self, got: web.Request) -> dict[str, Any]:
        """Return the fields of an upload; nothing for another request."""
        if not got.content_type.startswith("multipart/"):
            return {}
        fields: dict[str, Any] = {}
        # `got.post()` would leave a temporary file behind where the client breaks off.
        async for part in await got.multipart():
            assert isinstance(part, BodyPartReader), "uploads are not nested"
            data, name = await part.read(), part.name or ""
            fields[name] = data.decode() if part.filename is None else data
            if part.filename is not None:
                fields["filename"] = part.filename
        return fields

    def answer(  # noqa: PLR0911 - a table
        self,
        method: str,
        path: str,
        body: dict[str, Any],
        headers: Mapping[str, str],
        complaints: list[str],
    ) -> Answer | None:
        """Answer a request for a file or a batch; None where there is none."""
        match method, path.strip("/").split("/")[1:]:
            case "POST", ["files"]:
                return self._upload(body, complaints)
            case "GET", ["files", name, "content"] if name in self._files:
                about = {"Content-Type": "application/octet-stream"}
                return Answer([self._files[name]], headers=about)
            case "POST", ["batches"]:
                return self._create(body, headers, complaints)
            case "GET", ["batches"]:
                return self._list()
            case "GET", ["batches", name] if name in self._batches:
                return json_answer(self._batches[name].facts)
            case "POST", ["batches", name, "cancel"] if name in self._batches:
                facts = self._batches[name].facts
                if facts["status"] in UNDER_WAY:
                    facts["status"] = "cancelling"
                return json_answer(facts)
        return None

    def finish(self, status: str, most: int | None, answer: AnswerOne) -> None:
        """End the batches under way; the results come in another order than the requests."""
        for batch in self._batches.values():
            if batch.facts["status"] not in UNDER_WAY:
                continue
            end = "cancelled" if batch.facts["status"] == "cancelling" else status
            taken = 0 if end in ("failed", "cancelled") else most
            self._finish(batch, end, len(batch.lines) if taken is None else taken, answer)

    def _finish(self, batch: _Batch, end: str, most: int, answer: AnswerOne) -> None:
        output: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for number, line in enumerate(batch.lines):
            result: dict[str, Any] = {"id": f"batch_req_{number}", "custom_id": line["custom_id"]}
            if number >= most:
                if end == "expired":  # as OpenAI tells of those that were not reached
                    why = {"code": "batch_expired", "message": "This request could not be executed"}
                    errors.append({**result, "response": None, "error": why})
                continue
            given = answer(line["body"], batch.headers)
            whole = b"".join([*given.opening, *given.deltas, *given.closing])
            response: dict[str, Any] = {"status_code": given.status, "body": json.loads(whole)}
            found = errors if given.status >= 400 else output
            found.append({**result, "response": response, "error": None})
        if end == "failed":
            invalid = {"code": "invalid", "message": "The file is not valid.", "line": 1}
            batch.facts["errors"] = {"object": "list", "data": [invalid]}
        counts = {"total": len(batch.lines), "completed": len(output), "failed": len(errors)}
        batch.facts |= {"status": end, "request_counts": counts}
        for kind, lines in (("output", output), ("error", errors)):
            if lines:
                data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines[::-1])
                batch.facts[f"{kind}_file_id"] = self._keep(data.encode())

    def _keep(self, data: bytes) -> str:
        name = f"file-{len(self._files) + 1}"
        self._files[name] = data
        return name

    def _upload(self, body: Mapping[str, Any], complaints: list[str]) -> Answer:
        data, name = body.get("file", b""), str(body.get("filename", ""))
        if body.get("purpose") != "batch" or not name.endswith(".jsonl") or not data:
            complaints.append(f"a file that is not for a batch: {name}, {body.get('purpose')}")
        file: dict[str, Any] = {
            "object": "file",
            "bytes": len(data),
            "created_at": CREATED,
            "filename": name,
        }
        return json_answer({"id": self._keep(data), **file, "purpose": "batch", "status": "ok"})

    def _create(
        self, body: Mapping[str, Any], headers: Mapping[str, str], complaints: list[str]
    ) -> Answer:
        file = body.get("input_file_id")
        if file not in self._files:
            error = {"message": f"no such file: {file}", "type": "invalid_request_error"}
            return json_answer({"error": error}, 400)
        lines = [json.loads(line) for line in self._files[file].splitlines()]
        complaints += _problems(lines)
        name = f"batch_{len(self._batches) + 1}"
        facts: dict[str, Any] = {
            "id": name,
            "object": "batch",
            "endpoint": body.get("endpoint"),
            "input_file_id": file,
            "completion_window": body.get("completion_window"),
            "status": "in_progress",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": CREATED + len(self._batches),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            "metadata": body.get("metadata"),
        }
        self._batches[name] = _Batch(facts, lines, headers)
        return json_answer(facts)

    def _list(self) -> Answer:
        found = [batch.facts for batch in self._batches.values()][::-1]
        return json_answer({"object": "list", "data": found, "has_more": False})


def _problems(lines: list[dict[str, Any]]) -> list[str]:
    """Return what Moonshot refuses in a file (platform.kimi.ai/docs/guide/use-batch-api)."""
    missing = [FIELDS - set(line) for line in lines]
    problems = [f"a line of a batch without {names}" for names in missing if names]
    if len({line.get("custom_id") for line in lines}) < len(lines):
        problems.append("a custom_id occurs twice in a batch")
    if len({line.get("body", {}).get("model") for line in lines}) > 1:
        problems.append("a batch for several models")
    if any((li.get("method"), li.get("url")) != ("POST", "/v1/chat/completions") for li in lines):
        problems.append("a batch for another address")
    if any(line.get("body", {}).get("stream") for line in lines):
        problems.append("a batch with a stream")
    return problems
