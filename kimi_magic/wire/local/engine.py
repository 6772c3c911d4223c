"""The embedded engine's process: llama.cpp behind an OpenAI-compatible server on loopback.

Protocol: the first line of stdin is a JSON object with the options, ``KIMI_ENGINE_KEY`` in the
environment is the key that requests must carry. One JSON line comes back on stdout,
``{"base_url": …, "context_window": …}`` or ``{"error": …}``. The process ends with its stdin,
which closes however the parent ends.

It is started as a file, so it imports nothing of the package.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

KEY_VARIABLE = "KIMI_ENGINE_KEY"


def main() -> None:
    """Serve the model that stdin names until stdin ends."""
    reply = _claim_stdout()
    options = json.loads(sys.stdin.buffer.readline())
    # Started before the model is loaded, which takes minutes for a large one.
    lifeline = threading.Thread(target=_end_with_stdin, daemon=True)
    lifeline.start()
    try:
        server, answer = _serve(options, os.environ.pop(KEY_VARIABLE))
    except Exception as error:  # noqa: BLE001 - the parent reports it, whatever it is
        _send(reply, {"error": f"{error}" or type(error).__name__})
        return
    _send(reply, answer)
    _silence()
    lifeline.join()
    del server


def _claim_stdout() -> BinaryIO:
    """Reserve stdout for our one line; native code that prints there is sent to stderr."""
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return reply


def _end_with_stdin() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def _serve(options: dict[str, Any], key: str) -> tuple[Any, dict[str, Any]]:
    """Load the model and listen; return the server and the answer to the parent."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options["model"]
    params.model_alias = {options["alias"]}  # a set: a plain string is taken apart into its letters
    params.use_jinja = True
    if options["template"]:
        params.chat_template = Path(options["template"]).read_text(encoding="utf-8")
        params.n_gpu_layers, params.fit_params = 0, False
    # One slot has the whole context; the server cuts it to what the model was trained on.
    params.n_ctx, params.n_parallel = options["context"], 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    params.cpuparams.poll = params.cpuparams_batch.poll = 0  # or threads that wait spin
    params.cache_ram_mib = 256
    params.warmup, params.ui = False, False
    params.verbosity = 1  # errors only
    params.port, params.api_keys = 0, [key]  # any free port of 127.0.0.1
    server = xllamacpp.Server(params)
    base_url = f"{server.listening_address}/v1"
    window = _context_window(server.listening_address, key)
    return server, {"base_url": base_url, "context_window": window}


def _context_window(address: str, key: str) -> int:
    host = address.partition("://")[2]
    with closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
        models = json.loads(connection.getresponse().read())
    return int(models["data"][0]["meta"]["n_ctx"])


def _send(reply: BinaryIO, answer: dict[str, Any]) -> None:
    reply.write(json.dumps(answer).encode() + b"\n")
    reply.close()


def _silence() -> None:
    """Discard all output: nobody reads stderr once the server is up, and a file would grow."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    main()
