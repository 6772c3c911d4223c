"""Comments above ``%%kimi``: allowed, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from kimi_magic.jupyter.input_transforms import cell_below_comments, cell_without_body
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel


def managers() -> tuple[TransformerManager, TransformerManager]:
    """One without our transformers, one with them."""
    make: Any = TransformerManager
    plain, ours = make(), make()
    ours.cleanup_transforms += [cell_below_comments, cell_without_body]
    return plain, ours


@pytest.mark.parametrize(
    "above",
    ["# why\n", "\n\n", "# one\n\n  # two\n", "   \n# a\n", "#\n", "# %%time\n", "#'''\n"],
)
def test_comments_and_blank_lines_may_stand_above(above: str) -> None:
    plain, ours = managers()
    for cell in ("%%kimi -R\nWhy?\n# not a comment\n", "%%kimi\n# heading\n\n%%kimi\n"):
        assert ours.transform_cell(above + cell) == plain.transform_cell(cell)
    assert "run_cell_magic('kimi', ' -h'" in ours.transform_cell(f"{above}%%kimi -h")
    assert ours.check_complete(f"{above}%%kimi\nWhy?") == plain.check_complete("%%kimi\nWhy?")


@pytest.mark.parametrize(
    "cell",
    [
        "# c\n%%bash\nls",
        "%%time\n%%kimi\nHi",
        "# c\n%%time\n%%kimi\nHi",
        "x = 1\n%%kimi\nHi",
        "x = '''\n%%kimi\nHi'''",
        "# c\nx = '''\n%%kimi\nHi'''",
        "# c\n'''\n%%kimi\n'''",
        "# c\n%kimi ask Hi",
        "# c\n%%kimikimi\nHi",
        "# c\n# %%kimi\nx = 1",
        "# c",
        "",
        "\n\n",
        "# c\n%%kimi?",
    ],
)
def test_all_else_is_left_alone(cell: str) -> None:
    plain, ours = managers()
    assert ours.transform_cell(cell) == plain.transform_cell(cell)


def test_in_a_kernel(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    kernel.run("# the question of the day\n\n%%kimi -R\nWhy?")
    assert asked.requests[0].body["messages"][-1]["content"] == "Why?"
    assert "--seed" in kernel.complete("# c\n\n%%kimi --se")["matches"]
    assert "--seed" not in kernel.complete("x = 1\n%%kimi --se")["matches"]
    found = kernel.complete("%%kimi --")
    listed = found["metadata"]["_jupyter_types_experimental"]
    types = {each["text"]: each["type"] for each in listed}
    assert list(types)[:2] == ["--model", "--endpoint"], "in the order of the table"
    assert types["--seed"] == "repeat the same sampling, if the server supports it"
    ran = kernel.run("%%kimi?")
    text = str(ran.reply["payload"])
    assert "--dry-run" in text
    assert "%kimi fix" in text
