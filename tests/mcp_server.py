"""A small MCP server on standard streams, of an older protocol, that does what a file says.

The file is read anew for each request, so a test can change the tools while the server runs. All
messages that it gets are appended to a second file. Written without the SDK, as it has to do what
no server should.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PLAN, LOG = Path(sys.argv[1]), Path(sys.argv[2])


def plan() -> dict[str, Any]:
    while True:
        with suppress(ValueError):  # it is being written
            read: dict[str, Any] = json.loads(PLAN.read_text("utf-8"))
            return read


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def receive() -> dict[str, Any]:
    line = sys.stdin.readline()
    while not line:
        if not plan().get("start", {}).get("stays"):
            sys.exit()
        time.sleep(0.1)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(line)
    message: dict[str, Any] = json.loads(line)
    return message


def text(said: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}]}


def ask(question: dict[str, Any], number: int) -> Any:
    send(id=f"ask-{number}", method="elicitation/create", params=question)
    while (message := receive()).get("id") != f"ask-{number}":
        pass
    return message.get("result", message.get("error"))


def call(number: Any, params: dict[str, Any]) -> None:
    does = plan().get("calls", {}).get(params["name"], {})
    token = params.get("_meta", {}).get("progressToken")
    if "stderr" in does:
        sys.stderr.write(does["stderr"])
        sys.stderr.flush()
    if does.get("crash"):
        os._exit(3)
    for done in range(does.get("progress", 0)):
        told = {"progressToken": token, "progress": done + 1, "message": "on the way"}
        send(method="notifications/progress", params=told)
    if "garbage" in does:
        sys.stdout.write(does["garbage"].replace("NUMBER", str(number)))
        sys.stdout.flush()
    if does.get("hang"):
        return
    if does.get("changed"):
        send(method="notifications/tools/list_changed")
        time.sleep(0.05)
    answers = [ask(does["ask"], i) for i in range(does.get("times", 1))] if "ask" in does else []
    if "error" in does:
        send(id=number, error=does["error"])
        return
    result = does.get("result") or text(json.dumps(answers or params.get("arguments")))
    if "size" in does:
        result = text("x" * does["size"])
    if does.get("env"):
        result = text(json.dumps(dict(os.environ)))
    send(id=number, result=result)


def listed(number: Any, params: dict[str, Any]) -> None:
    if "unlisted" in plan():
        send(id=number, error={"code": -32000, "message": plan()["unlisted"]})
        return
    while plan().get("waits"):
        time.sleep(0.01)
    page = {"tools": plan()["tools"]}
    if plan().get("endless"):
        at = int(params.get("cursor") or 0)
        page = {"tools": [{**page["tools"][0], "name": f"t{at}"}], "nextCursor": str(at + 1)}
    send(id=number, result=page)


def main() -> None:
    start = plan().get("start", {})
    sys.stderr.write(start.get("stderr", ""))
    sys.stdout.write(start.get("stdout", ""))
    sys.stdout.flush()
    if "exit" in start:
        sys.exit(start["exit"])
    while True:
        message = receive()
        method, number = message.get("method"), message.get("id")
        if number is None or method is None or start.get("hang"):
            continue
        params = message.get("params") or {}
        if method == "initialize":
            while plan().get("start", {}).get("waits"):
                time.sleep(0.01)
            info = {"name": "test", "version": "1"}
            version, abilities = "2025-06-18", {"tools": {"listChanged": True}}
            result = {"protocolVersion": version, "capabilities": abilities, "serverInfo": info}
            send(id=number, result=result)
        elif method == "tools/list":
            listed(number, params)
        elif method == "tools/call":
            call(number, params)
        elif start.get("old"):
            sys.exit()
        else:
            send(id=number, error={"code": -32601, "message": "Method not found"})


if __name__ == "__main__":
    main()
