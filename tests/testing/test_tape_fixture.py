"""The fixture ``kimi_tape``: where its tapes lie, what its modes do, and the documents' example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.testing import ScriptedServer
from kimi_magic.testing.tape_fixture import tape_of

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/tape.md").read_text("utf-8")
FILES = ("tickets.py", "test_tickets.py")
TEST_FILE = Path("/home/me/tests/test_tickets.py")


class Project:
    """A folder with tests of somebody's own, run in a pytest of its own."""

    def __init__(self, folder: Path, journal: str = "off") -> None:
        self.folder = folder
        forgotten = ("KIMI_", "PYTEST_", "CI")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(forgotten)}
        # Of a checkout that is not installed pytest does not know the plugin; all others cost time.
        self.environment = environment | {
            "PYTHONPATH": str(ROOT),
            "KIMI_JOURNAL": journal,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text, "utf-8")

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        command = (sys.executable, "-m", "pytest", "-q", "-p", "kimi_magic.testing.tape_fixture")
        ran = subprocess.run(
            [*command, "-p", "no:cacheprovider", "--strict-markers", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout + ran.stderr

    @property
    def tapes(self) -> list[str]:
        found = self.folder.rglob("tapes/**/*.tape*")
        return sorted(path.relative_to(self.folder).as_posix() for path in found)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def at(server: ScriptedServer) -> dict[str, str]:
    return {"KIMI_BASE_URL": server.base_url, "KIMI_MODEL": server.models[0]}


def test_the_example_of_the_document(project: Project, scripted_server: ScriptedServer) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(blocks) == len(FILES)
    for name, block in zip(FILES, blocks, strict=True):
        assert f"`{name}`" in DOCUMENT
        (project.folder / name).write_text(block, "utf-8")
    code, said = project.run()
    assert code == 1, "nothing is recorded, and nothing is sent"
    assert said.count("which does not exist (mode none)") == 2
    assert "pytest --kimi-tape=new records what is not on it." in said

    scripted_server.reply("High", reasoning="Down is bad.")
    scripted_server.reply("low", reasoning="One letter.")
    code, said = project.run("--kimi-tape=new", **at(scripted_server))
    assert code == 0, said
    folder = "tapes/test_tickets/test_an_urgency_is_one_of_two"
    assert project.tapes == [f"{folder}-down.tape", f"{folder}-typo.tape"]

    assert len(scripted_server.requests) == 2
    code, said = project.run("-v")
    assert code == 0, said
    assert len(scripted_server.requests) == 2, "a key and a server are wanted once"


PLAIN = """
import kimi_magic as kimi
def test_it(kimi_tape): assert kimi.ask("Hello").text == "Hi"
"""


def test_all_records_anew(project: Project, scripted_server: ScriptedServer) -> None:
    project.write(test_plain=PLAIN)
    scripted_server.reply("Hm")
    scripted_server.reply("Hi")
    assert project.run("--kimi-tape=new", **at(scripted_server))[0] == 1
    assert project.run("--kimi-tape=all", **at(scripted_server))[0] == 0
    assert project.run()[0] == 0


MARKED = """
import pytest, kimi_magic as kimi

@pytest.mark.kimi_tape("shared.tape", mode="new", strict=True)
class TestTogether:
    def test_one(self, kimi_tape): assert kimi.ask("Hello").text == "Hi"
    def test_two(self, kimi_tape): assert "shared.tape, scripted" == kimi.ask("Hello").replayed
    def test_without(self): assert kimi.last is not None

class TestAlone:
    def test_one(self, kimi_tape): kimi.ask("Hello")

@pytest.mark.kimi_tape("../../elsewhere.tape")
def test_outside(kimi_tape): pass
"""


def test_a_mark_names_another_tape(project: Project, scripted_server: ScriptedServer) -> None:
    project.write(test_marked=MARKED)
    scripted_server.reply("Hi")
    code, said = project.run(**at(scripted_server))
    assert code == 1
    assert "3 passed, 1 failed, 1 error" in said or "1 failed, 3 passed, 1 error" in said
    assert "is not in the folder" in said
    assert project.tapes == ["tapes/shared.tape"]
    assert "tapes/test_marked/TestAlone.test_one.tape, which does not exist" in said.replace(
        "\\", "/"
    )


def test_the_plugin_is_declared_by_the_name_of_its_module() -> None:
    """One plugin and not two, where ``-p`` or a conftest loads it as well."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    name = tape_of.__module__
    assert project["entry-points"]["pytest11"] == {name: name}


NAMES = [
    ("test_it", "test_it"),
    ("TestIt.test_it[a-1.5]", "TestIt.test_it-a-1.5"),
    ("test_it[../../../etc/passwd]", "test_it-..-..-..-etc-passwd-"),
    ("test_it[a b]", "test_it-a-b-"),
    ("test_it[A]", "test_it-A-"),
    ("test_it[]", "test_it-"),
    ("test_it[\0\x1b\n]", "test_it-"),
    ("test_größe", "test_gr-e-"),
    ("test_" + "x" * 300, "test_" + "x" * 95 + "-"),
    ("nul", "_nul"),
]


@pytest.mark.parametrize(("name", "file"), NAMES)
def test_a_tests_tape_lies_beside_its_file(name: str, file: str) -> None:
    path = tape_of(TEST_FILE, name)
    assert path.parent == TEST_FILE.parent / "tapes/test_tickets"
    assert path.suffix == ".tape"
    if file.endswith("-"):
        assert re.fullmatch(re.escape(file) + "[0-9a-f]{8}", path.stem)
    else:
        assert path.stem == file


@given(st.text(), st.text())
def test_each_test_has_a_tape_of_its_own(one: str, two: str) -> None:
    names = [f"test_it[{text}]" for text in (one, two)]
    paths = [tape_of(TEST_FILE, name) for name in names]
    assert (paths[0] == paths[1]) == (one == two)
    assert (str(paths[0]).lower() == str(paths[1]).lower()) == (one == two)
    for path in paths:
        assert re.fullmatch(r"[A-Za-z0-9_.,=+@-]{1,120}", path.name)
        assert not path.name.startswith((".", "-"))


@pytest.mark.parametrize("name", ["", ".", "..", "../x.tape", "/etc/passwd", "a/../../x.tape"])
def test_a_mark_leads_out_of_the_folder_of_tapes_no_more(name: str) -> None:
    with pytest.raises(pytest.UsageError, match="not in the folder"):
        tape_of(TEST_FILE, "test_it", name)
    inside = tape_of(TEST_FILE, "test_it", "shared/a.tape.gz")
    assert PurePosixPath(inside).as_posix().endswith("tests/tapes/shared/a.tape.gz")
