"""MCP servers by name: where they are named, and the command or the address behind a name.

They come from Python (``kimi.mcp``), from the setting ``mcp_servers``, and from ``.mcp.json`` in
the notebook's folder, in this order. The protocol's SDK is imported when one is first used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from kimi_magic.core.errors import ConfigError
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.text import clip, reveal
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.patterns import mask_shapes
from kimi_magic.wire.headers import secret_in
from kimi_magic.wire.host import host

__all__ = [
    "PREFIX",
    "Launch",
    "McpServer",
    "find_server",
    "is_served",
    "known_servers",
    "mcp",
    "one_line",
    "program_is_there",
    "read_selector",
]

PREFIX = "mcp:"
FILE = ".mcp.json"
PYTHON, SETTING = "Python", "the setting mcp_servers"
MAX_FILE = 1_000_000
MAX_PLACE = 500
MAX_NAME = 100
_SELECTOR = re.compile(r"mcp:\s*([^\[\]]+?)\s*(?:\[([^\[\]]*)\]\s*)?")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_HTTP = ("http", "streamable-http", "streamable_http", "streamablehttp")
_NUMBER = re.compile(r"[0-9.,:+-]*")
_ALMOST_URL = re.compile(r"(?:https?|wss?|ftp):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Launch:
    """A server with its variables filled in; its repr shows nothing of it."""

    command: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str = field(default="", repr=False)
    url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class McpServer:
    """A server whose tools are offered; `mcp` makes one.

    Attributes
    ----------
    name : str
    command : tuple of str
        The program and its arguments; empty for one with an address.
    url : str
    env, headers : mapping of str to str
        Environment variables for the command, and headers for the address; ``${NAME}`` in a value
        stands for a variable of the kernel.
    cwd : str
        The folder that the command starts in; "" for the kernel's.
    tools : tuple of str or None
        Names of the tools to offer; None for all.
    trust : bool
        True if its tools run without asking.
    source : str
        Where it was named: ``Python``, the setting, or a file.
    file : str
        The file's path; "" if it is not from a file.
    """

    name: str
    command: tuple[str, ...] = ()
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    tools: tuple[str, ...] | None = None
    trust: bool = False
    source: str = PYTHON
    file: str = ""

    def __repr__(self) -> str:
        return f"<MCP server {reveal(self.name)}: {self.place}>"

    def __hash__(self) -> int:
        return hash((self.name, self.fingerprint))

    @property
    def place(self) -> str:
        """The command or the address, as it was written, without what looks like a key."""
        text = self.url.partition("?")[0] if self.url else shlex.join(self.command)
        return clip(reveal(mask_shapes(text)[0]), MAX_PLACE)

    @property
    def fingerprint(self) -> str:
        """A hash of all that starts it, with variables by their names."""
        facts = [*self.command], self.url, dict(self.env), dict(self.headers), self.cwd
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def shown(self) -> dict[str, str]:
        """The facts for a person who is asked whether to start it: all but secrets."""
        variables = sorted({name for text in self._texts() for name, _ in _references(text)})
        facts = {
            "address" if self.url else "command": self.url or shlex.join(self.command),
            "folder": self.cwd,
            # Among them may be those that load code: PATH, LD_PRELOAD, NODE_OPTIONS.
            "environment": "\n".join(f"{name}={value}" for name, value in self.env.items()),
            "headers": "\n".join(f"{name}: {value}" for name, value in self.headers.items()),
            "variables that it gets": ", ".join(variables),
            "named in": self.file,
        }
        return {name: mask_shapes(text)[0] for name, text in facts.items() if text}

    def of_tools(self, names: Iterable[str] | None) -> McpServer:
        """Return the server with these of its tools."""
        return self if names is None else replace(self, tools=tuple(dict.fromkeys(names)))

    def launch(self, is_key: Callable[[str], bool]) -> Launch:
        """Fill in the variables; a file of somebody else's gets none that holds a key of ours.

        Raises
        ------
        ConfigError
            A variable is not set, or holds a key.
        """

        def fill(text: str) -> str:
            return _REFERENCE.sub(look_up, text)

        def look_up(reference: re.Match[str]) -> str:
            name, default = reference.groups()
            if self.file and is_key(name):
                raise ConfigError(
                    f"The MCP server {self.name} of {FILE} wants {name}, which is a key of yours "
                    "for a model. It is not handed on."
                )
            value = os.environ.get(name) or default
            if value is None:
                raise ConfigError(
                    f"The MCP server {self.name} needs the environment variable {name}, which is "
                    f"not set. Set it, or write ${{{name}:-default}} in {self.source}."
                )
            return value

        folder = Path(self.file).parent if self.file else None
        cwd = fill(self.cwd)
        return Launch(
            tuple(map(fill, self.command)),
            {name: fill(value) for name, value in self.env.items()},
            str(folder / cwd) if folder else cwd,
            fill(self.url),
            {name: fill(value) for name, value in self.headers.items()},
        )

    def secrets(self, launch: Launch) -> list[Key]:
        """Return what is to be masked of it: values of its environment, its headers, its address.

        Words, paths and numbers are left alone, as they would be masked in every answer.
        """
        source = f"the MCP server {self.name}"
        found = {
            f"{name} of {source}": secret_in(name, value)
            for named in (launch.env, launch.headers)
            for name, value in named.items()
            if not (_NUMBER.fullmatch(value) or _is_path(value))
        }
        for text in self._texts():
            for name, _ in _references(text):
                found[name] = secret_in(name, os.environ.get(name, ""))
        with suppress(ValueError):
            address = urlsplit(launch.url)
            found |= {f"the address of {source}": address.password or ""}
            found |= {f"{n} of {source}": secret_in(n, v) for n, v in parse_qsl(address.query)}
        return [Key(value, name) for name, value in found.items() if value and not _is_path(value)]

    def _texts(self) -> list[str]:
        return [*self.command, *self.env.values(), *self.headers.values(), self.url, self.cwd]


def mcp(
    command_or_url: str | Iterable[str],
    *,
    name: str,
    tools: str | Iterable[str] | None = None,
    trust: bool = False,
    env: Mapping[str, str] | None = None,
) -> McpServer:
    """Name an MCP server, so that its tools can be offered.

    ``-T mcp:NAME`` offers them to a cell, ``tools=[server]`` in Python. The server starts when it
    is first used and ends with the kernel. ``pip install "kimi-magic[mcp]"`` is needed by then.

    Parameters
    ----------
    command_or_url : str or iterable of str
        The command that starts the server, or its address (streamable HTTP).
    name : str
        The model sees the tools as ``NAME__TOOL``.
    tools : str, iterable of str or None
        Names of the tools to offer; None for all.
    trust : bool
        True to run the tools without asking; by default you are asked before each call.
    env : mapping or None
        Environment variables for the server. It gets a few others, such as ``PATH``, but not the
        whole environment of the kernel; ``${NAME}`` stands for one of the kernel's variables.

    Returns
    -------
    McpServer

    Raises
    ------
    ConfigError
        The name, the command or the address cannot be used.

    Examples
    --------
    >>> import kimi_magic as kimi
    >>> files = kimi.mcp("npx -y @modelcontextprotocol/server-filesystem .", name="files")
    """
    if not isinstance(name, str):
        raise ConfigError(f"name= is the server's name, a text; got {name!r:.60}.")
    if not isinstance(trust, bool):
        raise ConfigError(f"trust= takes True or False; got {trust!r:.60}.")
    if isinstance(command_or_url, str):
        entry = _entry_of(command_or_url, f"The MCP server {one_line(name, 60)}")
    else:
        words = command_or_url
        parts = [os.fspath(word) if isinstance(word, os.PathLike) else word for word in words]
        entry = {"command": parts[0] if parts else "", "args": parts[1:]}
    if env and "url" in entry:
        raise ConfigError("env= is for a server that is started here; this one has an address.")
    server = _read_entry(name, entry | {"env": env}, PYTHON, "")
    names = tools.split(",") if isinstance(tools, str) else tools
    server = replace(server.of_tools(_tool_names(names)), trust=trust)
    _named[name] = server
    return server


def one_line(text: str, limit: int = MAX_NAME) -> str:
    """Return a name of somebody else's in one line, in which nothing is hidden."""
    return reveal(clip(" ".join(text.split()), limit))


def is_served(item: Any) -> bool:
    """Return True for a server, or a text that names one: ``mcp:files[read_file]``."""
    return isinstance(item, McpServer) or (isinstance(item, str) and item.startswith(PREFIX))


def read_selector(text: str) -> tuple[str, tuple[str, ...] | None]:
    """Split ``mcp:files[read_file,list]`` into the server's name and those of tools.

    Raises
    ------
    ConfigError
        It is none.
    """
    found = _SELECTOR.fullmatch(text)
    if not found:
        raise ConfigError(f"{text!r:.80} names no MCP server: write mcp:NAME or mcp:NAME[tool, …].")
    return found[1], None if found[2] is None else _tool_names(found[2].split(","))


def find_server(item: McpServer | str) -> McpServer:
    """Return the server that a text names.

    Raises
    ------
    ConfigError
        There is none of this name, or its entry cannot be used.
    """
    if isinstance(item, McpServer):
        return item
    name, tools = read_selector(item)
    entries = _entries()
    if name not in entries:
        near = get_close_matches(name, entries, n=1)
        names = one_line(", ".join(entries), MAX_PLACE) or "none"
        known = f"did you mean {one_line(near[0])}?" if near else f"known: {names}."
        raise ConfigError(
            f"There is no MCP server {one_line(name)}; {known}\n"
            f"Name one in {FILE} in the notebook's folder, in %config KimiMagics.mcp_servers, or "
            "with kimi.mcp(command, name=…)."
        )
    return _made(name, entries[name]).of_tools(tools)


def known_servers(problems: list[str] | None = None) -> dict[str, McpServer]:
    """Return the servers that can be named; ``problems`` takes the reasons why others cannot."""
    found: dict[str, McpServer] = {}
    said = [] if problems is None else problems
    try:
        entries = _entries()
    except ConfigError as error:
        said.append(str(error))
        return found
    for name, entry in entries.items():
        try:
            found[name] = _made(name, entry)
        except ConfigError as error:
            said.append(str(error))
    return found


_named: dict[str, McpServer] = {}  # by `mcp`
_Entry = tuple[Any, str, str] | McpServer  # what was written, where, and in which file


def _made(name: str, entry: _Entry) -> McpServer:
    return entry if isinstance(entry, McpServer) else _read_entry(name, *entry)


def _entries() -> dict[str, _Entry]:
    """Return all entries by the names of servers; those of the user go before those of a file."""
    found: dict[str, _Entry] = {}
    path = Path(notebook_path())
    file = (path if path.is_dir() else path.parent) / FILE
    if file.is_file():
        for name, entry in _listed(_read_file(file), FILE).items():
            found[name] = entry, FILE, str(file)
    if (session := host()) is not None:
        for name, entry in _listed(session.settings.mcp_servers, SETTING).items():
            found[name] = entry, SETTING, ""
    return found | _named


def _read_file(file: Path) -> Any:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise ConfigError(f"{FILE} is larger than {MAX_FILE:,} bytes.")
        return json.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{FILE} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{FILE} is not valid JSON: {clip(str(error), 200)}.") from None


def _listed(given: Any, source: str) -> Mapping[str, Any]:
    for key in ("mcpServers", "servers"):  # the second is VS Code's
        inner = given.get(key) if isinstance(given, Mapping) else None
        if isinstance(inner, Mapping) and not inner.keys() & {"command", "url"}:
            given = inner
            break
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError(f'{source} has no servers: write {{"mcpServers": {{NAME: …}}}}.')
    return given


def _read_entry(name: str, entry: Any, source: str, file: str) -> McpServer:
    called = f"The MCP server {one_line(name, 60)} of {source}"
    # It stands in questions to a person, and at the beginning of lines.
    if not name.strip() or len(name) > MAX_NAME or one_line(name) != name:
        raise ConfigError(f"{called} needs a name of one line, with up to {MAX_NAME} characters.")
    if re.search(r"[\[\],]", name):
        raise ConfigError(f"{called} needs a name without brackets and commas.")
    if isinstance(entry, str):
        entry = _entry_of(entry, called)
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{called} needs a command or a url.")
    url, command = entry.get("url") or "", entry.get("command") or ""
    if problem := _problem(entry, url, command):
        raise ConfigError(f"{called} {problem}.")
    args, cwd = entry.get("args") or [], entry.get("cwd") or ""
    env, headers = entry.get("env") or {}, entry.get("headers") or {}
    if not (_are_texts(args, list, tuple) and isinstance(cwd, str)):
        raise ConfigError(f"{called} takes args as a list of texts, and cwd as a text.")
    if not (_are_texts(env, Mapping) and _are_texts(headers, Mapping)):
        raise ConfigError(f"{called} takes env and headers as names with texts.")
    if url:
        return McpServer(name, url=url, headers=dict(headers), source=source, file=file)
    return McpServer(name, (command, *args), env=dict(env), cwd=cwd, source=source, file=file)


def _problem(entry: Mapping[str, Any], url: Any, command: Any) -> str:
    kind = str(entry.get("type") or entry.get("transport") or "").lower()
    if kind == "sse":
        return "has the old transport sse: give its streamable HTTP address"
    if kind not in ("", "stdio", *_HTTP):
        return f"has the type {kind:.40}: it is stdio or http"
    if (url or kind in _HTTP) and not (isinstance(url, str) and _is_url(url)):
        return "needs an address that begins with http:// or https://"
    if not url and not (isinstance(command, str) and command.strip()):
        return "needs a command or a url"
    return ""


def program_is_there(program: str, folder: str | Path, path: str | None) -> bool:
    """Return True if a server's program is found: a path counts from the folder.

    Parameters
    ----------
    path : str or None
        Where programs are looked for by their names; None for this process's own ``PATH``.
    """
    place = str(Path(folder, program).absolute()) if os.sep in program else program
    return shutil.which(place, path=path) is not None


def _are_texts(given: Any, *kinds: type) -> bool:
    """Return True for a container of one of these kinds that holds texts alone."""
    if not isinstance(given, kinds):
        return False
    parts: list[Any] = [*cast("Iterable[Any]", given)]
    parts += given.values() if isinstance(given, Mapping) else ()
    return all(isinstance(part, str) for part in parts)


def _entry_of(text: str, called: str) -> dict[str, Any]:
    """Return the entry that a text stands for: an address, or a command as in a shell."""
    text = text.strip()
    if _is_url(text):
        return {"url": text}
    if _ALMOST_URL.match(text):
        raise ConfigError(
            f"{called} has no address in {text!r:.80}: one begins with http:// or https://."
        )
    try:
        first, *rest = shlex.split(text, posix=os.name == "posix") or [""]
    except ValueError as error:
        raise ConfigError(f"{called} has a command that cannot be read: {error}.") from None
    return {"command": first, "args": rest}


def _tool_names(given: Iterable[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    names: list[Any] = list(given)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ConfigError(f"tools= takes names of tools; got {wrong[0]!r:.60}.")
    return tuple(filter(None, map(str.strip, names)))


def _is_url(text: str) -> bool:
    return re.match(r"https?://", text.strip(), re.IGNORECASE) is not None


def _references(text: str) -> list[tuple[str, str]]:
    return _REFERENCE.findall(text)


def _is_path(value: str) -> bool:
    try:
        return os.sep in value and Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
