"""The kernel's line to the workers of a cluster: it equips them, and asks for their post.

Everything passes as a call through the scheduler to one worker, and nothing of it stays there:
events and queues of Dask would keep answers in the scheduler's memory. The calls are made in the
thread of the client's event loop; what they bring is put into a queue for the thread of the map.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from kimi_magic.batch.cluster_limits import Permits, Report
from kimi_magic.batch.cluster_post import BOOT, Outfit, Secrets
from kimi_magic.batch.cluster_request import unpack
from kimi_magic.batch.cluster_worker import OPERATION, equip, forget, introduce, versions
from kimi_magic.core.errors import KimiError
from kimi_magic.secrets.keys import Key
from kimi_magic.wire.endpoints import Endpoint

__all__ = [
    "OUT_OF_CONTACT",
    "Closed",
    "Event",
    "Link",
    "Lost",
    "SecretsAtHand",
    "check_worker",
    "meet",
]

logger = logging.getLogger("kimi_magic")
# Seconds between two calls to a worker: while answers come, and while none do.
OFTEN, SELDOM = 0.05, 0.25
SHARE = 8  # workers up to which these hold; more of them are asked less often
LOOK_AROUND = 0.5  # seconds between two looks at the list of workers
LONGEST_CALL = 30.0
OUT_OF_REACH = 10.0  # seconds for which the scheduler may not answer

NOT_THERE = (
    "kimi-magic {ours} is not installed on the worker {worker}.\n"
    "Install it there: `pip install kimi-magic=={ours}`."
)
OTHER_VERSION = (
    "The worker {worker} has {what} {theirs}, this kernel {ours}: they must be the same.\n"
    "Install {what} {ours} there."
)
NO_KEY = (
    "The worker {worker} has no key, and neither has this kernel: set {name} in the environment "
    "of one of them."
)
NO_WORKERS = "The cluster at {address} has no workers: client.cluster.scale(2) starts two."
OUT_OF_CONTACT = "The cluster at {address} is not reached any more: start it, or name another."

Event = tuple[Any, ...]
FindKey = Callable[[Endpoint], Key | None]


class Lost(Exception):
    """Raised where a worker is gone, and put among its events."""


class Closed(Exception):
    """Put among the events when the cluster is gone."""


class SecretsAtHand:
    """The secrets that workers without their own are given.

    Parameters
    ----------
    endpoint : Endpoint
    look : callable
        Returns the endpoint's key, or None.
    ask : callable
        Returns it, lets a person type it, or raises a `KimiError`.
    """

    def __init__(self, endpoint: Endpoint, look: FindKey, ask: FindKey) -> None:
        self.bare = replace(endpoint, headers={})
        self.variables = endpoint.own_headers.variables
        self._endpoint = endpoint
        self._ask = ask
        self._key = look(endpoint)

    def find(self, facts: Iterable[Mapping[str, Any]]) -> None:
        """Have a person asked for the key where it is nowhere."""
        if self._key is None and not all(each["has key"] for each in facts):
            self._key = self._ask(self._endpoint)

    def by_workers(self, facts: Mapping[str, Mapping[str, Any]]) -> list[tuple[Secrets, list[str]]]:
        """Return what workers are given, those together that lack the same.

        Raises
        ------
        KimiError
            As for `for_worker`; no worker has been given anything by then.
        """
        alike: dict[tuple[Any, ...], list[str]] = {}
        for worker, each in facts.items():
            alike.setdefault((each["has key"], *each["lacking"]), []).append(worker)
        return [(self.for_worker(own[0], facts[own[0]]), own) for own in alike.values()]

    def for_worker(self, worker: str, facts: Mapping[str, Any]) -> Secrets:
        """Return what a worker is given.

        Raises
        ------
        KimiError
            This kernel lacks it as well.
        """
        headers = self._endpoint.own_headers.filled_in(facts["lacking"])
        if facts["has key"]:
            return Secrets(None, headers)
        if self._key is None:
            raise KimiError(NO_KEY.format(worker=worker, name=self._endpoint.key_env))
        return Secrets(self._key.value, headers)


class Link:
    """The line of one map.

    Parameters
    ----------
    client : distributed.Client
    name : str
        Of the map; no other has it.
    outfit : Outfit
    secrets : SecretsAtHand
    permits : Permits

    Attributes
    ----------
    state : str
        What the workers are told: see `Post`.
    expected : dict
        By workers, the chunks that they may begin.
    equipped : set
        The workers that can ask.
    same_process : set
        Those that live in this process, as they do where Dask makes them threads.
    address : str
        Of the scheduler.
    """

    def __init__(
        self, client: Any, name: str, outfit: Outfit, secrets: SecretsAtHand, permits: Permits
    ) -> None:
        self.state = "go"
        self.expected: dict[str, list[int]] = {}
        self.equipped: set[str] = set()
        self.same_process: set[str] = set()
        self.address = str(getattr(client.scheduler, "address", "its address"))
        self._client = client
        self._name = name
        self._outfit = outfit
        self._secrets = secrets
        self._permits = permits
        self._arrived: queue.SimpleQueue[tuple[str, Event | Exception]] = queue.SimpleQueue()
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._running: Any = None

    def reach(self) -> None:
        """Equip the workers that are there.

        Raises
        ------
        KimiError
            There are no workers, one has another version, or a key is missing everywhere.
        """
        found = meet(self._client, self._secrets)
        try:
            for secrets, alike in self._secrets.by_workers(found):
                self._client.run(equip, self._name, self._outfit, secrets, workers=alike)
                for worker in alike:
                    self._note_equipped(worker, found[worker])
        except BaseException:  # nobody will ask for the post that some have by now
            with suppress(Exception):
                self._client.run(forget, self._name, workers=list(found), on_error="ignore")
            raise

    def start(self) -> None:
        """Begin to ask for the workers' post."""
        loop = self._client.loop.asyncio_loop
        self._running = asyncio.run_coroutine_threadsafe(self._look_around(), loop)

    def take(self, timeout: float) -> list[tuple[str, Event | Exception]]:
        """Wait at most so many seconds; return what has come, with the worker of each."""
        taken = []
        with suppress(queue.Empty):
            taken.append(self._arrived.get(timeout=timeout))
            while True:
                taken.append(self._arrived.get_nowait())
        return taken

    def close(self) -> None:
        """Have the workers forget the map, with its secrets."""
        self.state = "end"
        if self._running is None:
            return
        with suppress(Exception):
            self._running.result(timeout=2.0)
        self._running.cancel()

    def _note_equipped(self, worker: str, facts: Mapping[str, Any]) -> None:
        if facts["boot"] == BOOT:
            self.same_process.add(worker)
        self.equipped.add(worker)

    async def _look_around(self) -> None:
        """Serve the workers that are there, those that join, and no more those that are gone."""
        seen = time.monotonic()
        here = set(self.equipped)
        while self.state != "end":
            for worker in here - self._serving.keys():
                self._serving[worker] = asyncio.create_task(self._serve(worker))
            for worker in self._serving.keys() - here:
                self._serving.pop(worker).cancel()
            await asyncio.sleep(LOOK_AROUND if self.state == "go" else OFTEN)
            try:
                here = set(await asyncio.wait_for(self._client.scheduler.ncores(), OUT_OF_REACH))
                seen = time.monotonic()
            except Exception as error:  # noqa: BLE001 - a closing client has lost parts of itself
                logger.debug("The scheduler did not answer: %r", error)
            out_of_reach = time.monotonic() - seen > OUT_OF_REACH
            if self._client.status in ("closed", "closing") or out_of_reach:
                self._arrived.put(("", Closed(OUT_OF_CONTACT.format(address=self.address))))
                break
        if self._serving:
            _, late = await asyncio.wait(self._serving.values(), timeout=1.0)
            for task in late:
                task.cancel()

    async def _serve(self, worker: str) -> None:
        """Ask for the post of a worker until it is gone."""
        joined = False
        try:
            if worker not in self.equipped:
                await self._welcome(worker)
            self._permits.join(worker)
            joined = True
            await self._ask(worker)
        except KimiError as error:
            self._arrived.put((worker, error))
        except Exception as error:  # noqa: BLE001 - whatever the network raises, it is gone
            logger.debug("The worker %s is lost: %r", worker, error)
        finally:
            self.equipped.discard(worker)
            if joined:
                self._permits.leave(worker)
            self._arrived.put((worker, Lost()))

    async def _welcome(self, worker: str) -> None:
        """Equip a worker that has joined."""
        bare, variables = self._secrets.bare, self._secrets.variables
        found = await self._client.run(
            introduce, bare, variables, workers=[worker], on_error="return"
        )
        if worker not in found:
            raise Lost("It has left again.")
        check_worker(worker, found[worker])
        secrets = self._secrets.for_worker(worker, found[worker])
        await self._client.run(equip, self._name, self._outfit, secrets, workers=[worker])
        self._note_equipped(worker, found[worker])

    async def _ask(self, worker: str) -> None:
        had, boot, pause = 0, None, OFTEN
        while True:
            last_time = self.state == "end"
            orders = {
                **self._permits.orders(worker),
                "op": OPERATION,
                "name": self._name,
                "had": had,
                "state": self.state,
                "expected": self.expected.get(worker, []),
            }
            call = self._client.scheduler.broadcast(
                msg=orders, workers=[worker], on_error="return_pickle"
            )
            reply = (await asyncio.wait_for(call, LONGEST_CALL)).get(worker)
            if last_time:
                return
            if not isinstance(reply, dict) or boot not in (None, reply.get("boot")):
                raise Lost("It does not answer.")
            boot = reply["boot"]
            if not boot:
                raise Lost("It was started anew.")
            had = reply["last"]
            report = Report(*reply["report"])
            self._permits.hear(worker, report, reply["answered"], reply["refused"])
            for letter in reply["letters"]:
                self._arrived.put((worker, unpack(letter)))
            pause = OFTEN if reply["letters"] else min(pause * 1.2, SELDOM)
            many = max(len(self._serving) / SHARE, 1.0)
            await self._rest(worker, pause * many)

    async def _rest(self, worker: str, seconds: float) -> None:
        """Wait, but not where there is something new to tell."""
        told, until = self._told(worker), time.monotonic() + seconds
        while self._told(worker) == told and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, OFTEN))

    def _told(self, worker: str) -> tuple[Any, ...]:
        return self.state, self.expected.get(worker)


def meet(client: Any, secrets: SecretsAtHand) -> dict[str, Mapping[str, Any]]:
    """Return the facts of the workers that are there, and see to the key that they need.

    Raises
    ------
    KimiError
        There are no workers, one has another version, or a key is missing everywhere.
    """
    workers = list(client.nthreads())
    if not workers:
        raise KimiError(NO_WORKERS.format(address=client.scheduler.address))
    bare, variables = secrets.bare, secrets.variables
    told = client.run(introduce, bare, variables, workers=workers, on_error="return")
    found: dict[str, Mapping[str, Any]] = {}
    for worker, facts in told.items():
        with suppress(Lost):  # it has died in the meantime
            check_worker(worker, facts)
            found[worker] = facts
    secrets.find(found.values())
    return found


def check_worker(worker: str, facts: Any) -> None:
    """Refuse a worker that could not ask as this kernel does.

    Raises
    ------
    KimiError
        kimi-magic is not installed there, or its version or that of Python is another.
    Lost
        The worker did not answer.
    """
    ours = versions()
    if isinstance(facts, ImportError | AttributeError):
        raise KimiError(NOT_THERE.format(worker=worker, ours=ours["kimi-magic"]))
    if isinstance(facts, BaseException):
        raise Lost(f"{type(facts).__name__}: {facts}")
    for what, own in ours.items():
        if (theirs := facts[what]) != own:
            raise KimiError(OTHER_VERSION.format(worker=worker, what=what, theirs=theirs, ours=own))
