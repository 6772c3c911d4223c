"""What all tests share: an environment without anybody's keys, a fresh session, a kernel."""

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

__all__ = ["bench", "browser", "front_end", "open_bench", "scripted_server"]


def forget_the_users_keys() -> None:
    """Take every key and setting of whoever runs the tests out of the environment."""
    for name in list(os.environ):
        ours = name.startswith("KIMI_") and name != "KIMI_CACHE_DIR"
        if ours or name.endswith("_API_KEY"):
            del os.environ[name]
    os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"


# How long an example takes depends on what else the machine does; CI tries the same ones each
# time, so that a red run is about the change.
hypothesis.settings.register_profile(
    "patient",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

# A shell starts what runs in its background with interrupts ignored, and some tests raise one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything is collected: the notebooks' kernels inherit it as well.
forget_the_users_keys()


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session of its own behind ``kimi.ask`` and its kin, shown nowhere."""
    own = Session()
    monkeypatch.setattr(session_module, "_current", own)
    yield own
    own.close()


@pytest.fixture
def server(
    scripted_server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> ScriptedServer:
    """A scripted server that the session asks by default."""
    monkeypatch.setenv("KIMI_BASE_URL", scripted_server.base_url)
    return scripted_server


@pytest.fixture(scope="session")
def _kernel_process() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


@pytest.fixture
def kernel(_kernel_process: Kernel) -> Kernel:
    """A real kernel with the extension loaded; its namespace and chats are emptied before."""
    _kernel_process.restart_session()
    return _kernel_process


@pytest.fixture
def asked(kernel: Kernel, scripted_server: ScriptedServer) -> ScriptedServer:
    """A scripted server that the kernel asks by default."""
    kernel.run(f"%env KIMI_BASE_URL={scripted_server.base_url}")
    return scripted_server


@pytest.fixture(scope="session")
def node_folder() -> Iterator[Path]:
    """Where programs for Node find the ``openai`` package."""
    from tests.snippets import find_node_package

    try:
        found = find_node_package()
    except LookupError as why:
        if os.environ.get("REQUIRE_NODE"):
            raise
        pytest.skip(f"{why}: the programs for Node were not run")
    with TemporaryDirectory(dir=found) as folder:
        yield Path(folder)
