"""``kimi.map`` beside lotus, daft and LangChain, in one run against one server.

The peers live in an environment of their own, which has 7 GB (lotus brings torch)::

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install lotus-ai daft langchain-openai
    python -m benchmarks.map_peers --peers /tmp/peers/bin/python

1,000 short prompts, 32 at once, against a server in another process that takes 50 ms for each:
rows a second, CPU a row (that of child processes included), and the peak of resident memory over
what the process has when all is imported. Each figure is the median of three fresh processes.
Then 20 rows, of which the server refuses one with 400 for as long as it is asked: what a caller has
of the other 19, what they are asked for by a second call, and how many requests both sent. A peer
that cannot be imported is named with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
from typing import Any

from aiohttp import web

ROUNDS = 3
AT_ONCE, PROMPTS, LATENCY = 32, 1000, 0.05
FEW, BAD = 20, re.compile(r"few 7\b")
ANSWER = "9.9 is bigger than 9.11."
PATIENCE = 120  # seconds for a process
MODEL = "kimi-k2-thinking"
USAGE = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
ABOUT = {"id": "c", "created": 1762387200, "model": MODEL}
PIECES = [f"{word} " for word in ANSWER.split()]

SETUP = """
import json, os, resource, sys, time
url, at_once, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.environ.update(OPENAI_API_KEY="none", OPENAI_BASE_URL=url, KIMI_BASE_URL=url)
os.environ.update(KIMI_JOURNAL="off", LITELLM_LOCAL_MODEL_COST_MAP="True")
os.environ.update(DAFT_ANALYTICS_ENABLED="0", DO_NOT_TRACK="1", DAFT_PROGRESS_BAR="0")
def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def texts(count, word="row"):
    return [f"{word} {i}" for i in range(count)]
"""
LANGCHAIN = """
import asyncio
from langchain_openai import ChatOpenAI
loop = asyncio.new_event_loop()
model = ChatOpenAI(model="kimi-k2-thinking", base_url=url, api_key="none")
async def batch(texts, **how):
    config = {"max_concurrency": at_once}
    return await model.abatch([f"Say {t}" for t in texts], config=config, **how)
"""
# Each defines ask(texts), which returns the answers in the order of the texts, with None or an
# exception in the place of one that failed, or raises.
RUNNERS = {
    "kimi.map": """
import kimi_magic as kimi, tempfile
into = tempfile.mkdtemp() + "/answers.parquet"
def ask(texts):
    frame = kimi.map(texts, "Say {{ value }}", concurrency=at_once, show=False, into=into)
    return [None if error else text for text, error in zip(frame.text, frame.error.notna())]
""",
    "LangChain, abatch": LANGCHAIN
    + """
def ask(texts):
    return [answer.content for answer in loop.run_until_complete(batch(texts))]
""",
    "LangChain, abatch(return_exceptions=True)": LANGCHAIN
    + """
def ask(texts):
    answers = loop.run_until_complete(batch(texts, return_exceptions=True))
    return [None if isinstance(a, Exception) else a.content for a in answers]
""",
    "lotus, sem_map": """
import lotus, pandas as pd
from lotus.models import LM
lotus.settings.configure(
    lm=LM("openai/kimi-k2-thinking", api_base=url, api_key="none", max_batch_size=at_once)
)
def ask(texts):
    return pd.DataFrame({"t": texts}).sem_map("Say {t}", progress_bar_desc="")["_map"].tolist()
""",
    "lotus, sem_map, cache on": """
import lotus, pandas as pd, tempfile
from lotus.cache import CacheConfig, CacheFactory, CacheType
from lotus.models import LM
config = CacheConfig(cache_type=CacheType.SQLITE, max_size=10_000, cache_dir=tempfile.mkdtemp())
lotus.settings.configure(
    lm=LM(
        "openai/kimi-k2-thinking",
        api_base=url,
        api_key="none",
        max_batch_size=at_once,
        cache=CacheFactory.create_cache(config),
    ),
    enable_cache=True,
)
def ask(texts):
    return pd.DataFrame({"t": texts}).sem_map("Say {t}", progress_bar_desc="")["_map"].tolist()
""",
    "daft, prompt": """
import daft
from daft.functions import format, prompt
daft.set_provider("openai", base_url=url, api_key="none")
def ask(texts):
    frame = daft.from_pydict({"t": texts})
    said = prompt(
        format("Say {}", daft.col("t")),
        provider="openai",
        model="kimi-k2-thinking",
        use_chat_completions=True,
        **options,
    )
    return frame.with_column("a", said).to_pydict()["a"]
options = {"max_retries": 2}
""",
}
RUNNERS["daft, prompt(on_error='log')"] = RUNNERS["daft, prompt"].replace(
    '{"max_retries": 2}', '{"max_retries": 2, "on_error": "log"}'
)
FAST = """
answers = ask(texts(at_once, "warm"))
assert len(answers) == at_once and "bigger" in answers[0], answers[:2]
before, began, used = peak(), time.perf_counter(), cpu()
answers = ask(texts(rows))
seconds, used = time.perf_counter() - began, cpu() - used
assert len(answers) == rows and all("bigger" in a for a in answers)
print(json.dumps({"seconds": seconds, "cpu": used, "peak": peak() - before, "before": before}))
"""
FAULTY = """
import urllib.request
def sent():
    with urllib.request.urlopen(url.replace("/v1", "/asked")) as answer:
        return json.load(answer)
calls = []
for _ in range(2):
    before = sent()
    try:
        answers = ask(texts(rows, 'few'))
        had = [a for a in answers if isinstance(a, str) and "bigger" in a]
        said = f"{len(had)} of {rows} answers"
    except BaseException as error:
        said = f"raises {type(error).__name__}, no answers"
    after = sent()
    calls.append([said, after["all"] - before["all"], after["good"] - before["good"]])
    print(json.dumps(calls), flush=True)
"""


class Server:
    """Answers after 50 ms, streamed or not; refuses the prompts that hold `BAD`."""

    def __init__(self) -> None:
        self.asked = {"all": 0, "good": 0}

    async def run(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/asked", self._asked)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
        await asyncio.Event().wait()

    async def _asked(self, _: web.Request) -> web.Response:
        return web.json_response(self.asked)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        is_bad = BAD.search(json.dumps(body["messages"])) is not None
        self.asked["all"] += 1
        self.asked["good"] += not is_bad
        await asyncio.sleep(LATENCY)
        if is_bad:
            error = {"message": "refused for good", "type": "invalid_request_error"}
            return web.json_response({"error": error}, status=400)
        if not body.get("stream"):
            message = {"role": "assistant", "content": ANSWER}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {**ABOUT, "object": "chat.completion", "choices": [choice], "usage": USAGE}
            return web.json_response(whole)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(STREAM)
        return response


def _event(delta: dict[str, Any], end: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": end}
    chunk = {**ABOUT, "object": "chat.completion.chunk", "choices": [choice], **more}
    return f"data: {json.dumps(chunk)}\n\n"


STREAM = "".join(
    [
        *(_event({"content": piece}) for piece in PIECES),
        _event({}, "stop", usage=USAGE),
        "data: [DONE]\n\n",
    ]
).encode()


def ran(python: str, url: str, code: str, rows: int) -> Any:
    """Run code in a fresh process; return what it printed last, or why it failed."""
    command = [python, "-c", SETUP + code, url, str(AT_ONCE), str(rows)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as late:
        printed = (late.stdout or b"").decode().strip().splitlines()
        return json.loads(printed[-1]) if printed else f"no end within {PATIENCE} s"
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    said = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["no words"]
    raised = [line for line in said if "Error" in line or "Exception" in line]
    return (raised or said)[-1][:200]


def measure(name: str, python: str, url: str) -> list[str]:
    """Return a row of the table."""
    code = RUNNERS[name]
    found = [ran(python, url, code + FAST, PROMPTS) for _ in range(ROUNDS)]
    if problems := [each for each in found if isinstance(each, str)]:
        speed = [f"not measured: {problems[0]}", "", "", ""]
    else:
        fast = {key: statistics.median(each[key] for each in found) for key in found[0]}
        speed = [
            f"{PROMPTS / fast['seconds']:.0f}",
            f"{fast['cpu'] / PROMPTS * 1000:.1f} ms",
            f"{fast['peak']:.0f} MB",
            f"{fast['before']:.0f} MB",
        ]
    calls = ran(python, url, code + FAULTY, FEW)
    if isinstance(calls, str):
        return [name, *speed, calls, "", ""]
    (first, sent, _), (_, later, again) = [*calls, ["", "?", "does not end, ?"]][:2]
    return [name, *speed, first, f"{again} of {FEW - 1}", f"{sent} + {later}"]


HEAD = ["", "rows/s", "CPU a row", "peak over start", "start", "one row refused"]
HEAD += ["asked again by a 2nd call", "requests"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=sys.executable, help="the Python of the peers")
    parser.add_argument("--only", default="", help="those with this text in their name")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(Server().run())
        return
    serve = [sys.executable, "-m", "benchmarks.map_peers", "--serve"]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip()
        ideal = AT_ONCE / LATENCY
        print(f"{PROMPTS} rows, {AT_ONCE} at once, {LATENCY * 1000:.0f} ms: at most {ideal:.0f}/s")
        print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
        for name in (each for each in RUNNERS if options.only in each):
            python = sys.executable if name == "kimi.map" else options.peers
            print("| " + " | ".join(measure(name, python, url)) + " |", flush=True)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
