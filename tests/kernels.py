"""A real kernel, driven message by message like a front end."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import IPython
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager

RESET = """
import os
for _name in list(os.environ):
    if (_name[:5] == "KIMI_" and _name != "KIMI_CACHE_DIR") or _name.endswith("_API_KEY"):
        del os.environ[_name]
get_ipython().reset(new_session=False)
import kimi_magic as kimi, kimi_magic.session
get_ipython().run_line_magic("load_ext", "kimi_magic")
kimi_magic.session.current().chats.clear()
kimi_magic.session.current().last = None
kimi_magic.session.current().connector.spending.__init__()
import kimi_magic.tools.decorator
kimi_magic.tools.decorator.offered.clear()
kimi.settings.cell_errors.clear()
kimi.settings.cell_errors.latest = None
kimi.settings.read_environment()
for _name, _trait in type(kimi.settings).class_traits(config=True).items():
    setattr(kimi.settings, _name, _trait.default(kimi.settings))
# Keep no turns in the user's data folder.
__import__("os").environ["KIMI_JOURNAL"] = kimi.settings.journal = "off"
"""

KEEPS_PRINTS = IPython.version_info >= (9, 1)
"""IPython keeps what a cell prints."""


class OwnSpec(KernelSpecManager):
    """Start kernels in this environment, whatever kernelspecs are installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            language="python",
            display_name="Python 3",
        )


class OwnManager(KernelManager):
    """Manages a kernel of this environment.

    Where there are sockets in files, through these: a TCP port is chosen here and bound in the
    kernel, and in between anything else may take it.
    """

    def __init__(self) -> None:
        own: dict[str, Any] = {"kernel_spec_manager": OwnSpec()}
        if sys.platform != "win32":
            self._folder = TemporaryDirectory(prefix="kernel-", dir="/tmp")  # short: 107 characters
            own |= {"transport": "ipc", "connection_file": f"{self._folder.name}/kernel.json"}
        super().__init__(**own)

    def cleanup_resources(self, restart: bool = False) -> None:
        super().cleanup_resources(restart)
        if not restart and self.transport == "ipc":
            self._folder.cleanup()


@dataclass
class Ran:
    """Messages and reply of one cell, in order of arrival."""

    status: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [m["content"] for m in self.messages if m["msg_type"] in kinds]

    @property
    def stdout(self) -> str:
        return "".join(c["text"] for c in self.of("stream") if c["name"] == "stdout")

    @property
    def stderr(self) -> str:
        return "".join(c["text"] for c in self.of("stream") if c["name"] == "stderr")

    @property
    def displays(self) -> list[dict[str, Any]]:
        return [c["data"] for c in self.of("display_data", "update_display_data")]

    @property
    def record(self) -> dict[str, Any]:
        """The MIME bundle of the frozen record."""
        return self.displays[-1]

    @property
    def told(self) -> str:
        """The notices in the record, and the error as shown below it."""
        shown = [data.get("text/plain", "") for data in self.displays[-1:]]
        return "\n".join([*shown, self.error])

    @property
    def error(self) -> str:
        """The error as shown in the cell."""
        return "\n".join("\n".join(c["traceback"]) for c in self.of("error"))

    @property
    def ops(self) -> list[dict[str, Any]]:
        """The operations sent to the live view."""
        sent = [c["data"] for c in self.of("comm_msg")]
        return [
            op
            for data in sent
            if data.get("method") == "custom"
            for op in data["content"].get("ops", [])
        ]


class Kernel:
    """A kernel that runs cells; ``allow_stdin`` means that a person can answer questions."""

    def __init__(self) -> None:
        self._manager = OwnManager()

    def __enter__(self) -> Self:
        self._manager.start_kernel()
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()

    def interrupt(self) -> None:
        """Interrupt the kernel; unlike the manager's method, any thread may call this one."""
        provisioner: Any = self._manager.provisioner
        os.killpg(provisioner.pid, signal.SIGINT)

    def die(self, code: str, until: Callable[[], bool]) -> None:
        """Run a cell, and kill the kernel in the middle of it, as soon as something holds."""
        self._execute(code, "", allow_stdin=False)
        stop = time.monotonic() + 60
        while not until():
            assert time.monotonic() < stop, f"this never came so far:\n{code}"
            time.sleep(0.02)
        provisioner: Any = self._manager.provisioner
        os.killpg(provisioner.pid, signal.SIGKILL)

    def restart_session(self) -> None:
        self.run(RESET)

    def run(
        self,
        code: str,
        *,
        allow_stdin: bool = False,
        ok: bool = True,
        answer: str | Sequence[str] | None = None,
        watch: Callable[[dict[str, Any]], None] | None = None,
        cell: str = "",
        timeout: float = 60.0,
    ) -> Ran:
        """Run a cell to its end; ``watch`` sees each message as it arrives.

        Questions are answered with ``answer``, or with one of its items each. ``cell`` is the
        cell id that a front end would send.
        """
        ran = Ran()
        answers = iter(itertools.repeat(answer) if isinstance(answer, str) else answer or ())
        began = time.monotonic()
        asked = self._execute(code, cell, allow_stdin=allow_stdin)
        while True:
            if answer is not None and self._client.stdin_channel.msg_ready():
                self._answer(ran, asked, answers)
            try:
                message = self._client.get_iopub_msg(timeout=0.2)
            except Exception:  # noqa: BLE001 - the client raises queue.Empty and zmq's kin
                if time.monotonic() - began > timeout:
                    raise TimeoutError(f"the cell did not end in {timeout} s:\n{code}") from None
                continue
            if message["parent_header"].get("msg_id") != asked:
                continue
            ran.messages.append(message)
            if watch:
                watch(message)
            state = message["content"].get("execution_state")
            if message["msg_type"] == "status" and state == "idle":
                break
        ran.reply = self._reply_to(asked)
        ran.status = ran.reply["status"]
        ran.seconds = time.monotonic() - began
        if ok:
            assert ran.status == "ok", ran.error
        return ran

    def _answer(self, ran: Ran, asked: str, answers: Iterator[str]) -> None:
        question = self._client.get_stdin_msg(timeout=1)
        if question["parent_header"].get("msg_id") == asked:  # otherwise of an interrupted cell
            ran.questions.append(question["content"]["prompt"])
            self._client.input(next(answers))

    def _reply_to(self, asked: str) -> dict[str, Any]:
        while True:
            reply: dict[str, Any] = self._client.get_shell_msg(timeout=10)
            if reply["parent_header"]["msg_id"] == asked:  # otherwise of an abandoned cell
                return dict(reply["content"])

    def complete(self, code: str) -> dict[str, Any]:
        """Complete the code at its end, as the tab key does."""
        found: dict[str, Any] = self._client.complete(code, reply=True, timeout=30)["content"]
        return found

    def _execute(self, code: str, cell: str, *, allow_stdin: bool) -> str:
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": False,
        }
        metadata = {"cellId": cell} if cell else {}
        message = self._client.session.msg("execute_request", content, metadata=metadata)
        self._client.shell_channel.send(message)
        return str(message["header"]["msg_id"])
