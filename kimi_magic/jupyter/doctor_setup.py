"""The doctor on this setup: keys, files, the practice model, settings and the environment."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import getproxies

from kimi_magic.config import Settings
from kimi_magic.core.errors import ConfigError, KimiError
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.text import count, why_not_written
from kimi_magic.jupyter.doctor_table import Row, State
from kimi_magic.wire.addresses import host_of, is_this_machine
from kimi_magic.wire.endpoints import BUILT_IN

if TYPE_CHECKING:
    from kimi_magic.chats.journal_health import Health
    from kimi_magic.session import Session
    from kimi_magic.wire.endpoints import Endpoint

__all__ = [
    "Disk",
    "EngineFinding",
    "Environment",
    "Kept",
    "KeyFinding",
    "TapeFinding",
    "environment_rows",
    "kept_rows",
    "key_rows",
    "local_rows",
    "look_at_environment",
    "look_at_kept",
    "look_at_keys",
    "look_at_local",
    "names_to_hide",
    "setting_rows",
]

LITTLE_DISK, NO_DISK = 200_000_000, 20_000_000  # bytes
ROOM_FOR_WEIGHTS = 300_000_000
LITTLE_MEMORY = 600_000_000  # of which the practice model takes about 400 MB
MOST_MAPS = 1000
# Their values are prompts.
PROMPTS = ("system", "heavy_prompt")
# Up to the last mark: a password may hold a slash, and a proxy needs no scheme.
_ACCOUNT = re.compile(r"(\w[\w+.-]*://)?.*@", re.DOTALL)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
SHORTEST_NAME = 3  # a shorter one is no secret, and stands in many texts


@dataclass(frozen=True, slots=True)
class KeyFinding:
    """An endpoint and the place of its key.

    Attributes
    ----------
    variable : str
        The environment variable of the key; empty where no key is needed.
    source : str
        The place where the key was found, in words; empty where none was.
    problem : str
        The reason why the endpoint cannot be used.
    """

    endpoint: str
    variable: str = ""
    source: str = ""
    problem: str = ""
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """A folder's disk; ``problem`` is why the folder cannot be written, or is not there."""

    free: int = -1  # bytes; below 0 where it is not known
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TapeFinding:
    """The tape that is on; ``problem`` is of the file."""

    name: str
    mode: str = ""
    exchanges: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """The journal, the maps beside it, and the tape."""

    path: str = ""  # of the journal; empty where it is off
    health: Health | None = None
    disk: Disk = Disk()
    maps: int = 0
    map_bytes: int = 0
    tape: TapeFinding | None = None
    keeps: bool = False


@dataclass(frozen=True, slots=True)
class EngineFinding:
    """The embedded engine and its weights."""

    engine: bool
    weights: str = ""
    folder: str = ""
    own: str = ""  # the user's own model
    own_is_there: bool = True
    disk: Disk = Disk()
    memory: int = -1  # bytes that are free; below 0 where it is not known


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables of the environment that affect requests.

    Attributes
    ----------
    proxies : mapping
        Addresses by variable, without names and passwords.
    certificates : mapping
        By variable, the path, and True if it is there.
    lacks_socks : bool
        True if a proxy speaks SOCKS and the library for it is not installed.
    problems : sequence of str
        Errors in variables of our own.
    """

    proxies: Mapping[str, str] = field(default_factory=dict)
    no_proxy: str = ""
    certificates: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    lacks_socks: bool = False
    problems: Sequence[str] = ()


def look_at_keys(session: Session, chosen: Endpoint | None) -> list[KeyFinding]:
    """Look up the key of each endpoint, without asking anybody."""
    found = []
    known = list(session.connector.catalogue)
    if chosen is not None and chosen not in known:  # a bare address
        known.insert(0, chosen)
    for endpoint in known:
        source = problem = ""
        try:
            endpoint.own_headers.resolve()
            key = session.connector.key_at_hand(endpoint)
            source = key.source.partition(";")[0] if key else ""
        except ConfigError as error:
            problem = str(error)
        is_chosen = endpoint == chosen
        variable = endpoint.key_env or ""
        found.append(KeyFinding(endpoint.name, variable, source, problem, is_chosen))
    return found


def key_rows(
    keys: Sequence[KeyFinding], problem: str = "", nobody: str = "", *, is_named: bool = False
) -> Iterator[Row]:
    """Judge the keys.

    ``problem`` is of ``KIMI_BASE_URL``, ``nobody`` is the reason why no endpoint can be asked, and
    ``is_named`` is True where the doctor was given an endpoint.
    """
    if problem:
        yield Row("key.base_url", "mend", problem, "the endpoint `custom` is left out", _REPAIR)
    if nobody:
        said, _, advice = nobody.partition("\n")
        yield Row("key.chosen", "mend", said, "cells cannot ask anybody", advice)
    for key in keys:
        if key.problem:
            bad: State = "mend" if key.is_chosen else "look"
            yield Row(f"key.{key.endpoint}", bad, f"{key.endpoint}: {key.problem}", "", _REPAIR)
        elif key.is_chosen:
            yield _chosen_row(key, is_named=is_named)
    with_key = [key for key in keys if key.source and not key.is_chosen and not key.problem]
    for key in with_key:
        yield Row(f"key.{key.endpoint}", "ok", f"{key.endpoint}: a key from {key.source}")
    rest = [key for key in keys if not (key.source or key.problem or key.is_chosen)]
    if without := [f"{key.endpoint} ({key.variable})" for key in rest if key.variable]:
        yield Row("key.absent", "unknown", f"no key for {', '.join(without)}")
    if free := [key.endpoint for key in rest if not key.variable]:
        yield Row("key.not_needed", "ok", f"no key is needed for {', '.join(free)}")


_REPAIR = "correct the variable, and restart the kernel or set it in os.environ"


def _chosen_row(key: KeyFinding, *, is_named: bool) -> Row:
    check = f"key.{key.endpoint}"
    asked = "the one to look at" if is_named else "cells ask it where they name none"
    if not key.variable:
        return Row(check, "ok", f"→ {key.endpoint}: no key is needed", asked)
    if key.source:
        return Row(check, "ok", f"→ {key.endpoint}: a key from {key.source}", asked)
    return Row(
        check,
        "mend",
        f"→ {key.endpoint}: no key, neither in {key.variable} nor in a keyring",
        "a cell asks you to type the key, and fails where nobody can",
        f"set {key.variable} before Jupyter starts, or `keyring set kimi-magic {key.variable}`",
    )


def look_at_kept(session: Session) -> Kept:
    """Look at the journal, the maps and the tape; nothing is changed."""
    tape, keeps = None, session.settings.keep
    path = session.settings.journal_path
    with suppress(ConfigError):  # of the environment: that is a row of its own
        path = session.journal.path  # waits until the turns so far are written
        tape = _look_at_tape(session)
    if path is None:
        return Kept(tape=tape, keeps=keeps)
    from kimi_magic.batch.checkpoint import SUFFIX, maps_folder
    from kimi_magic.chats.journal_health import health_of

    sizes: list[int] = []
    with suppress(OSError):
        maps = islice(maps_folder(path).glob(f"*{SUFFIX}"), MOST_MAPS)
        sizes.extend(file.stat().st_size for file in maps)
    health, disk = health_of(path), _disk_of(path.parent)
    return Kept(str(path), health, disk, len(sizes), sum(sizes), tape, keeps)


def _look_at_tape(session: Session) -> TapeFinding | None:
    try:
        use = session.tapes.current
        if use is None:
            return None
        return TapeFinding(use.name, use.mode, len(use.tape.entries()), " ".join(use.tape.problems))
    except KimiError as error:
        return TapeFinding(session.settings.tape, problem=str(error))


def _disk_of(folder: Path) -> Disk:
    """Look at the nearest folder that exists: the others are made when they are needed."""
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not there.is_dir():
            return Disk(problem=f"{there} is no folder")
        free = shutil.disk_usage(there).free
    except (OSError, StopIteration) as error:
        said = why_not_written(error) if isinstance(error, OSError) else "it is not there"
        return Disk(problem=said)
    return Disk(free, "" if os.access(there, os.W_OK) else f"{there} cannot be written")


def kept_rows(facts: Kept) -> Iterator[Row]:
    """Judge the journal, the maps and the tape."""
    if not facts.path:
        yield Row(
            "kept.journal",
            "look",
            "the journal is off",
            "turns are lost when the kernel ends",
            "`%config KimiMagics.journal = None` keeps them, unless KIMI_JOURNAL says off",
        )
    elif facts.health is not None:
        yield _journal_row(facts.path, facts.health)
        yield from _beside_journal(facts.health)
        yield from _disk_rows("kept", facts.disk, LITTLE_DISK)
    if facts.maps:
        size = _mb(facts.map_bytes)
        yield Row("kept.maps", "ok", f"{count(facts.maps, 'map')} with kept answers, {size}")
    if facts.tape is not None:
        yield _tape_row(facts.tape)
    if facts.keeps:
        yield Row("kept.answers", "ok", "answers are kept beside the notebook (setting keep)")


def _tape_row(tape: TapeFinding) -> Row:
    if tape.problem:
        return Row(
            "kept.tape",
            "mend",
            f"the tape {tape.name}: {tape.problem}",
            "what is whole on it is played",
            "`kimi-magic tape check FILE` tells more; `%kimi tape off` does without",
        )
    recorded = count(tape.exchanges, "recorded exchange")
    found = f"the tape {tape.name} is on: {recorded}, mode {tape.mode}"
    means = "answers come from it; what is not on it is"
    if tape.mode == "none":
        do = "`%kimi tape off` asks the server again"
        return Row("kept.tape", "look", found, f"{means} refused", do)
    return Row("kept.tape", "ok", found, f"{means} asked and recorded")


def _journal_row(path: str, health: Health) -> Row:
    at = f"the journal at {path}"
    if not health.trouble:
        whole = "" if health.checked else "; a part of it was checked, as it is large"
        found = f"{at}: {count(health.turns, 'turn')}, {_mb(health.size)}, sound{whole}"
        return Row("kept.journal", "ok", found, "turns are kept, `%kimi log` lists them")
    if health.trouble == "missing":
        return Row("kept.journal", "ok", f"{at}: none yet", "the first turn makes it")
    means, do = _TROUBLES[health.trouble]
    said = f" ({health.said})" if health.said else ""
    state: State = "look" if health.trouble == "locked" else "mend"
    return Row("kept.journal", state, f"{at}: {health.trouble}{said}", means, do)


_ELSEWHERE = "`%config KimiMagics.journal = 'PATH'` names another file"
_TROUBLES = {
    "damaged": (
        "the next turn sets it aside and begins a new one",
        "nothing, or copy it before that: `sqlite3 FILE .recover` gets turns back",
    ),
    "foreign": ("it is another program's file: no turn is kept", _ELSEWHERE),
    "later": ("a newer kimi-magic wrote it: no turn is kept", "pip install -U kimi-magic"),
    "locked": (
        "another program holds its lock: turns wait, and are written later",
        "end that program, a backup or a file browser of SQLite perhaps",
    ),
    "read-only": ("no turn is kept", f"make it writable for you; {_ELSEWHERE}"),
    "unreadable": ("no turn is kept", f"look at its folder and its rights; {_ELSEWHERE}"),
}


def _beside_journal(health: Health) -> Iterator[Row]:
    if health.on_network:
        yield Row(
            "kept.network",
            "look",
            "the journal is on a network file system",
            "it is slower there, and its locks are only as good as that system's",
            _ELSEWHERE,
        )
    if health.aside:
        yield Row(
            "kept.aside",
            "look",
            f"{count(health.aside, 'damaged journal')} set aside beside it",
            "their turns are not in the log",
            "`sqlite3 FILE .recover` gets turns back; else delete them",
        )


def _disk_rows(group: str, disk: Disk, wanted: int) -> Iterator[Row]:
    if disk.problem:
        yield Row(f"{group}.disk", "mend", disk.problem, "nothing can be kept there", _ROOM)
    elif 0 <= disk.free < wanted:
        state: State = "mend" if disk.free < NO_DISK else "look"
        free = f"{_mb(disk.free)} of the disk are free"
        yield Row(f"{group}.disk", state, free, f"it takes {_mb(wanted)} to be safe", _ROOM)
    elif disk.free >= 0:
        yield Row(f"{group}.disk", "ok", f"{_mb(disk.free)} of its disk are free")


_ROOM = "make room, or name a folder on another disk"


def look_at_local(settings: Settings) -> EngineFinding:
    """Look for the embedded engine and the weights, without importing or fetching them."""
    from kimi_magic.wire.local.process import available
    from kimi_magic.wire.local.weights import cache_folder, find_weights

    weights, folder, own = find_weights(), cache_folder(), settings.local_model
    return EngineFinding(
        available(),
        str(weights or ""),
        str(folder),
        own,
        not own or Path(own).expanduser().is_file(),
        _disk_of(folder),
        _free_memory(),
    )


def _free_memory() -> int:
    with suppress(Exception):  # ipykernel brings it; it reads files of the system
        import psutil

        return int(psutil.virtual_memory().available)
    return -1


def local_rows(facts: EngineFinding) -> Iterator[Row]:
    """Judge the embedded engine and its weights."""
    if not facts.engine:
        yield Row(
            "local.engine",
            "unknown",
            "the embedded engine is not installed",
            "without a key nobody answers; `-e local` does not work",
            'pip install "kimi-magic[local]"',
        )
        return
    yield Row("local.engine", "ok", "the embedded engine is installed")
    if facts.own:
        if facts.own_is_there:
            yield Row("local.model", "ok", f"its model is {facts.own}")
        else:
            yield Row(
                "local.model",
                "mend",
                f"its model {facts.own} is not there",
                "`-e local` fails",
                "set local_model to the path of a GGUF file, or to '' for the practice model",
            )
    elif facts.weights:
        yield Row("local.weights", "ok", f"the practice model is at {facts.weights}")
    else:
        yield Row(
            "local.weights",
            "unknown",
            f"the practice model is not in {facts.folder}",
            "93 MB are downloaded when it is first asked",
            "`kimi-magic fetch` downloads it now",
        )
        yield from _disk_rows("local", facts.disk, ROOM_FOR_WEIGHTS)
    if 0 <= facts.memory < LITTLE_MEMORY:
        yield Row(
            "local.memory",
            "look",
            f"{_mb(facts.memory)} of memory are free",
            "the practice model takes about 400 MB",
            "end other programs or kernels before `-e local`",
        )


def setting_rows(settings: Settings) -> Iterator[Row]:
    """List the settings that differ from their defaults, with what set them."""
    differs = False
    for name, trait in sorted(Settings.class_traits(config=True).items()):
        value = getattr(settings, name)
        if value == trait.default(settings):
            continue
        differs = True
        source = "this session (%config or kimi.settings)"
        if os.environ.get(variable := f"KIMI_{name.upper()}"):
            source = f"the environment variable {variable}"
        elif name in settings.of_profile and settings.of_profile[name] == value:
            source = "an IPython profile"
        text = repr(value)
        if name in PROMPTS:
            text = f"a text of {len(value):,} characters"
        elif name == "mcp_servers":  # their environment and headers hold keys
            text = "see MCP servers"
        yield Row(f"setting.{name}", "ok", f"{name} = {text}", f"by {source}")
    if not differs:
        yield Row("setting.none", "ok", "none: each setting has its default")


def look_at_environment(settings: Settings) -> Environment:
    """Read the proxies and the certificates that the environment names."""
    proxies = {
        f"{scheme.upper()}_PROXY": _ACCOUNT.sub(r"\1[account]@", url)
        for scheme, url in sorted(getproxies().items())
        if scheme in ("http", "https", "all")
    }
    problems = []
    try:
        settings.read_environment()
    except ConfigError as error:
        problems.append(str(error))
    paths = {n: os.environ.get(n, "") for n in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    has_socks = any(url.startswith("socks") for url in proxies.values())
    return Environment(
        proxies,
        os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "",
        {name: (path, Path(path).exists()) for name, path in paths.items() if path},
        has_socks and find_spec("socksio") is None,
        problems,
    )


def environment_rows(facts: Environment) -> Iterator[Row]:
    """Judge the proxies and certificates."""
    for problem in facts.problems:
        yield Row(
            "environment.variable", "mend", problem, "cells refuse to run", "unset or correct it"
        )
    for variable, address in facts.proxies.items():
        yield Row(
            f"environment.{variable.lower()}",
            "ok",
            f"{variable} is {address}",
            "requests to other machines go through it",
        )
    if facts.lacks_socks:
        yield Row(
            "environment.socks",
            "mend",
            "the proxy speaks SOCKS, and the library for it is not installed",
            "nothing can be sent through it",
            "pip install socksio, and restart the kernel",
        )
    if facts.proxies and facts.no_proxy:
        yield Row("environment.no_proxy", "ok", f"NO_PROXY is {facts.no_proxy}")
    for variable, (path, is_there) in facts.certificates.items():
        if is_there:
            yield Row(f"environment.{variable.lower()}", "ok", f"{variable} is {path}")
        else:
            yield Row(
                f"environment.{variable.lower()}",
                "mend",
                f"{variable} is {path}, which is not there",
                "no https server can be reached",
                f"correct {variable}, or unset it",
            )
    if not (facts.proxies or facts.certificates or facts.problems):
        yield Row("environment.proxies", "ok", "no proxy and no certificates of one's own")


def names_to_hide(session: Session, chosen: Endpoint | None) -> dict[str, str]:
    """Return the names that a bug report leaves out, each with its mark.

    They are those of the home folder, the machine, the notebook, the tape, the user's own model,
    and of hosts that are not built in. The ``chosen`` endpoint may be a bare address.
    """
    found: dict[str, str] = {}
    notebook = Path(notebook_path())
    if notebook.suffix:
        found |= dict.fromkeys((str(notebook), notebook.name, notebook.stem), "[notebook]")
    settings = session.settings
    for path in (settings.tape, settings.local_model):
        if path:
            found |= dict.fromkeys((path, Path(path).name), "[file]")
    with suppress(KimiError):
        if (use := session.tapes.current) is not None:
            found[use.name] = "[file]"
    endpoints = [*session.connector.catalogue, *([chosen] if chosen else ())]
    addresses = [endpoint.base_url for endpoint in endpoints]
    addresses += [settings.endpoint, *getproxies().values()]
    public = {host_of(endpoint.base_url) for endpoint in BUILT_IN}
    for address in addresses:
        bare = _ACCOUNT.sub("", address).rpartition("://")[2]
        host = host_of(f"http://{bare}")  # a proxy's address may begin otherwise
        if host and host not in public and not is_this_machine(f"http://{bare}"):
            found[host] = "[host]"
    excepted = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").split(",")
    found |= {host.strip(): "[host]" for host in excepted if host.strip() not in _LOOPBACK}
    found[platform.node()] = "[machine]"
    for home in (str(Path.home()), os.path.realpath(Path.home())):
        found[home] = found[repr(home)[1:-1]] = "~"
    return {name: mark for name, mark in found.items() if len(name) >= SHORTEST_NAME}


def _mb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 10**9 else f"{size / 1e6:,.1f} MB"
