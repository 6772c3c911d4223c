"""The extension of JupyterLab comes with an install, editable or not."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackagePath, distribution

import pytest

PLACE = "share/jupyter/labextensions/kimi-magic/"
FILES = {
    "package.json",
    "install.json",
    "schemas/kimi-magic/commands.json",
    "static/remoteEntry.js",
    "static/highlighting.js",
    "static/commands.js",
    "static/records.js",
}


@pytest.fixture(scope="module")
def installed() -> dict[str, PackagePath]:
    """Files of the extension by their names in its folder."""
    files = distribution("kimi-magic").files or []
    found = {str(f.as_posix()).partition(PLACE)[2]: f for f in files if PLACE in f.as_posix()}
    assert found, "this install is older than the extension: pip install -e . brings it"
    return found


def test_an_install_brings_the_extension(installed: dict[str, PackagePath]) -> None:
    assert set(installed) == FILES
    package = json.loads(installed["package.json"].read_text("utf-8"))
    assert package["version"] == distribution("kimi-magic").version
    # A server fails at every page if the name, the version or the entry is not there.
    assert package["name"] == "kimi-magic"
    assert package["jupyterlab"]["_build"]["load"] in FILES


def test_the_buttons_and_menus_have_commands(installed: dict[str, PackagePath]) -> None:
    entries = installed["schemas/kimi-magic/commands.json"].read_text("utf-8")
    script = installed["static/commands.js"].read_text("utf-8")
    used = set(re.findall(r'"command": "(.*?)"', entries))
    assert len(used) == 4
    assert used <= set(re.findall(r'"(kimi-magic:[\w-]+)"', script))


def test_it_asks_no_one_but_the_front_end(installed: dict[str, PackagePath]) -> None:
    for name in FILES:
        if name.endswith(".js"):
            source = installed[name].read_text("utf-8")
            words = r"\b(fetch|XMLHttpRequest|WebSocket|sendBeacon|eval|Function|innerHTML)\b"
            assert re.findall(words, source) == [], name
            imported = re.findall(r"\bimport\(?\s*[\"'](.*?)[\"']", source)
            assert all(path.startswith("./") for path in imported), name
