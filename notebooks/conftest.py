"""Keep the notebooks from the keys, the settings and the journal of the person running them.

Those of `pytest notebooks` as well, which reads no other file of this kind.
"""

from __future__ import annotations

from contextlib import suppress

from tests.conftest import forget_the_users_keys

forget_the_users_keys()

# What matplotlib says while it looks for the machine's fonts, once, belongs to no cell.
with suppress(ImportError):
    import matplotlib.font_manager
