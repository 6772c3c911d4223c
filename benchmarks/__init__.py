"""Measurements: ``python -m benchmarks.NAME``. By itself none writes into the user's journal."""

import os

os.environ.setdefault("KIMI_JOURNAL", "off")
