"""The README is true: its tables come from the code, and its Python runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import kimi_magic
from tests.kernels import Kernel
from tests.tables import README, ROOT, SECURITY, attacks, filled, tables

TEXT = README.read_text("utf-8")
CELLS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_tables_are_current() -> None:
    assert filled(TEXT, tables()) == TEXT, "python -m tests.tables writes them anew"


def test_every_attack_stands_in_the_security_document() -> None:
    text = SECURITY.read_text("utf-8")
    assert filled(text, attacks()) == text, "python -m tests.tables writes them anew"
    for named in re.findall(r"`(tests/[^`]+)`", text):
        assert (ROOT / named).exists(), named


def test_every_attack_says_its_aim_its_input_and_what_must_hold() -> None:
    for module in (ROOT / "tests/attacks").glob("test_*.py"):
        tree = ast.parse(module.read_text("utf-8"))
        assert (ast.get_docstring(tree) or "").startswith("Aim: "), module.name
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                said = ast.get_docstring(node) or ""
                assert said.startswith("Input: "), f"{module.name}: {node.name}"
                assert "Holds: " in said, f"{module.name}: {node.name}"


def test_the_two_commands_come_first() -> None:
    first_screen = TEXT[:1600]
    demo, tests = re.findall(r"```sh\n(.*?)\n```", first_screen, re.DOTALL)
    assert demo.endswith('pip install -e ".[demo]" && .venv/bin/kimi-magic demo')
    assert tests.endswith('pip install -e ".[test]" && .venv/bin/pytest')


def test_every_python_block_runs(kernel: Kernel) -> None:
    """All blocks run in order, in one kernel, with the practice model."""
    assert len(CELLS) > 8
    for cell in CELLS:
        kernel.run(cell, timeout=100)
    assert kernel.run("print(answer.chat, len(geography.turns))").stdout == "main 1\n"


def test_contributing_names_files_that_exist() -> None:
    root = README.parent
    text = (root / "CONTRIBUTING.md").read_text("utf-8") + (root / "SECURITY.md").read_text("utf-8")
    package = Path(kimi_magic.__file__).parent
    rooms = [root, package, package / "context"]
    for path in re.findall(r"`(\w+/[\w/]*\w\.py)`", text):
        assert any((room / path).is_file() for room in rooms), path


def test_relative_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (README.parent / target).exists(), target
