"""Maps of Dask frames: they stay lazy, and each partition is asked by the worker that computes it.

No kernel looks on while a Dask frame is computed, perhaps days later. So each worker keeps its own
answers, and keeps its share of the limits.
"""

from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from kimi_magic.batch.answer_frame import OWN, make_frame
from kimi_magic.batch.checkpoint import SUFFIX, Checkpoint, Header, maps_folder
from kimi_magic.batch.cluster_link import SecretsAtHand, meet
from kimi_magic.batch.cluster_post import BOOT, Secrets
from kimi_magic.batch.cluster_request import (
    RemoteRequest,
    check_remote,
    pack,
    remote_request,
    unpack,
)
from kimi_magic.batch.cluster_worker import (
    TaskInbox,
    introduce,
    remote_turn,
    task_is_cancelled,
    this_worker,
)
from kimi_magic.batch.map_run import Limits, MapRun, header_of
from kimi_magic.batch.pace import Pace
from kimi_magic.batch.prompts import names_in, row_prompt
from kimi_magic.batch.questions import WHOLE, Questions, row_key
from kimi_magic.batch.rows import VALUE, Rows
from kimi_magic.config import Settings
from kimi_magic.core.errors import KimiError
from kimi_magic.secrets.redact import Redactor
from kimi_magic.session import Session, current
from kimi_magic.turn.heavy import plain_turn

__all__ = ["keep_secrets", "lazy_map"]

NO_TOTAL = (
    "{name}= needs a kernel that counts, and a Dask frame is computed without one: compute it, and "
    "map what comes with engine=client."
)
TOO_FEW = (
    "{name}={limit} cannot be shared by {count} workers: raise it, or compute the frame and map "
    "what comes with engine=client."
)
UNFIT = "{name}={value!r:.60} is no {dtype}, the type of its column."
IN_USE = 1000  # files of one map at most
DTYPES = {"string": "string", "integer": "Int64", "number": "Float64", "boolean": "boolean"}
"""The types of pandas that have room for a row without an answer."""

_claimed: dict[str, Secrets] = {}
"""Secrets that a kernel has left with this worker, by a claim that its tasks name."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """All that a partition takes, but for the secrets."""

    remote: RemoteRequest
    prompt: Any
    names: Mapping[str, Any]
    key: Any
    concurrency: int
    into: str
    journal: bool
    dtypes: Mapping[str, str]


class _Partition:
    """The function of a partition.

    Parameters
    ----------
    mark : str
        The same for the same map, for Dask's tokens.
    """

    def __init__(self, mark: str, packed: bytes, claim: str) -> None:
        self._mark = mark
        self._packed = packed
        self._claim = claim

    def __dask_tokenize__(self) -> Any:
        return ("kimi.map", self._mark)

    def __call__(self, frame: Any) -> Any:
        packed: _Packed = unpack(self._packed)
        return _map(packed, self._mark, _claimed.get(self._claim, Secrets()), frame)


def lazy_map(
    data: Any,
    questions: Questions,
    limits: Limits,
    *,
    session: Session,
    prompt: Any,
    key: Any,
    into: Path | None,
    client: Any,
) -> Any:
    """Return a Dask frame of the answers; nothing is asked.

    Raises
    ------
    KimiError
        The workers cannot ask what is to be asked.
    """
    from dask.base import tokenize

    check_remote(questions, session)
    totals = {"max_cost": limits.cost, "max_tokens_total": limits.tokens}
    for name, given in totals.items():
        if given is not None:
            raise KimiError(NO_TOTAL.format(name=name))
    one = questions.one
    columns = list(data.columns) if data.ndim > 1 else [VALUE, data.name]
    names = names_in(prompt, columns) if isinstance(prompt, str) else {}
    remote = remote_request(one, raises=limits.raises)
    packed = _Packed(
        remote,
        prompt,
        names,
        key,
        limits.concurrency,
        "" if into is None else str(into),
        session.settings.journal_path is not None,
        _dtypes(one.schema.json_schema if one.schema else None, questions.fields, remote),
    )
    told = tokenize(prompt, names, key, limits.concurrency, packed.into, packed.dtypes)
    mark = sha256(f"{questions.mark} {told}".encode()).hexdigest()
    claim = f"{BOOT} {mark[:16]}"
    _leave_secrets(claim, questions, session, client)
    function = _Partition(mark, pack(packed, session.connector.known_keys()), claim)
    return data.map_partitions(function, meta=_meta(data, packed.dtypes), token=f"kimi-map-{mark}")


def _dtypes(
    schema: Mapping[str, Any] | None, fields: list[str], remote: RemoteRequest
) -> dict[str, str]:
    """Return the columns of the answers, with their types."""
    if schema is None:
        own = {"text": "string"}
    elif fields == [WHOLE]:
        own = {WHOLE: "object"}
    else:
        known = getattr(remote.request.schema, "model_fields", {})
        names = {getattr(field, "alias", None) or name: name for name, field in known.items()}
        nodes = schema.get("properties", {})
        own = {names.get(name, name): _dtype(nodes[name]) for name in fields}
    of_all = ("string", "string", "object", "int64")
    return own | dict(zip(OWN, of_all, strict=True))


def _dtype(node: Mapping[str, Any]) -> str:
    kinds = [each for each in node.get("anyOf", [node]) if each.get("type") != "null"]
    kind = kinds[0].get("type") if len(kinds) == 1 else None
    return DTYPES.get(kind, "object") if isinstance(kind, str) else "object"


def _meta(data: Any, dtypes: Mapping[str, str]) -> Any:
    import pandas as pd

    index = data._meta.index  # noqa: SLF001 - all that Dask knows of it
    return pd.DataFrame({n: pd.Series([], dtype=t, index=index) for n, t in dtypes.items()}, index)


def _leave_secrets(claim: str, questions: Questions, session: Session, client: Any) -> None:
    """Give the key to the workers that are there and have none; it is in no graph."""
    endpoint = questions.one.endpoint
    secrets = SecretsAtHand(endpoint, session.connector.key_at_hand, session.find_key)
    client = client or _current_client()
    if client is None or client.asynchronous or client.status != "running":
        here = introduce(secrets.bare, secrets.variables)
        secrets.find([here])
        _claimed[claim] = secrets.for_worker("here", here)
        return
    for given, alike in secrets.by_workers(meet(client, secrets)):
        client.run(keep_secrets, claim, given, workers=alike)


def _current_client() -> Any:
    """Return the client that Dask would compute with; None for none."""
    distributed = sys.modules.get("distributed")
    try:
        return distributed.default_client() if distributed else None
    except ValueError:
        return None


def keep_secrets(claim: str, secrets: Secrets) -> None:
    """Keep secrets for the tasks that name the claim, as long as this worker lives."""
    _claimed[claim] = secrets


def _map(packed: _Packed, mark: str, secrets: Secrets, frame: Any) -> Any:
    """Ask for the rows of a partition, and return the frame of their answers."""
    turn = remote_turn(packed.remote, secrets)
    tokens = plain_turn(turn).settings.summary_tokens
    fill = row_prompt(packed.prompt, tokens=tokens, names=packed.names)
    questions = Questions(turn, packed.prompt, fill, row_key(packed.key))
    rows = Rows(frame)
    common = _common(mark, packed, questions.one.endpoint)
    masks = Redactor(current().connector.known_keys(), shapes=True)
    header = header_of(questions, packed.prompt, rows, masks)
    limits = Limits(common.most, raises=packed.remote.raises)
    with closing(_opened(_base(packed, mark), header, masks)) as checkpoint:
        run = _PartitionRun(rows, questions, checkpoint, limits, common)
        run.take(show=False)
    if run.failure is not None:
        raise run.failure
    return _typed(make_frame(run, rows, questions.fields), packed.dtypes)


def _typed(frame: Any, dtypes: Mapping[str, str]) -> Any:
    """Return the columns in their types; a row with a value that none of them holds has failed."""
    import pandas as pd

    typed = {}
    for name, dtype in dtypes.items():
        if name not in frame:
            typed[name] = pd.Series(None, frame.index, dtype)
            continue
        try:
            typed[name] = frame[name].astype(dtype)
        except (TypeError, ValueError, OverflowError):
            values, error = [], list(frame["error"])
            for place, value in enumerate(frame[name]):
                try:
                    values.append(pd.array([value], dtype)[0])
                except (TypeError, ValueError, OverflowError):
                    values.append(None)
                    error[place] = UNFIT.format(name=name, dtype=dtype, value=value)
            typed[name] = pd.Series(pd.array(values, dtype), frame.index)
            frame = frame.assign(error=error)
    return pd.DataFrame(typed, index=frame.index)


def _base(packed: _Packed, mark: str) -> Path | None:
    """Return the path on this worker beside which answers are kept; None for nowhere."""
    if packed.into:
        return Path(packed.into)
    journal = Settings().journal_path if packed.journal else None
    return None if journal is None else maps_folder(journal) / mark[:32]


def _opened(base: Path | None, header: Header, masks: Redactor) -> Checkpoint:
    """Open a file for the answers; partitions that run side by side have one each, and read all.

    Machines may share a folder, but they see each other's locks only where they share the user's
    cache as well: so files of workers are named for their machine.
    """
    if base is None:
        return Checkpoint(None, header, masks)
    found = {}
    for other in sorted(base.parent.glob(f"{escape(base.name)}*{SUFFIX}")):
        kept = Checkpoint(other, header, masks)
        kept.read()
        found.update(kept.found)
    machine = sha256(platform.node().encode()).hexdigest()[:8]
    for number in range(1, IN_USE):
        part = "" if number == 1 else f".{number}"
        part = part if this_worker() is None else f".{machine}{part}"
        own = Checkpoint(base.with_name(f"{base.name}{part}{SUFFIX}"), header, masks)
        if own.open_if_free():
            own.found.update(found)
            return own
    raise KimiError(f"{IN_USE} partitions keep answers beside {base}: compute fewer at once.")


class _Common:
    """The limits of a map in this process, for the partitions that run here side by side."""

    def __init__(self, packed: _Packed, endpoint: Any, workers: int) -> None:
        shares = {
            "concurrency": Limits(packed.concurrency).at_once(endpoint),
            "requests_per_minute": endpoint.requests_per_minute,
            "tokens_per_minute": endpoint.tokens_per_minute,
        }
        for name, limit in shares.items():
            if limit is not None and limit < workers:
                raise KimiError(TOO_FEW.format(name=name, limit=limit, count=workers))
            shares[name] = limit // workers if limit else None
        self.most = shares["concurrency"]
        self.pace = Pace(
            0,
            self.most,
            per_minute=shares["requests_per_minute"],
            tokens_per_minute=shares["tokens_per_minute"],
        )
        self.workers = workers
        self.lock = threading.Lock()


_commons: WeakValueDictionary[str, _Common] = WeakValueDictionary()
_commons_lock = threading.Lock()


def _common(mark: str, packed: _Packed, endpoint: Any) -> _Common:
    workers = _count_workers()
    with _commons_lock:
        common = _commons.get(mark)
        if common is None or common.workers < workers:
            common = _commons[mark] = _Common(packed, endpoint, workers)
        return common


def _count_workers() -> int:
    """Return how many workers share the limits: one where Dask runs in threads."""
    if this_worker() is None:
        return 1
    from distributed import get_client

    return max(len(get_client().nthreads()), 1)


class _PartitionRun(MapRun):
    """Asks for the rows of a partition, with the limits of all that run in this process."""

    def __init__(
        self,
        rows: Rows,
        questions: Questions,
        checkpoint: Checkpoint,
        limits: Limits,
        common: _Common,
    ) -> None:
        super().__init__(rows, questions, checkpoint, limits)
        self._common = common

    def _pace(self, most: int) -> Pace:
        return _CommonPace(self._common, self._questions.one.settings.max_queue_bytes, most)


class _CommonPace(Pace):
    """Lanes of one thread, whose limits are those of several."""

    def __init__(self, common: _Common, most_bytes: int, most_requests: int) -> None:
        super().__init__(most_bytes, most_requests)
        self.inbox = TaskInbox(most_bytes, task_is_cancelled())
        self._common = common

    def has_room(self) -> bool:
        with self._common.lock:
            return self._common.pace.has_room()

    def may_send(self) -> bool:
        with self._common.lock:
            return self._common.pace.may_send()

    def sent(self) -> None:
        with self._common.lock:
            self._common.pace.sent()

    def expect(self, tokens: int) -> None:
        with self._common.lock:
            self._common.pace.expect(tokens)

    def used(self, tokens: int) -> None:
        with self._common.lock:
            self._common.pace.used(tokens)

    def came(self, seconds: float) -> None:
        with self._common.lock:
            self._common.pace.came(seconds)

    def slow_down(self, until: float) -> None:
        with self._common.lock:
            self._common.pace.slow_down(until)
