"""Markdown to safe HTML, and its split into blocks while it arrives."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kimi_magic.display.html.markdown import Blocks, parser, plain_html, to_html
from tests.turns import pieces

SAMPLE = """\
A paragraph
of two lines.

- one

  more of one
- two

1. three

| a | b |
|---|--:|
| 1 | 2 |

```python
x = 1

y = 2
```

$$
a
# b
$$

> quoted

# Heading
tail"""


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("*a* **b** ~~c~~ `d`", "<p><em>a</em> <strong>b</strong> <s>c</s> <code>d</code></p>"),
        ("3. x", '<ol start="3">\n<li>x</li>\n</ol>'),
        ("<b>x</b>", "<p>&lt;b&gt;x&lt;/b&gt;</p>"),
        ("$x<y$", "<p>$x&lt;y$</p>"),
        (r"\(x_1\) and \[y\]", "<p>$x_1$ and $$y$$</p>"),
        ("$$\nx\n$$", "<p>$$x$$</p>"),
        ("$5 and $6", "<p><span>$</span>5 and <span>$</span>6</p>"),
        ("`$x$`", "<p><code>$x$</code></p>"),
        ("```\n<x> $y$\n```", "&lt;x&gt; $y$"),
        ("```nonsense\n<x>\n```", "&lt;x&gt;"),
        ("costs $180, write `$HOME`", "<p>costs <span>$</span>180, write <code>$HOME</code></p>"),
        (r"\(a `b\) c`", "<p>(a <code>b\\) c</code></p>"),
        ("$x$ and `$` $y$", "<p>$x$ and <code>$</code> $y$</p>"),
        (r"$x\`$ and `y`", "<p>$x\\`$ and <code>y</code></p>"),
        ("$a`b$", "<p>$a`b$</p>"),
        ("- [ ] a\n- [x] b", '<ul>\n<li style="list-style-type:none">☐ a</li>\n<li style="list-'),
        ("1. [x] a\n", "<li>[x] a</li>"),
        ("So[^1][^note].", "<p>So<sup>[1]</sup><sup>[note]</sup>.</p>"),
        (
            "[^1]: A https://a.b\n[^2]: https://a.b",
            "<p><sup>[1]</sup> A https://a.b<br>\n<sup>[2]</sup> https://a.b</p>",
        ),
        ("[^1](https://a.b) [^abc] `[^1]`", "<code>[^1]</code>"),
        ("[^abc]", "<p>[^abc]</p>"),
        (
            "[a](https://example.org)",
            '<p><a href="https://example.org" rel="noopener noreferrer">a</a></p>',
        ),
    ],
)
def test_markdown_becomes_html(source: str, html: str) -> None:
    assert html in to_html(source)


@pytest.mark.parametrize(
    ("cells", "sides"),
    [
        (["1", "1,000", "−2.5", ""], "right"),
        (["5 %", "**12.5%**", "$9", "–"], "right"),
        (["`1`", "2e-3", r"\$5"], "right"),
        (["1", "two"], "left"),
        (["2024-05-01", "2024-05-02"], "left"),
        (["1.2.3"], "left"),
        (["", "-"], "left"),
    ],
)
def test_numbers_stand_on_the_right(cells: list[str], sides: str) -> None:
    rows = "".join(f"| x | {cell} | {cell} |\n" for cell in cells)
    html = to_html(f"| a | b | c |\n|---|---|:--|\n{rows}")
    found = re.findall(r'<t[hd] style="text-align:(\w+)">', html)
    assert found == ["left", sides, "left"] * (len(cells) + 1), "unless the table says otherwise"


def test_a_wide_table_scrolls_in_its_own_box() -> None:
    html = to_html("> | a |\n> |---|\n> | 1 |")
    assert '<div tabindex="0" style="overflow:auto"><table>' in html
    assert "</table></div>" in html


def finished_blocks(text: str) -> tuple[list[str], str]:
    """Split Markdown into its finished top-level blocks and the open tail."""
    blocks = Blocks()
    return blocks.feed(text), blocks.tail


def test_code_is_coloured_inline() -> None:
    html = to_html("```python\ndef f(): return 'x'\n```")
    assert re.search(r'<span style="color:#b847ca;[^"]*">def</span>', html)
    assert "class=" not in html


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "file.ipynb", "#top"])
def test_only_web_and_mail_links_are_links(url: str) -> None:
    assert "<a" not in to_html(f"[x]({url}) ![y]({url}) <{url}>")


def test_images_are_links_that_load_nothing() -> None:
    html = to_html("![alt](https://example.org/x.png) [![in](https://a.b/i)](https://c.d)")
    assert "<img" not in html
    assert '<a href="https://example.org/x.png" rel="noopener noreferrer">Image: alt</a>' in html
    assert '<a href="https://c.d" rel="noopener noreferrer">Image: in</a>' in html


@pytest.mark.parametrize(
    "tex",
    [r"\href{javascript:alert(1)}{x}", r"\def\frac{}", r"\style{position:fixed}{x}", r"\class{a}x"],
)
def test_tex_that_reaches_the_page_is_code(tex: str) -> None:
    assert to_html(f"$x {tex}$").startswith("<p><code>")
    assert "<code>" in to_html(f"$$\nx {tex}\n$$")


@pytest.mark.parametrize("text", [r"\\(x\\)", r"\begin{align}x\end{align}", "a $x b $ c", r"\$x\$"])
def test_mathjax_finds_nothing_in_the_rest(text: str) -> None:
    html = to_html(text)
    assert "$" not in html.replace("<span>$</span>", "")
    assert "\\" not in html.replace("<span>\\</span>", "")
    assert plain_html(r"<$\>") == r"&lt;<span>$</span><span>\</span>&gt;"


def test_a_block_is_finished_when_a_later_one_exists() -> None:
    assert finished_blocks("One\n\nTwo\n") == (["One\n\n"], "Two\n")
    assert finished_blocks("- a\n\n  b\n") == ([], "- a\n\n  b\n")
    assert finished_blocks("```\na\n\n# b\n") == ([], "```\na\n\n# b\n")
    assert finished_blocks("```\na\n```\n") == (["```\na\n```\n"], "")
    assert finished_blocks("~~~~\n```\n~~~\n") == ([], "~~~~\n```\n~~~\n")
    assert finished_blocks("- ```\n  a\n  ```\n")[0] == [], "the item may go on"
    # The last line may still become a list item.
    assert finished_blocks("1. a\n\n2") == ([], "1. a\n\n2")
    # A second $$ may still make a formula of it.
    assert finished_blocks("$$\na\n# b\n") == ([], "$$\na\n# b\n")


def test_every_top_level_token_is_a_block() -> None:
    blocks, tail = finished_blocks(SAMPLE)
    assert len(blocks) == 7
    assert tail == "# Heading\ntail"
    assert "```python\nx = 1\n\ny = 2\n```\n\n" in blocks


MARKS = st.text(alphabet="ab1.-*#>`|$:[]()^x\\ \n\t", max_size=80)


@given(st.one_of(MARKS, st.just(SAMPLE)), st.lists(st.integers(0, 300)))
def test_blocks_are_slices_whatever_the_split(text: str, cuts: list[int]) -> None:
    blocks = Blocks()
    found: list[str] = []
    for piece in pieces(text, cuts):
        found += blocks.feed(piece)
    found += blocks.finish()
    assert "".join(found) == text
    whole = Blocks()
    # Blank lines after code that is closed may begin the next block as well.
    assert [b.strip("\n") for b in found if b.strip()] == [
        b.strip("\n") for b in whole.feed(text) + whole.finish() if b.strip()
    ]


@given(MARKS)
def test_blocks_render_as_the_whole_does(text: str) -> None:
    # A link definition in one block is not seen in another.
    if "]:" in text:
        return
    blocks, tail = finished_blocks(text)
    apart = "".join(map(parser().render, [*blocks, tail]))
    assert apart == parser().render(text)


@given(st.text(alphabet="a`$\\ ", max_size=40))
def test_code_spans_go_before_maths(text: str) -> None:
    plain = MarkdownIt("commonmark").renderInline(text)
    ours = parser().renderInline(text)
    found = iter(re.findall("<code>.*?</code>", ours))  # among formulas that are shown as code
    assert all(span in found for span in re.findall("<code>.*?</code>", plain))


@pytest.mark.parametrize(
    "piece",
    ["word word\n", "- item\n\n", "a\n\n", "| a | b |\n", "> q\n", "```\nx\n"],
)
def test_blocks_take_linear_time(piece: str) -> None:
    def seconds(n: int) -> float:
        blocks = Blocks()
        began = time.process_time()
        for _ in range(n):
            blocks.feed(piece)
        blocks.finish()
        return time.process_time() - began

    short, long = seconds(500), seconds(4000)
    assert long < 16 * short + 0.3


@pytest.mark.parametrize(
    "text",
    [
        ">" * 3000,
        "- " * 3000,
        "[" * 3000,
        "*_" * 3000,
        "$" * 3000,
        "$a `" * 2000,
        "![$`$](u) $" * 900,
        "[^1]:" * 3000,
        "\\`" * 3000,
    ],
)
def test_odd_markdown_does_no_harm(text: str) -> None:
    began = time.process_time()
    to_html(text)
    assert time.process_time() - began < 5
