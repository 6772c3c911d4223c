"""The formulas that a front end may typeset, and those that are shown as their source."""

# ruff: noqa: E501 - tables of formulas

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.display.html.markdown import to_html
from kimi_magic.display.html.maths import MAX_NESTING, MAX_TEX, is_typeset

MATHS = [
    r"9.9 = 9.90 > 9.11",
    r"e^{i\pi} + 1 = 0",
    r"x_{1,2} = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}",
    r"\int_{-\infty}^{\infty} e^{-x^2}\,dx = \sqrt{\pi}",
    r"\sum_{n=1}^\infty \frac{1}{n^2} = \frac{\pi^2}{6}, \quad \prod_{p} \left(1-p^{-s}\right)^{-1}",
    r"\lim_{h \to 0} \frac{f(x+h)-f(x)}{h}",
    r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}^{\!\top}",
    r"\begin{bmatrix} 1 & \cdots & 0 \\[4pt] \vdots & \ddots & \vdots \\ 0 & \cdots & 1 \end{bmatrix}",
    r"|x| = \begin{cases} x, & \text{if } x \ge 0 \\ -x & \text{otherwise.} \end{cases}",
    "\\begin{aligned}\na &= b + c \\\\\n  &= d \\quad \\text{(by one)}\n\\end{aligned}",
    "\\begin{align*}\n(a+b)^2 &= a^2 + 2ab + b^2 \\\\[0.5em]\n&\\ne a^2 + b^2 \\tag{1}\n\\end{align*}",
    r"\left\{ \begin{array}{rcl|c} x & = & y \\ \hline z & < & 2 \end{array} \right.",
    r"\mathbb{R}^n \to \mathbb{C}, \mathcal{L}, \mathfrak{g}, \mathbf{x}, \mathrm{d}x, \boldsymbol{\mu}",
    r"\operatorname*{arg\,max}_{\theta} \; \log p_\theta(y \mid x)",
    r"\nabla \times \vec{E} = -\frac{\partial \vec{B}}{\partial t}, \hat{H}\psi = E\psi",
    r"\langle \phi | \hat{A} | \psi \rangle, \bra{\phi}, \ket{\psi}, \lVert v \rVert_2",
    r"A \subseteq B \iff \forall x\, (x \in A \implies x \in B), \; \varnothing, \; \neg p \lor q",
    r"\overbrace{a + b}^{n} \underbrace{c}_{m}, \overset{!}{=}, \stackrel{\text{def}}{=}, \xrightarrow[n]{k}",
    r"\binom{n}{k} = \frac{n!}{k!\,(n-k)!}, \quad 10\,\% \text{ or 5\% and 3\$}",
    r"f\colon X \hookrightarrow Y, \quad a \equiv b \pmod{n}, \quad a \bmod n",
    r"\boxed{42} \quad \cancel{x} \quad \cdots \hspace{1cm} \dots",
    r"\substack{0 \le i < n \\ j \ne i} \quad \sqrt[3]{x} \quad \cfrac{1}{1+\cfrac{1}{x}}",
    r"\text{for $x > 0$ only} \quad \textbf{no} \quad \mathit{yes}",
    r"\iint_D \oint_C \bigl(\Bigl(\biggl(x\biggr)\Bigr)\bigr) \bigcup_i \bigoplus \coprod",
    r"p(x) \sim \mathcal{N}(\mu,\,\sigma^{2}) \propto \exp\!\left(-\tfrac{x^2}{2}\right)",
    r"\ce{2H2 + O2 -> 2H2O} \quad 5\,^\circ\mathrm{C} \quad 3 \times 10^{-4}",
    r"{n \choose k} \; {a \over b} \; x' \; x'' \; \{1, 2\} \; a \; \& \; b \; \# \; a\_b",
    r"\dot{x} \ddot{x} \tilde{x} \bar{x} \widehat{xy} \overline{z} \overrightarrow{AB} x^{\dagger} \Re z",
    r"\begin{vmatrix}a\end{vmatrix} \begin{smallmatrix}a\end{smallmatrix} \begin{gathered}a\\b\end{gathered}",
    r"\ce{HC#CH + N#N} \quad \ce{^{227}_{90}Th+ ->[\Delta] A v} \quad \ce{SO4^2- <=> B}",
    r"\left[\begin{array}{@{}cc|c@{}} 1 & 2 & 3 \end{array}\right] \begin{pmatrix*}[r] -1 \\ 2 \end{pmatrix*}",
    r"\begin{eqnarray} a &=& b \\ c &=& d \nonumber \end{eqnarray}",
    r"\begin{alignat*}{2} a &= b & \quad c &= d \end{alignat*}",
]

LAYOUT = [
    r"\smash{x}", r"\raise2em{x}", r"\lower 2em {x}", r"\raisebox{2em}{x}", r"\llap{x}", r"\rlap{x}",
    r"\clap{x}", r"\mathllap{x}", r"\mathrlap{x}", r"\mathclap{x}", r"\moveleft2em{x}", r"\mathchoice",
    r"\moveright2em x", r"\kern-2em", r"\mkern-18mu", r"\hskip-2em", r"\mskip-2mu", r"\mspace{-9mu}",
    r"\hspace{-1em}", r"\hspace{ -.1em }", r"\hspace{99em}", r"\hspace{300in}", r"\hspace x",
    r"\hspace{\x}", r"\hspace{1em-9em}", r"\hspace{}", r"\hspace{.em}", r"\hspace", r"\hspace*{-1em}",
    r"\negthinspace", r"\negmedspace", r"\negthickspace", r"\!" * 13, r"\rule{9em}{9em}", r"\Rule",
    r"\Space{9em}{9em}{9em}", r"\color{red}x", r"\textcolor{red}{x}", r"\colorbox{red}{x}",
    r"\fcolorbox{red}{red}{x}", r"\cellcolor{red}", r"\definecolor{a}{b}{c}", r"\bbox[9em]{x}",
    r"\enclose{circle}{x}", r"\mmlToken{mi}[a=b]{x}", r"\toggle{x}{y}\endtoggle", r"\mathtip{x}{y}",
    r"\unicode[a]{65}", r"\unicode{x41}", r"\char65", r"\href{x}{y}", r"\url{x}", r"\class{a}{x}",
    r"\style{a}{x}", r"\cssId{a}{x}", r"\data{a=b}{x}", r"\htmlClass{a}{x}", r"\includegraphics{x}",
    r"\require{html}", r"\csname smash\endcsname", r"\def\frac{}", r"\gdef\x{}", r"\let\x\y",
    r"\newcommand{\x}{}", r"\renewcommand\frac{}", r"\DeclareMathOperator{\x}{y}", r"\label{a}",
    r"\ref{a}", r"\eqref{a}", r"\genfrac{}{}{99em}{}{a}{b}", r"a\above 99em b", r"\Huge x", r"\tiny x",
    r"\verb|\smash|", r"\begin{array}{c}a\\[-9em]b\end{array}", r"a\\[9em]b", "a\\\\ \n [-9em]b",
    r"a\\*[-9em]b", r"a\cr[-9em]b", r"\begin{array}{p{99em}}a\end{array}", r"\uproot{9}", r"\x@y",
    r"\begin{array}{@{\hspace{-9em}}c}a\end{array}", r"\begin{array}{*{99}c}a\end{array}",
    r"\begin{prooftree}a\end{prooftree}", r"\begin{sma\sh}", r"\begin x", r"\end{document}", r"\begin",
    "\\sma\u200bsh{x}", "\\sma\rsh{x}", "\\sma%\nsh{x}", "x % \\smash", r"^^5csmash{x}", "a # b",
    r"\ce{A}#1", r"\ce#1", r"\ce{A}{#}", r"\begin{array}{@{x}c}a\end{array}",
    r"\text{\smash{x}}", r"{{{{\llap{x}}}}}", r"\frac\smash x", r"\left\smash", r"\overset{\rule11}{x}",
    "{x", "x}", "}{", "x\\", r"\{x}", r"a $ b", r"\text{a}$b$", r"\not@x", r"\mathstrut@x",
    "{" * (MAX_NESTING + 1) + "}" * (MAX_NESTING + 1), r"\left(" * 41, r"\displaystyle" * 51,
    "x" * (MAX_TEX + 1), r"\＼", r"\é", r"\(x\)", r"\[x\]", r"\adjustlimits", r"\MoveEqLeft[99]",
    r"\underbracket[9em][9em]{x}", r"\xmathstrut{99}", r"\minCDarrowwidth{99em}", r"\mathtoolsset{}",
    r"\cancel[data-padding=99em]{x}", r"\xcancel [mathbackground=black]{x}", r"\cancelto{x}{y}",
]  # fmt: skip


@pytest.mark.parametrize("tex", MATHS)
def test_mathematics_is_typeset(tex: str) -> None:
    assert is_typeset(tex)
    html = to_html(f"$$\n{tex}\n$$")
    assert html.startswith("<p>$$"), html


@pytest.mark.parametrize("tex", LAYOUT)
def test_all_else_is_shown_as_its_source(tex: str) -> None:
    for form in (
        "$x {}$",
        "$$x {}$$",
        "$$\n{}\n$$",
        r"\(x {}\)",
        r"\[x {}\]",
        "- $x {}$",
        "|$x {}$|\n|-|",
    ):
        html = to_html(form.format(tex))
        for run in re.sub(r"<(pre|code)[^>]*>.*?</\1>", " | ", html, flags=re.DOTALL).split("<"):
            text = run.partition(">")[2]
            assert text.strip() in ("$", "\\") or "\\" not in text or "$" in text
            for formula in re.findall(r"\$+([^$]+)\$+", text):
                assert is_typeset(formula), (form, html)
                assert tex.strip() not in formula


@given(
    st.text("abc \\{}[]$%^_&-1em", max_size=40),
    st.sampled_from(LAYOUT),
    st.text("ab {}\\$", max_size=9),
)
def test_nothing_around_it_lets_a_command_through(before: str, tex: str, after: str) -> None:
    command = re.match(r"\\[A-Za-z]+", tex)
    if (
        command is None
        or is_typeset(command[0] + "{x}")
        or re.search(r"(?<!\\)(?:\\\\)*\\$", before)
    ):
        return
    assert not is_typeset(before + tex + after)


@given(st.lists(st.sampled_from([*MATHS, *LAYOUT, "{", "}", "$", "\\", "[-9em]", "%"]), max_size=6))
def test_formulas_side_by_side_do_not_join(formulas: list[str]) -> None:
    """Each typeset formula is whole: braces are paired, and no delimiter is in reach."""
    for tex in filter(is_typeset, formulas):
        depth = 0
        for token in re.findall(r"\\[A-Za-z]+|\\.|[{}$]", tex, re.DOTALL):
            depth += (token == "{") - (token == "}")
            assert depth >= 0
            assert token != "$" or depth
        assert depth == 0
        assert not re.search(r"(?<!\\)(?:\\\\)*\\$", tex)
