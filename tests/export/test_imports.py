"""The import statements of a program, and what has to be installed for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_magic.export.imports import Imports


def test_what_is_installed_in_mid_session_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at all that is installed is kept as long as nothing is added or removed."""
    monkeypatch.syspath_prepend(tmp_path)

    def packages() -> list[str]:
        imports = Imports()
        imports.add("frobnicate")
        return imports.packages()

    assert packages() == []
    about = tmp_path / "frobnicator-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: frobnicator\nVersion: 1.0\n")
    (about / "top_level.txt").write_text("frobnicate\n")
    assert packages() == ["frobnicator"]
