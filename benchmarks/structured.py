"""Rate of answers that fit a schema at the first try: ``python -m benchmarks.structured``.

The practice model extracts a person from each of twenty sentences, in each mode in which an
endpoint can be asked for data. An answer is valid if it can be read, and right if it agrees with
the sentence. The model samples greedily, so the figures do not change from run to run.
"""

from __future__ import annotations

import json
from typing import Any, get_args

import httpx2

from kimi_magic.schema.output import Mode, SchemaMismatch, output_schema
from kimi_magic.wire.endpoints import LOCAL
from kimi_magic.wire.local.process import LocalEngine

SCHEMA = "name, age int, city"
NAMES = "Ann Ben Carla David Emma Farid Grace Hugo Ines Jack".split()
CITIES = "Rome Paris Oslo Lima Cairo Delhi Tokyo Sydney Boston Dublin".split()
PEOPLE = [
    {"name": NAMES[n % 10], "age": 20 + 3 * n, "city": CITIES[(3 * n + n // 10) % 10]}
    for n in range(20)
]
SENTENCES = (
    "{name} is {age} years old and lives in {city}.",
    "In {city} I met {name}, who had just turned {age}.",
    "At the age of {age}, {name} moved to {city}.",
    "My friend from {city} is called {name}; she is {age}.",
)


def main() -> None:
    schema = output_schema(SCHEMA)
    engine = LocalEngine()
    running = engine.start()
    headers = {"Authorization": f"Bearer {running.key}"}
    with httpx2.Client(base_url=running.base_url, headers=headers, timeout=120) as client:

        def ask(prompt: str, mode: Mode) -> str:
            body: dict[str, Any] = {
                "model": running.model,
                "messages": [{"role": "user", "content": f"{prompt}\n\n{schema.instruction}"}],
                "temperature": LOCAL.temperature,
                "seed": LOCAL.seed,
                "max_tokens": LOCAL.max_tokens,
            }
            answer = client.post("/chat/completions", json=body | schema.request(mode))
            return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])

        for mode in get_args(Mode):
            valid = right = 0
            for n, person in enumerate(PEOPLE):
                sentence = SENTENCES[n % len(SENTENCES)].format(**person)
                try:
                    value = schema.read(ask(f"Who is it? {sentence}", mode))
                except SchemaMismatch:
                    continue
                valid += 1
                right += value == person
            print(json.dumps({"mode": mode, "of": len(PEOPLE), "valid": valid, "right": right}))
    engine.stop()


if __name__ == "__main__":
    main()
