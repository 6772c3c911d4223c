"""Aim: paint over what a person reads or clicks: the approval form, a card's line, the status."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer
from tests.frontends import LONG, Bench, in_a_browser, only_lab

pytestmark = in_a_browser

# Boxes of 80 em that lie above, below and on both sides of where they are written.
RULES = [
    r"\rule[-80em]{80em}{80em}",
    r"\rule[-2em]{80em}{80em}",
    r"\smash{\rule[-80em]{80em}{160em}}",
    r"\rlap{\rule[-80em]{80em}{160em}}",
    r"\llap{\rule[-80em]{80em}{160em}}",
    r"\mathrlap{\rule[-80em]{80em}{160em}}",
    r"\raise-9em{\color{white}{\rule[-40em]{80em}{80em}}}",
    r"\lower9em{\bbox[white,40em]{x}}",
    r"\kern-40em\rule[-40em]{80em}{80em}",
    r"\hskip-40em\colorbox{black}{\Huge Run it}",
    r"\smash{\fcolorbox{black}{white}{$\begin{matrix}a\\[40em]b\end{matrix}$}}",
    r"\begin{matrix}a\\[-40em]\rule{80em}{80em}\end{matrix}",
    r"\vphantom{x}\raise{-20em}{\Huge\text{amount = 1}}",
    r"\style{position:fixed;inset:0;background:#fff}{x}",
]
FORMULAS = "\n\n".join(f"Yes ${tex}$ so\n\n$$\n{tex}\n$$" for tex in RULES)
MARKS = "Z" + "\u0301\u0338\u0489\u20dd" * 300
WORD = "W" * 3000
TABLE = "\n".join(["|" + " wide cell |" * 60, "|" + "---|" * 60, "|" + f" {MARKS} |" * 60])
BIDI = "\u05d0\u05d1\u05d2 130 \u202e order(amount=1) \u2067\u0627\u0644 \u202d"
ANSWERS = {
    "formulas": FORMULAS,
    "tables": f"{TABLE}\n\n{TABLE}",
    "words": f"# {WORD}\n\n{WORD}\n\n- {WORD}\n\n```\n{WORD}\n```",
    "marks": f"# {MARKS}\n\n{MARKS * 5}\n\n> {MARKS}\n\n```\n{MARKS}\n```\n\n{MARKS}",
    "bidi": f"{BIDI}\n\n{BIDI * 40}",
}

# Returns what lies over an element: the foreign elements at a grid of points of its visible part.
COVERED = """(selector) => {
  const strangers = [];
  const seen = [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length);
  if (!seen.length) return [`there is no ${selector}`];
  for (const element of seen) {
    element.scrollIntoView({ block: "center" });
    const box = element.getBoundingClientRect();
    for (let i = 1; i < 24; i++) {
      for (let j = 1; j < 8; j++) {
        const [x, y] = [box.left + (box.width * i) / 24, box.top + (box.height * j) / 8];
        const top = document.elementFromPoint(x, y);
        if (!top || !element.contains(top)) {
          const name = top ? `${top.tagName}.${top.className}` : "nothing";
          strangers.push(`${name} over ${selector} at ${Math.round(x)}, ${Math.round(y)}`);
        }
      }
    }
  }
  return strangers;
}"""
OPENED = "() => { for (const e of document.querySelectorAll('details')) e.open = true; }"


def covered(bench: Bench, *selectors: str) -> list[str]:
    return [
        f"{selector}: {found}"
        for selector in selectors
        for found in bench.page.evaluate(COVERED, selector)
    ]


@only_lab
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_paints_over_the_form(
    bench: Bench, scripted_server: ScriptedServer, kind: str
) -> None:
    """Input: formulas. Holds: all."""
    text = ANSWERS[kind]
    calls = [{"name": "order", "arguments": {"region": MARKS, "amount": 130}}]
    scripted_server.reply(text, reasoning=text, tool_calls=calls)
    bench.run("%%kimi -T order\nOrder what is needed.")
    bench.turn.get_by_role("button", name="Do not run").wait_for()
    bench.page.wait_for_timeout(2500)
    bench.shot(f"attack-{kind}")
    print(covered(bench, ".kimi-form", ".kimi-summary", ".kimi-footing")[:5])
    bench.page.evaluate("() => document.querySelector('.kimi-form').scrollIntoView({block:'center'})")
    bench.shot(f"attack-{kind}-form")
    scripted_server.reply("As you like.")
    bench.turn.get_by_role("button", name="Do not run").click()
    bench.wait_for_record()
    bench.page.evaluate(OPENED)
    bench.page.wait_for_timeout(1500)
    bench.shot(f"attack-{kind}-record")
    print(covered(bench, ".jp-OutputArea-output summary", ".jp-OutputArea-output > div > div:last-child")[:5])
