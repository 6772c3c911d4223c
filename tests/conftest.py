"""Shared fixtures: an environment without keys, a fresh session, a kernel."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest

from kimi_magic import session as session_module
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer, scripted_server
from tests.frontends import bench, browser, front_end, open_bench
from tests.kernels import Kernel
from tests.mcp_plans import planned

__all__ = ["bench", "browser", "front_end", "open_bench", "planned", "scripted_server"]


def forget_the_users_keys() -> None:
    """Remove all keys and settings of the person running the tests from the environment."""
    for name in list(os.environ):
        ours = name.startswith("KIMI_") and name != "KIMI_CACHE_DIR"
        if ours or name.endswith("_API_KEY"):
            del os.environ[name]
    os.environ["KIMI_JOURNAL"] = "off"  # and none of their own turns
    os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"


# The time an example takes depends on the load of the machine. CI always tries the same examples,
# so that a failure is due to the change under test.
hypothesis.settings.register_profile(
    "patient",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

# Shells start background jobs with SIGINT ignored, and some tests raise it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# At import, before the kernels of the notebooks inherit the environment.
forget_the_users_keys()


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """Put a fresh, silent session behind ``kimi.ask`` and the other functions."""
    own = Session()
    monkeypatch.setattr(session_module, "_current", own)
    yield own
    own.close()


@pytest.fixture
def server(
    scripted_server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> ScriptedServer:
    """Start a scripted server, the session's default endpoint, and name its model."""
    monkeypatch.setenv("KIMI_BASE_URL", scripted_server.base_url)
    monkeypatch.setenv("KIMI_MODEL", scripted_server.models[0])
    return scripted_server


@pytest.fixture(scope="session")
def _kernel_process() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


@pytest.fixture
def kernel(_kernel_process: Kernel) -> Kernel:
    """A real kernel with the extension loaded and an empty namespace, without chats."""
    _kernel_process.restart_session()
    return _kernel_process


@pytest.fixture
def asked(kernel: Kernel, scripted_server: ScriptedServer) -> ScriptedServer:
    """Start a scripted server, the kernel's default endpoint, and name its model."""
    kernel.run(f"%env KIMI_BASE_URL={scripted_server.base_url}")
    kernel.run(f"%env KIMI_MODEL={scripted_server.models[0]}")
    return scripted_server


@pytest.fixture(scope="session")
def node_folder() -> Iterator[Path]:
    """A folder in which Node finds the ``openai`` package."""
    from tests.snippets import find_node_package

    try:
        found = find_node_package()
    except LookupError as why:
        if os.environ.get("REQUIRE_NODE"):
            raise
        pytest.skip(f"{why}: the programs for Node were not run")
    with TemporaryDirectory(dir=found) as folder:
        yield Path(folder)
