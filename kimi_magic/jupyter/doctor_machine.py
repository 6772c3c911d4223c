"""The doctor on Python, its libraries and the front end: facts, and the rules that judge them."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from kimi_magic.config import Settings
from kimi_magic.core import frontend
from kimi_magic.display.view import suitable_kind
from kimi_magic.jupyter.doctor_table import Row

__all__ = [
    "FrontEndFinding",
    "Software",
    "Unmet",
    "front_end_rows",
    "look_at_front_end",
    "look_at_software",
    "own_version",
    "software_rows",
]

NAME = "kimi-magic"
LISTED = (
    "ipykernel ipython ipywidgets jupyterlab notebook anywidget openai httpx2 jupyterlab_widgets"
).split()
PAIRED = ("dask", "distributed")
# The extras for users, each with its purpose.
EXTRAS = {
    "local": "the practice model",
    "keyring": "keys in the system's keyring",
    "anthropic": "servers that speak Anthropic's form",
    "mcp": "MCP servers as tools",
    "dask": "maps on a cluster",
    "snippets": "programs for LangChain",
}
NEWER_KERNEL = 'pip install -U "ipykernel>=7.4", and restart the kernel'


@dataclass(frozen=True, slots=True)
class Unmet:
    """A requirement of ours that the installed libraries do not meet."""

    name: str
    wanted: str  # such as >=8.20
    found: str = ""  # empty where it is not installed
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Software:
    """Python and the libraries in its environment.

    Attributes
    ----------
    versions : mapping
        By name; libraries that are not installed are left out.
    unmet : sequence of Unmet or None
        None where they were not compared.
    missing : mapping
        By extra, its libraries that are not installed; empty where all are.
    """

    kimi_magic: str
    python: str
    platform: str
    versions: Mapping[str, str]
    unmet: Sequence[Unmet] | None = ()
    missing: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True, slots=True)
class FrontEndFinding:
    """The front end, as far as a kernel knows it.

    Attributes
    ----------
    where : str
        ``kernel``, ``terminal`` or ``shell``.
    view, setting : str
        The kind of view that fits, and the one of the settings.
    widgets : str
        The reason why widgets do not work; empty where they may.
    heard : float or None
        Seconds until a page answered while the cell ran; None for no answer.
    extension : str or None
        The version of the extension of JupyterLab that this environment's folders have.
    """

    where: str
    name: str = ""
    ipykernel: str = ""
    stdin: bool = False
    captured: bool = False
    view: str = ""
    setting: str = "auto"
    widgets: str = ""
    heard: float | None = None
    has_cell_id: bool = False
    is_named: bool = False
    extension: str | None = None
    version: str = ""


def look_at_software() -> Software:
    """Read the versions of what is installed; nothing is imported for it."""
    versions = {name: found for name in (*LISTED, *PAIRED) if (found := _version(name))}
    unmet, missing = _unmet()
    return Software(
        own_version(),
        platform.python_version(),
        f"{platform.system()} {platform.machine()}",
        versions,
        unmet,
        missing,
    )


def own_version() -> str:
    """Return the version of this package; "" where it is not installed."""
    return _version(NAME)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _unmet() -> tuple[list[Unmet] | None, dict[str, list[str]] | None]:
    """Compare our declared requirements with the installed libraries."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return None, None
    unmet: list[Unmet] = []
    wanted_by: dict[str, list[str]] = {}
    try:
        declared = [Requirement(line) for line in requires(NAME) or ()]
    except PackageNotFoundError:
        return None, None
    for needed in declared:
        named = re.search(r"""\bextra\s*==\s*["']([\w-]+)["']""", str(needed.marker or ""))
        extra = named[1] if named else ""
        if extra and extra not in EXTRAS:
            continue
        if needed.marker and not needed.marker.evaluate({"extra": extra}):
            continue
        found = _version(needed.name)
        if extra:
            wanted_by.setdefault(extra, [])
            if not found:
                wanted_by[extra].append(needed.name)
                continue
        if not found or not needed.specifier.contains(found, prereleases=True):
            unmet.append(Unmet(needed.name, str(needed.specifier), found, extra))
    return unmet, wanted_by


def software_rows(facts: Software) -> Iterator[Row]:
    """Judge Python, the versions of libraries, and pairs of them that are known not to work."""
    yield Row("software.python", "ok", f"Python {facts.python} on {facts.platform}")
    yield Row("software.kimi_magic", "ok", f"kimi-magic {facts.kimi_magic or 'from its source'}")
    listed = [f"{name} {facts.versions[name]}" for name in LISTED if name in facts.versions]
    yield Row("software.versions", "ok", ", ".join(listed) or "none of Jupyter's libraries")
    if facts.unmet is None:
        yield Row(
            "software.requirements",
            "unknown",
            "the versions that kimi-magic needs were not compared",
            "the library `packaging` is not installed, or kimi-magic itself is not",
            "pip check",
        )
    elif not facts.unmet:
        yield Row("software.requirements", "ok", "each library is as new as kimi-magic needs it")
    for each in facts.unmet or ():
        found = f"{each.name} {each.found}" if each.found else f"no {each.name}"
        of = f"the extra {each.extra}" if each.extra else "kimi-magic"
        yield Row(
            "software.requirements",
            "mend",
            f"{found} is installed",
            f"{of} needs {each.name}{each.wanted}",
            f'pip install -U "{each.name}{each.wanted}", and restart the kernel',
        )
    yield from _pair_rows(facts.versions)
    for extra, purpose in EXTRAS.items():
        missing = (facts.missing or {}).get(extra)
        if missing is None:
            continue
        if missing:
            yield Row(
                f"software.extra_{extra}",
                "unknown",
                f"the extra {extra} is not installed",
                f"it is for {purpose}",
                f'pip install "kimi-magic[{extra}]"',
            )
        else:
            yield Row(f"software.extra_{extra}", "ok", f"the extra {extra}", purpose)


def _pair_rows(versions: Mapping[str, str]) -> Iterator[Row]:
    """Judge versions that are as new as we need them, and yet matter alone or together."""
    kernel, ipython = versions.get("ipykernel"), versions.get("ipython")
    if 0 < _number(kernel) < 7:  # measured: a message of a page waits for the end of the cell
        yield Row(
            "software.pair_ipykernel",
            "look",
            f"ipykernel {kernel}",
            "clicks wait for the end of a cell: approvals ask at an input prompt",
            NEWER_KERNEL,
        )
    if 0 < _number(ipython) < 9.01:  # since 9.1 it keeps printed output in its history
        yield Row(
            "software.pair_ipython",
            "look",
            f"IPython {ipython}",
            "it keeps no printed output: --cells and `%kimi explain` go without it",
            'pip install -U "ipython>=9.1", and restart the kernel',
        )
    # ipywidgets 8 and jupyterlab_widgets 3 speak version 2.1 of the widgets' protocol.
    widgets, page = versions.get("ipywidgets"), versions.get("jupyterlab_widgets")
    is_page_here = page or "jupyterlab" in versions or "notebook" in versions
    if int(_number(widgets)) == 8 and is_page_here and int(_number(page)) != 3:
        beside = f"jupyterlab_widgets {page}" if page else "no jupyterlab_widgets"
        yield Row(
            "software.pair_widgets",
            "mend",
            f"ipywidgets {widgets} with {beside}",
            "JupyterLab shows «Error displaying widget» in place of a turn",
            'pip install -U "jupyterlab_widgets>=3,<4", and load the page again',
        )
    least = {"jupyterlab": 4, "notebook": 7}
    old = [name for name in least if 0 < _number(versions.get(name)) < least[name]]
    if old:
        yield Row(
            "software.pair_lab",
            "look",
            ", ".join(f"{name} {versions[name]}" for name in old),
            "it does not load the extension of kimi-magic: no colours, no commands, no buttons",
            'pip install -U "jupyterlab>=4.2" "notebook>=7.2"',
        )
    dask, distributed = versions.get("dask"), versions.get("distributed")
    if dask and distributed and dask != distributed:
        yield Row(
            "software.pair_dask",
            "mend",
            f"dask {dask} with distributed {distributed}",
            "the two are made for each other in equal versions: a cluster may not start",
            f'pip install -U "dask=={dask}" "distributed=={dask}"',
        )


def _number(text: str | None) -> float:
    """Return a version as a number, 9.1 as 9.01 and 9.18 as 9.18; 0 for none."""
    found = re.match(r"(\d+)(?:\.(\d+))?", text or "")
    return int(found[1]) + int(found[2] or 0) / 100 if found else 0.0


def look_at_front_end(
    settings: Settings, display_id: str, on_shown: Callable[[], None]
) -> FrontEndFinding:
    """Find out the abilities of the front end.

    ``on_shown`` is called when a widget stands in the output ``display_id``, to ask the page.
    """
    shell = frontend.running_shell()
    own = own_version()
    if shell is None:
        return FrontEndFinding("shell", extension=_extension(), version=own)
    if not frontend.has_kernel(shell):
        return FrontEndFinding("terminal", view=suitable_kind(shell), setting=settings.view)
    view = suitable_kind(shell)
    widgets, heard = "", None
    if view == "live":
        try:
            from kimi_magic.display.live.hearing import heard_within

            heard = heard_within(display_id, on_shown)
        except ImportError as error:
            widgets = f"{error.name or 'a library'} cannot be imported"
    return FrontEndFinding(
        "kernel",
        _name_of(shell),
        _version("ipykernel"),
        stdin=frontend.takes_questions(),
        captured=frontend.is_captured(shell),
        view=view,
        setting=settings.view,
        widgets=widgets,
        heard=heard,
        has_cell_id=bool(frontend.running_cell()[0]),
        is_named=Path(frontend.notebook_path()).suffix == ".ipynb",
        extension=_extension(),
        version=own,
    )


def _name_of(shell: Any) -> str:
    """Return the name of the front end, by the traces that it leaves; no message says it."""
    if "google.colab" in sys.modules:
        return "Google Colab"
    if "__vsc_ipynb_file__" in shell.user_ns or "VSCODE_PID" in os.environ:
        return "VS Code"
    if frontend.prints_only():
        return "a console of Jupyter"
    return "JupyterLab or Notebook" if "JPY_SESSION_NAME" in os.environ else ""


def _extension() -> str | None:
    """Return the version of our extension in the folders where JupyterLab looks; None for none."""
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError:
        return None
    for folder in jupyter_path("labextensions"):
        try:
            about = json.loads((Path(folder) / NAME / "package.json").read_text("utf-8"))
            return str(about["version"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return None


def front_end_rows(facts: FrontEndFinding) -> Iterator[Row]:
    """Judge the abilities of the front end."""
    if facts.where == "shell":
        yield Row(
            "front_end.kind",
            "unknown",
            "front end, widgets, clicks, stdin and cells are not seen from here",
            "a shell sees no kernel, nor what an IPython profile or `%config` sets",
            "run `%kimi doctor` in a notebook",
        )
        yield _extension_row(facts)
        return
    if facts.where == "terminal":
        yield Row(
            "front_end.kind", "ok", "IPython in a terminal", f"turns are shown as {facts.view}"
        )
        return
    named = f", under {facts.name}" if facts.name else ""
    yield Row("front_end.kind", "ok", f"a kernel of Jupyter{named}", _shown_as(facts))
    yield _widget_row(facts)
    if facts.stdin:
        yield Row("front_end.stdin", "ok", "a person can be asked at an input prompt")
    else:
        yield Row(
            "front_end.stdin",
            "look",
            "nobody can be asked anything (no stdin), as in `jupyter execute`",
            "a key cannot be typed, and calls that want a yes are refused",
            "set keys in the environment; `--approve yes` runs the calls of a cell",
        )
    if facts.has_cell_id:
        yield Row("front_end.cell_id", "ok", "cells tell their id", _ANCHORED)
    else:
        yield Row(
            "front_end.cell_id",
            "look",
            "cells tell no id",
            "a cell that is run again continues its chat, and does not replace its turn",
            "`%%kimi --fresh` begins the chat anew",
        )
    if not facts.is_named:
        yield Row(
            "front_end.notebook",
            "unknown",
            "the front end does not tell the notebook's name",
            "`%kimi resume` finds chats by the folder; `%kimi load` wants a name",
        )
    yield _extension_row(facts)


_ANCHORED = "a cell that is run again takes the place of its earlier turn"


def _shown_as(facts: FrontEndFinding) -> str:
    chosen = facts.view if facts.setting == "auto" else f"{facts.setting}, by the setting view"
    captured = " (the output is captured)" if facts.captured else ""
    return f"turns are shown as {chosen}{captured}"


def _widget_row(facts: FrontEndFinding) -> Row:
    check = "front_end.widgets"
    if facts.view != "live":
        return Row(
            check,
            "unknown",
            "no widget is used here",
            "no page is there that could show one, or answer",
        )
    if facts.widgets:
        return Row(
            check,
            "mend",
            f"widgets do not work: {facts.widgets}",
            "turns show nothing until they end",
            "pip install -U anywidget ipywidgets, and restart the kernel",
        )
    if facts.heard is not None:
        return Row(
            check,
            "ok",
            f"widgets work; a page answered within {facts.heard:.1f} s while the cell ran",
            "Stop and the approval of calls work by a click",
        )
    return Row(
        check,
        "look",
        "no page answered while this cell ran",
        "clicks arrive when the cell has ended, or widgets are not shown: approvals ask at an "
        "input prompt, Kernel → Interrupt stops",
        _no_answer(facts.ipykernel),
    )


def _no_answer(ipykernel: str) -> str:
    if 0 < _number(ipykernel) < 7:
        return NEWER_KERNEL
    return (
        "load the page again; if «Error displaying widget» stands there, install ipywidgets and "
        "anywidget where JupyterLab runs; `%config KimiMagics.view = 'plain'` does without"
    )


def _extension_row(facts: FrontEndFinding) -> Row:
    if facts.extension is None:
        return Row(
            "front_end.extension",
            "unknown",
            "the extension of JupyterLab is not in this environment's folders",
            "without it: no colours in %%kimi cells, no commands Ask, Fix and Explain",
            "pip install kimi-magic where JupyterLab runs, and load the page again",
        )
    if facts.version and facts.extension != facts.version:
        return Row(
            "front_end.extension",
            "look",
            f"the extension of JupyterLab is {facts.extension}, kimi-magic {facts.version}",
            "the page and the kernel may not understand each other",
            "pip install -U --force-reinstall --no-deps kimi-magic, and load the page again",
        )
    return Row("front_end.extension", "ok", f"the extension of JupyterLab, {facts.extension}")
