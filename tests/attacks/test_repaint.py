"""Aim: paint over what a person reads or clicks: the approval form, a card's line, the status."""

from __future__ import annotations

import pytest

from kimi_magic.testing import ScriptedServer
from tests.frontends import Bench, as_notebook, in_a_browser, only_lab

pytestmark = [*in_a_browser, only_lab]

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
    r"\lower20em{\Huge\text{amount = 1}}",
    r"\style{position:fixed;inset:0;background:#fff}{x}",
]
FORMULAS = "\n\n".join(f"Yes ${tex}$ so\n\n$$\n{tex}\n$$" for tex in RULES)
MARKS = ("Z" + "\u0301" * 90 + "\u0323" * 90 + "\u0338\u0489\u20dd") * 12
WORD = "W" * 3000
TABLE = "\n".join(["|" + " wide cell |" * 60, "|" + "---|" * 60, "|" + f" {MARKS} |" * 60])
BIDI = "\u05d0\u05d1\u05d2 130 \u202e order(amount=1) \u2067\u0627\u0644 \u202d"
TEXTS = {
    "formulas": FORMULAS,
    "tables": f"{TABLE}\n\n{TABLE}",
    "words": f"# {WORD}\n\n{WORD}\n\n- {WORD}\n\n```\n{WORD}\n```\n\n`{WORD}`",
    "marks": f"# {MARKS}\n\n{MARKS * 5}\n\n> {MARKS}\n\n```\n{MARKS}\n```\n\n{MARKS}",
    "bidi": f"{BIDI}\n\n{BIDI * 40}",
}

# A tool that prints, shows and returns the text, and two images.
FLOOD = r"""
def flood(text: str) -> str:
    "Show it in every form."
    import base64, struct, zlib
    from IPython.display import display
    print(text)
    cells = f"<td>{text[:200]}</td>" * 60
    display({"text/html": f"<table><tr>{cells}</tr></table>"}, raw=True)
    display({"text/markdown": text}, raw=True)
    for width, height in ((20000, 30), (30, 20000)):
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))]
        chunks += [(b"IDAT", zlib.compress((b"\0" + b"\xaa" * (width // 8 + 1)) * height))]
        png = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d))
            for n, d in [*chunks, (b"IEND", b"")]
        )
        display({"image/png": base64.b64encode(png).decode()}, raw=True)
    return text
"""

# Tells what lies over an element, at a grid of points of each of its boxes.
OVER = """(selector) => {
  const strangers = [];
  const seen = [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length);
  if (!seen.length) return [`there is no ${selector}`];
  for (const element of seen) {
    element.scrollIntoView({ block: "center" });
    const box = element.getBoundingClientRect();
    if (box.height > 600) strangers.push(`${selector} is ${box.height} px high`);
    for (let i = 1; i < 40; i++) {
      for (let j = 1; j < 10; j++) {
        const [x, y] = [box.left + (box.width * i) / 40, box.top + (box.height * j) / 10];
        const top = document.elementFromPoint(x, y);
        if (top && element.contains(top)) continue;
        const name = top ? `${top.tagName}.${top.className}` : "nothing";
        strangers.push(`${name} over ${selector} at ${Math.round(x)}, ${Math.round(y)}`);
      }
    }
  }
  return strangers;
}"""
UNFOLD = "() => { for (const e of document.querySelectorAll('details')) e.open = true; }"
SHOW = "() => document.querySelector('.kimi-form')?.scrollIntoView({ block: 'end' })"


OUTPUT = ".jp-OutputArea-output > div"
RECORDED = (f"{OUTPUT} > details > summary", f"{OUTPUT} > div:last-child")
END = f"() => document.querySelector('{OUTPUT}').scrollIntoView({{block: 'end'}})"
MOVE = """() => {
  const answer = document.querySelector(".kimi-answer");
  const pad = answer.appendChild(document.createElement("div"));
  window.moving = setInterval(() => (pad.style.height = `${pad.offsetHeight + 1}px`), 40);
}"""
TYPESET = """() => [...new Set([...document.querySelectorAll("mjx-container")].map((e) => {
  const at = e.closest(".kimi-answer, .kimi-thought, .jp-OutputArea-output > div > *");
  const title = at?.querySelector("summary")?.textContent.replace(/ for .*/, " for");  // no time
  return at?.className || title || at?.tagName;
}))].sort()"""


def strangers(bench: Bench, *selectors: str) -> list[str]:
    return [found for selector in selectors for found in bench.page.evaluate(OVER, selector)]


@pytest.mark.parametrize("kind", [*TEXTS, "formulas that are not refused"])
def test_what_a_model_and_a_tool_say_is_painted_over_the_form(
    bench: Bench, scripted_server: ScriptedServer, kind: str
) -> None:
    """Input: formulas, wide tables, long words, huge images, stacked accents, bidi, from all sides.

    Holds: each sample point of the form, the cards' lines and the status is theirs, while it is
    asked and in the record; a click on «Do not run» arrives.
    """
    text = TEXTS[kind.split(maxsplit=1)[0]]
    bench.python(FLOOD)
    if kind not in TEXTS:  # were a command of layout missing in the list, blocks clip it still
        bench.python(
            "import kimi_magic.display.html.markdown as m; m.is_typeset = lambda tex: True"
        )
    order = {"name": "order", "arguments": {"region": text[:2000], "amount": 130}}
    scripted_server.reply(
        text, reasoning=text, tool_calls=[{"name": "flood", "arguments": {"text": text}}]
    )
    scripted_server.reply(text, reasoning=text, tool_calls=[order, order])
    scripted_server.reply(text, reasoning=text)
    try:
        bench.run("%%kimi -T flood,order\nOrder what is needed.")
        bench.turn.get_by_role("button", name="Do not run").wait_for()
        bench.page.evaluate(UNFOLD)
        bench.page.wait_for_timeout(1500)  # for the typesetter
        lines = (".kimi-form", ".kimi-summary", ".kimi-footing", ".kimi-form button")
        assert strangers(bench, *lines)[:9] == []
        bench.page.evaluate(SHOW)
        bench.shot(f"attack-{kind.replace(' ', '-')}")
        for _ in range(2):
            bench.turn.get_by_role("button", name="Do not run").click()
            bench.page.wait_for_timeout(600)
        bench.wait_for_record()
    finally:
        bench.python("import importlib; importlib.reload(m)" if kind not in TEXTS else "")
    assert "declined" in scripted_server.requests[2].body["messages"][-1]["content"]
    bench.page.evaluate(UNFOLD)
    bench.page.wait_for_timeout(1500)
    assert strangers(bench, *RECORDED)[:9] == []
    bench.page.evaluate(END)
    bench.shot(f"attack-{kind.replace(' ', '-')}-record")


def test_a_record_is_opened_untrusted(bench: Bench, scripted_server: ScriptedServer) -> None:
    """Input: a notebook of somebody else, with formulas that no list has refused.

    Holds: what the front end's sanitiser leaves of the styles still clips them.
    """
    bench.python("import kimi_magic.display.html.markdown as m; m.is_typeset = lambda tex: True")
    scripted_server.reply(FORMULAS + MARKS, reasoning=MARKS)
    try:
        bench.run("%%kimi\nGo")
        bench.wait_for_record()
    finally:
        bench.python("import importlib; importlib.reload(m)")
    cell = bench.saved()
    cell["source"] += "  # changed, so that no signature fits"
    bench.path.write_text(as_notebook(cell), "utf-8")
    bench.open()
    bench.page.wait_for_function("() => document.querySelector('mjx-container')")
    bench.page.evaluate(UNFOLD)
    bench.page.wait_for_timeout(1500)
    assert not bench.page.evaluate("() => kimi.notebook.model.cells.get(0).trusted")
    assert strangers(bench, *RECORDED)[:9] == []
    bench.shot("attack-untrusted")


def test_the_form_is_moved_under_the_mouse(bench: Bench, scripted_server: ScriptedServer) -> None:
    """Input: text above the form that grows as a person clicks. Holds: the click is not taken."""
    order = {"name": "order", "arguments": {"region": "north", "amount": 130}}
    scripted_server.reply("So.", tool_calls=[order])
    scripted_server.reply("As you like.")
    bench.run("%%kimi -T order\nOrder what is needed.")
    run = bench.turn.get_by_role("button", name="Run", exact=True)
    run.wait_for()
    bench.page.wait_for_timeout(600)
    bench.page.evaluate(MOVE)
    bench.page.wait_for_timeout(200)
    run.click(force=True)
    bench.page.evaluate("() => clearInterval(window.moving)")
    bench.page.wait_for_timeout(600)
    assert len(scripted_server.requests) == 1
    bench.turn.get_by_role("button", name="Do not run").click()
    bench.wait_for_record()
    assert "declined" in scripted_server.requests[1].body["messages"][-1]["content"]


def test_maths_is_written_where_no_maths_belongs(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    """Input: formulas in arguments, results, titles, table cells, notices, the status.

    Holds: the front end typesets those of answers and reasoning alone, live and in the record.
    """
    tex = r"$x^2$ $$x$$ \(x\) \[x\] \begin{align}x\end{align} \ref{x}"
    bench.python(
        "from IPython.display import display\n"
        f"tex = {tex!r}\n"
        "def show(text: str, **more) -> str:\n    'Show.'\n    print(tex)\n"
        "    for html in (f'<table><tr><td>{tex}</td></tr></table>', f'<p>{tex}<br>{tex}</p>'):\n"
        "        display({'text/html': html}, raw=True)\n"
        "    raise ValueError(tex)\n"
    )
    call = {"name": "show", "arguments": {"text": tex, tex: tex}}
    order = {"name": "order", "arguments": {"region": tex, "amount": 1}}
    scripted_server.reply(reasoning=tex, tool_calls=[call])
    scripted_server.reply("So $x$ is.", reasoning=tex, tool_calls=[order])
    scripted_server.reply(f"```math\nx\n```\n\n`{tex}`\n\n<b>{tex[:3]}</b>", finish_reason=tex)
    bench.run(f"%%kimi -T show,order -m '{tex}'\nGo")
    bench.turn.get_by_role("button", name="Do not run").wait_for()
    bench.page.evaluate(UNFOLD)
    bench.page.wait_for_function("() => document.querySelector('mjx-container')")
    bench.page.wait_for_timeout(600)  # the form has moved
    assert bench.page.evaluate(TYPESET) == ["kimi-answer", "kimi-thought"]
    bench.turn.get_by_role("button", name="Do not run").click()
    bench.wait_for_record()
    bench.page.wait_for_function("() => document.querySelector('mjx-container')")
    bench.page.wait_for_timeout(500)
    assert bench.page.evaluate(TYPESET) == ["DIV", "Reasoned for"]
    assert "align" in bench.record.inner_text()
