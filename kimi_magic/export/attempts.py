"""Heavy mode as Python: several attempts at once, and the request that aggregates them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import Template

from kimi_magic.export.formatting import PYTHON
from kimi_magic.export.imports import Imports
from kimi_magic.export.program import Heavy, Program

__all__ = ["HEAVY_NAMES", "aggregating", "template_of"]

HEAVY_NAMES = (
    *("attempt", "attempts", "quoted", "aggregation", "template", "lock", "judge"),
    *("content", "problem"),
)

# string.Template: $name, and no escaping of braces.
TAKE_ATTEMPTS = """
with ThreadPoolExecutor($count) as pool:
    $attempts = [done for done in pool.map($attempt, range($count)) if done]
if len($attempts) < $enough:
    raise SystemExit("Too few attempts gave an answer.")
"""

QUOTED = r'''
def $quoted(text, limit):
    """Cut a text in its middle, and keep it from ending the element that it is in."""
    text = re.sub(r"<(?=/?(?:attempt|reasoning|answer)\b)", "&lt;", text)
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]}\n[...]\n{text[-half - 1 :]}"
'''

AGGREGATION = r'''
def $aggregation(problem):
    """Return the prompt that has the attempts judged, in an order that means nothing."""
    random.shuffle($attempts)
    even = $chars // len($attempts)
    left = max($chars - sum(len(answer) for _, answer in $attempts), 0)
    texts = [
        f'<attempt number="{number}">\n'
        f"<reasoning>\n{$quoted(reasoning, left // len($attempts))}\n</reasoning>\n"
        f"<answer>\n{$quoted(answer, even)}\n</answer>\n</attempt>"
        for number, (reasoning, answer) in enumerate($attempts, 1)
    ]
    places = {"count": str(len($attempts)), "problem": problem}
    places["attempts"] = "\n\n".join(texts)
    place = r"\{(count|problem|attempts)\}"
    return re.sub(place, lambda found: places[found[1]], $template)
'''


def aggregating(
    heavy: Heavy, program: Program, names: Mapping[str, str], imports: Imports
) -> Iterator[str]:
    """Yield the parts of a Python program that take the attempts and write the last prompt."""
    imports.add("concurrent.futures", "ThreadPoolExecutor")
    imports.add("random")
    imports.add("re")
    values = {"count": heavy.count, "enough": heavy.enough, "chars": heavy.chars}
    for part in (QUOTED, AGGREGATION, TAKE_ATTEMPTS):
        yield Template(part).substitute(names, **values)
    yield _last_prompt(program, names)


def template_of(heavy: Heavy, names: Mapping[str, str]) -> str:
    """Return the statement that holds the prompt of the aggregation, with its places."""
    return PYTHON.assign(names["template"], heavy.prompt)


def _last_prompt(program: Program, names: Mapping[str, str]) -> str:
    """Return the statements that put the prompt of the aggregation in the place of the problem."""
    messages, asked, tab = names["messages"], names["aggregation"], PYTHON.tab
    parts = program.messages[-1].get("content")
    if isinstance(parts, str):
        content = f'{messages}[-1]["content"]'
        return f'{messages}[-1] = {{"role": "user", "content": {asked}({content})}}'
    content, problem = names["content"], names["problem"]
    lines = [
        f'{content} = {messages}[-1]["content"]',
        f'{problem} = "".join(part.get("text", "") for part in {content})',
    ]
    if all(part.get("type") == "text" for part in parts or ()):
        lines.append(f'{messages}[-1] = {{"role": "user", "content": {asked}({problem})}}')
    else:
        lines += [
            f"{messages}[-1] = {{",
            f'{tab}"role": "user",',
            f'{tab}"content": [',
            f'{tab * 2}*(part for part in {content} if part["type"] != "text"),',
            f'{tab * 2}{{"type": "text", "text": {asked}({problem})}},',
            f"{tab}],",
            "}",
        ]
    return "\n".join(lines)
