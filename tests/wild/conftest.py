"""The notebooks here run in `test_wild.py`, with a server that answers."""

from __future__ import annotations

collect_ignore_glob = ["*.ipynb"]
