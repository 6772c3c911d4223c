"""Helpers that run exported programs and compare their requests."""

from __future__ import annotations

import json
import linecache
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from platformdirs import user_cache_path

from kimi_magic.export import FORMS, Program, write
from kimi_magic.testing import ScriptedServer

KEY = "key-of-the-tests"
MODEL = "kimi-k2-thinking"
OPTIONS: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 0.9,
    "max_tokens": 16384,
    "seed": 7,
    "stop": ["END", "\n\n"],
    "stream": True,
    "stream_options": {"include_usage": True},
}

# Each breaks the quoting of at least one language, if done carelessly.
NASTY = [
    "'EOF'",
    "EOF",
    "a\nEOF\nb",
    "${HOME} $HOME $(date) `date` ${NVIDIA_API_KEY}",
    "\"quoted\" 'quoted' \"\"\"quoted\"\"\" '''quoted''' `quoted`",
    '"""\n"""" ends with a quote, "',
    "\\ \\n \\\\ \\u0041 \\x41 \\",
    "a\n\\",
    "tab\t, bell\a, escape\x1b[31m, NUL\0, DEL\x7f",
    "CR\rLF\nCRLF\r\n",
    "half a pair: \ud83d, the other half: \ude00, both: 😀",
    "👩‍👩‍👧 🏳️‍🌈 漢字 עברית می‌خواهم \u202eright to left\u202c \ufeff \xa0 \u2028 \u2029",
    "%%kimi\n%time x\n!ls\n?x\nx?\n>>> x\nIn [1]: x\n",
    "blanks at the ends   \nof lines \t\n   ",
    "\n\n",
    " ",
    "{{ template }} {curly} %s %(name)s $$ #! // */ <!-- ]]>",
]
hostile = st.text(
    st.one_of(
        st.sampled_from("\n\n\"'`\\${}\r\t \0\x1b😀é漢\u2028\u202e\u200d\ud800%!?#"),
        st.characters(),
    ),
    min_size=1,
    max_size=120,
) | st.sampled_from(NASTY)
batches = st.lists(hostile, min_size=30, max_size=60)
# Each example runs a program, so an example is a batch of texts.
by_batch = settings(
    max_examples=3,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def ask(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text} for text in texts]


def program(
    server: ScriptedServer, messages: list[dict[str, Any]] | None = None, **how: Any
) -> Program:
    """Make a program that asks the server; keywords that `Program` lacks go into the body."""
    own = {name: how.pop(name) for name in ("functions", "notes", "provider") if name in how}
    body = {"model": MODEL, "messages": messages or ask("9.11 or 9.9?"), **OPTIONS, **how}
    body = {name: value for name, value in body.items() if value is not None}
    return Program(body, server.base_url, "LAB_API_KEY", own.pop("provider", "lab"), **own)


def run(
    text: str, form: str, folder: Path, typed: str | None = "", **environment: str | None
) -> str:
    """Run a program as a user would, who types some lines, and return what it prints."""
    path = folder / f"program{FORMS[form].suffix}"
    path.write_bytes(text.encode())
    command = {"node": "node", "curl": "sh"}.get(form, sys.executable)
    variables = {
        **{name: value for name, value in os.environ.items() if not name.endswith("_proxy")},
        "LAB_API_KEY": KEY,
        "NO_PROXY": "127.0.0.1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONWARNINGS": "error",
        **environment,
    }
    ran = subprocess.run(
        [command, path],
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
        input=(typed or "").encode(),
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stderr == b"", ran.stderr.decode()
    return ran.stdout.decode()


def stopped(text: str, folder: Path) -> str:
    """Run a Python program that must stop by itself, and return the one line that it says why."""
    (folder / "stops.py").write_text(text, "utf-8")
    environment = os.environ | {"PYTHONUTF8": "1", "PYTHONWARNINGS": "error", "LAB_API_KEY": KEY}
    ran = subprocess.run(
        [sys.executable, "stops.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=100,
        check=False,
        encoding="utf-8",
    )
    assert ran.returncode == 1, ran.stderr
    (line,) = ran.stderr.splitlines()
    return line


def find_node_package() -> Path:
    """Return a folder in which Node finds the ``openai`` package; it is installed once.

    Raises
    ------
    LookupError
        Node is missing, or the package cannot be installed.
    """
    if missing := [program for program in ("node", "npm") if not shutil.which(program)]:
        raise LookupError(f"no {missing[0]} on this machine")
    cache = Path(os.environ.get("KIMI_CACHE_DIR") or user_cache_path("kimi-magic"))
    folder = cache / "tests-node"
    if not (folder / "node_modules" / "openai").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as fresh:
            install = ["npm", "install", "--no-fund", "--no-audit", "--prefix", fresh, "openai"]
            ran = subprocess.run(install, capture_output=True, text=True, timeout=300, check=False)
            if ran.returncode:
                raise LookupError(f"npm cannot bring the openai package:\n{ran.stderr}")
            with suppress(OSError):  # another process was faster
                Path(fresh).rename(folder)
                Path(fresh).mkdir()
    return folder


def export_and_run(wanted: Program, form: str, folder: Path, **environment: str | None) -> str:
    return run(write(wanted, form), form, folder, **environment)


def meaning(body: Mapping[str, Any]) -> dict[str, Any]:
    """Normalise a request, so that equivalent ones are equal."""
    plain = json.loads(json.dumps(body))
    plain["messages"] = [_meaning_of_message(message) for message in plain["messages"]]
    plain.setdefault("stream", False)
    return {name: value for name, value in plain.items() if value is not None}


def _meaning_of_message(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    for call in message.get("tool_calls") or ():
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return {**message, "content": content}


def cell(source: str, namespace: dict[str, Any]) -> None:
    """Run a cell as IPython does, with its source in the line cache."""
    namespace.setdefault("__name__", "__main__")
    name = f"/tmp/ipykernel_0/{len(linecache.cache)}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec", dont_inherit=True), namespace)


def check_layout(text: str, folder: Path) -> None:
    """Check a program with ruff's formatter and linter at their defaults."""
    ruff(text, folder, "format", "--diff")
    ruff(text, folder, "check")


def ruff(text: str, folder: Path, *command: str) -> None:
    (folder / "checked.py").write_bytes(text.encode())
    ran = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", "checked.py"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout.decode() + ran.stderr.decode()
