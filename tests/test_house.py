"""The architecture: imports point down, modules are few, importing is cheap."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import kimi_magic

PACKAGE = Path(kimi_magic.__file__).parent

# A room may import the rooms above it in this list, and no others. Rooms on one line do not import
# each other.
STOREYS = (
    {"core"},
    {"schema", "secrets"},
    {"config"},
    {"export", "wire", "chats", "display"},
    {"context"},
    {"tools"},
    {"turn"},
    {"session"},
    {"lab", "batch"},
    {"jupyter", "api"},
    {"kimi_magic"},
)
ALONE = {"testing"}
# Names that are words of their own as well, for values that may be of any type.
COMMON_NAMES = set("error options part prompt send tools value".split())
LONGEST = 600
MOST_AT_THE_TOP = 6


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield (parts[0] if parts[0] != "__init__" else "kimi_magic"), path


def imports(path: Path) -> Iterator[str]:
    """Yield the rooms that a module imports, within functions as well."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "kimi_magic":
                inner = PACKAGE / (parts[1] if len(parts) > 1 else "")
                is_room = len(parts) > 1 and (inner.is_dir() or inner.with_suffix(".py").exists())
                yield parts[1] if is_room else "kimi_magic"


def storey(room: str) -> int:
    return next(i for i, rooms in enumerate(STOREYS) if room in rooms)


@pytest.mark.parametrize(
    ("room", "path"), [pytest.param(r, p, id=str(p.relative_to(PACKAGE))) for r, p in modules()]
)
def test_imports_point_down(room: str, path: Path) -> None:
    for wanted in set(imports(path)) - {room}:
        arrow = f"{room} → {wanted}"
        if room in ALONE:  # as any user it may come in by the front door
            assert wanted == "kimi_magic", f"{arrow}: {room} stands alone"
            continue
        assert wanted not in ALONE, f"{arrow}: {wanted} is for tests"
        assert storey(wanted) != storey(room), (
            f"{arrow}: rooms of one storey do not know each other"
        )
        assert storey(wanted) < storey(room), f"{arrow} points up"


def annotated(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The names of parameters and attributes, each with its annotation."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation:
            yield node.arg, ast.unparse(node.annotation)
        elif isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target).rpartition(".")[2], ast.unparse(node.annotation)


CLASSES = {
    (re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name).lower(), room)
    for room, path in modules()
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and room not in ALONE
}


@pytest.mark.parametrize(
    ("room", "path"), [pytest.param(r, p, id=str(p.relative_to(PACKAGE))) for r, p in modules()]
)
def test_any_stands_for_no_type_from_above(room: str, path: Path) -> None:
    """An attribute ``chat: Any`` in a room below that of ``Chat`` is an arrow up in disguise."""
    if room in ALONE:
        return
    above = {name for name, home in CLASSES if storey(home) > storey(room)}
    above |= {name.rpartition("_")[2] for name in above}
    hidden = {
        name
        for name, hint in annotated(ast.parse(path.read_text("utf-8")))
        if hint in ("Any", "Any | None") and name in above
    }
    assert hidden <= COMMON_NAMES, f"{sorted(hidden)} have types of their own"


@pytest.mark.parametrize("path", [p for _, p in modules()], ids=lambda p: p.name)
def test_modules_hold_one_idea(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST


def test_the_top_of_the_package_is_short() -> None:
    assert len(list(PACKAGE.glob("*.py"))) - 1 <= MOST_AT_THE_TOP


def test_no_file_name_occurs_twice() -> None:
    names = Counter(path.name for _, path in modules() if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_the_public_names_are_there() -> None:
    for name in kimi_magic.__all__:
        getattr(kimi_magic, name)
    assert set(kimi_magic.__all__) <= set(dir(kimi_magic))
    assert callable(kimi_magic.ask)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kimi_magic.nothing  # noqa: B018


def test_no_public_object_shares_the_name_of_a_module() -> None:
    assert not set(kimi_magic.__all__) & {room for room, _ in modules()}


KEYWORDS = (
    "tools variables system model endpoint chat schema effort heavy temperature top_p "
    "max_tokens seed stop max_steps approve show judge until_agree equal logprobs"
).split()


@pytest.mark.parametrize("function", [kimi_magic.ask, kimi_magic.stream])
def test_the_contract_of_ask(function: object) -> None:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert list(parameters) == ["prompt", *KEYWORDS]
    for name in KEYWORDS:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default is None


def test_public_functions_and_classes_are_documented() -> None:
    for name in set(kimi_magic.__all__) - {"last", "last_sweep", "settings"}:
        assert inspect.getdoc(getattr(kimi_magic, name)), name


HEAVY = (
    "openai httpx2 pydantic ipywidgets anywidget rich markdown_it nh3 aiohttp keyring xllamacpp "
    "narwhals"
)


def test_loading_the_extension_loads_nothing_heavy() -> None:
    code = f"""
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.run_line_magic("load_ext", "kimi_magic")
print(*[name for name in {HEAVY.split()!r} if name in sys.modules and name not in before])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_loading_the_extension_loads_nothing_of_a_turn() -> None:
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_line_magic("load_ext", "kimi_magic")
rooms = ("turn", "tools", "export", "lab", "schema", "testing")
names = (name.split(".") for name in sys.modules if name.startswith("kimi_magic."))
print(*[".".join(name) for name in names if name[1] in rooms and name[2:]])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["kimi_magic.turn.tapes_in_use"]
