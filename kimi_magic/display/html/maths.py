r"""TeX that a front end may typeset.

A typesetter draws what it is told to, wherever it is told to: ``\rule`` and ``\llap`` put a box
over text far away, ``\href`` makes a link, and what ``\def`` defines MathJax keeps for the rest of
the page. So formulas are typeset that hold nothing but commands of mathematics, each of which stays
where it stands. All other formulas are shown as their source.
"""

from __future__ import annotations

import re

__all__ = ["is_typeset"]

MAX_TEX, MAX_NESTING = 5000, 40
# \displaystyle and its kin nest without braces; each \! moves what follows back a little.
MAX_STYLES, MAX_BACKWARD = 50, 12
MAX_SPACE, MAX_ROW_GAP = 10.0, 3.0  # em

_COMMANDS = frozenset(
    # Greek and Hebrew letters, and other symbols that stand for a letter
    " alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho"
    " sigma tau upsilon phi chi psi omega varepsilon vartheta varkappa varpi varrho varsigma"
    " varphi digamma Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega varGamma varDelta"
    " varTheta varLambda varXi varPi varSigma varUpsilon varPhi varPsi varOmega upalpha upbeta"
    " upgamma updelta upepsilon upvarepsilon upzeta upeta uptheta upiota upkappa uplambda upmu"
    " upnu upxi uppi uprho upsigma uptau upupsilon upphi upvarphi upchi uppsi upomega Updelta"
    " aleph beth gimel daleth hbar hslash imath jmath ell wp Re Im partial infty prime backprime"
    " emptyset varnothing nabla top bot angle measuredangle sphericalangle triangle triangledown"
    " square Box lozenge Diamond blacksquare blacktriangle blacktriangledown blacklozenge bigstar"
    " forall exists nexists neg lnot flat natural sharp clubsuit diamondsuit heartsuit spadesuit"
    " complement mho eth Finv Game Bbbk circledS circledR yen checkmark maltese surd degree"
    " celsius ohm micro perthousand S dag ddag dagger ddagger textdegree"
    " texteuro"
    # large operators
    " sum prod coprod int intop oint iint iiint iiiint idotsint oiint oiiint smallint bigcap"
    " bigcup bigsqcup bigvee bigwedge biguplus bigotimes bigoplus bigodot bigtimes limits nolimits"
    # binary operators
    " pm mp times div cdot cdotp centerdot ast star circ bullet cap cup Cap Cup sqcap sqcup uplus"
    " land lor wedge vee barwedge veebar doublebarwedge curlywedge curlyvee setminus smallsetminus"
    " wr amalg diamond oplus ominus otimes oslash odot bigcirc bigtriangleup bigtriangledown"
    " triangleleft triangleright lhd rhd unlhd unrhd boxplus boxminus boxtimes boxdot circledast"
    " circledcirc circleddash dotplus divideontimes ltimes rtimes leftthreetimes rightthreetimes"
    " intercal ldotp colon"
    # relations
    " lt gt le ge leq geq leqq geqq leqslant geqslant ll gg lll ggg ne neq equiv sim simeq"
    " approx approxeq cong asymp doteq doteqdot Doteq propto varpropto models perp mid nmid"
    " parallel nparallel shortmid shortparallel nshortmid nshortparallel prec succ preceq succeq"
    " preccurlyeq succcurlyeq precsim succsim precapprox succapprox in notin ni owns subset"
    " supset subseteq supseteq subseteqq supseteqq subsetneq supsetneq subsetneqq supsetneqq"
    " nsubseteq nsupseteq varsubsetneq varsupsetneq varsubsetneqq varsupsetneqq nsubseteqq"
    " nsupseteqq Subset Supset sqsubset sqsupset sqsubseteq sqsupseteq vdash dashv vDash Vdash"
    " Vvdash nvdash nvDash nVdash nVDash smile frown smallsmile smallfrown bowtie Join pitchfork"
    " between therefore because backsim backsimeq eqsim thicksim thickapprox eqcirc circeq"
    " triangleq bumpeq Bumpeq risingdotseq fallingdotseq lesssim gtrsim lessapprox gtrapprox"
    " lessdot gtrdot lessgtr gtrless lesseqgtr gtreqless lesseqqgtr gtreqqless eqslantless"
    " eqslantgtr nless ngtr nleq ngeq nleqslant ngeqslant nleqq ngeqq lneq gneq lneqq gneqq lnsim"
    " gnsim lnapprox gnapprox nprec nsucc npreceq nsucceq precneqq succneqq precnsim succnsim"
    " precnapprox succnapprox nsim ncong vartriangle vartriangleleft vartriangleright"
    " trianglelefteq trianglerighteq ntriangleleft ntriangleright ntrianglelefteq ntrianglerighteq"
    " blacktriangleleft blacktriangleright backepsilon multimap not centernot coloneqq eqqcolon"
    " coloneq eqcolon Coloneqq Eqqcolon vcentcolon dblcolon iff implies impliedby"
    # arrows
    " to gets mapsto longmapsto leftarrow rightarrow leftrightarrow Leftarrow Rightarrow"
    " Leftrightarrow longleftarrow longrightarrow longleftrightarrow Longleftarrow Longrightarrow"
    " Longleftrightarrow uparrow downarrow updownarrow Uparrow Downarrow Updownarrow nearrow"
    " searrow swarrow nwarrow hookleftarrow hookrightarrow leftharpoonup leftharpoondown"
    " rightharpoonup rightharpoondown leftrightharpoons rightleftharpoons upharpoonleft"
    " upharpoonright downharpoonleft downharpoonright restriction leftleftarrows rightrightarrows"
    " leftrightarrows rightleftarrows upuparrows downdownarrows Lleftarrow Rrightarrow"
    " twoheadleftarrow twoheadrightarrow leftarrowtail rightarrowtail looparrowleft looparrowright"
    " curvearrowleft curvearrowright circlearrowleft circlearrowright Lsh Rsh leadsto"
    " rightsquigarrow leftrightsquigarrow dashleftarrow dashrightarrow nleftarrow nrightarrow"
    " nleftrightarrow nLeftarrow nRightarrow nLeftrightarrow xleftarrow xrightarrow"
    " xleftrightarrow xLeftarrow xRightarrow xLeftrightarrow xhookleftarrow xhookrightarrow"
    " xmapsto xrightleftharpoons xleftrightharpoons xlongequal"
    # delimiters and their sizes
    " left right middle big Big bigg Bigg bigl Bigl biggl Biggl bigr Bigr biggr Biggr bigm Bigm"
    " biggm Biggm lvert rvert lVert rVert vert Vert lbrace rbrace lbrack rbrack langle rangle"
    " lfloor rfloor lceil rceil lgroup rgroup lmoustache rmoustache ulcorner urcorner llcorner"
    " lrcorner lparen rparen backslash"
    # dots
    " dots ldots cdots vdots ddots iddots dotsb dotsc dotsi dotsm dotso"
    # accents, lines and braces
    " hat widehat tilde widetilde bar vec dot ddot dddot ddddot acute grave check breve mathring"
    " widecheck overline underline overbrace underbrace overparen underparen overrightarrow"
    " overleftarrow overleftrightarrow underrightarrow underleftarrow underleftrightarrow overset"
    " underset overunderset stackrel sideset substack prescript boxed cancel bcancel xcancel"
    # functions
    " arccos arcsin arctan arg cos cosh cot coth csc deg det dim exp gcd hom inf injlim ker lg lim"
    " liminf limsup ln log max min Pr projlim sec sin sinh sup tan tanh varinjlim varliminf"
    " varlimsup varprojlim bmod pmod mod pod operatorname mathop mathbin mathrel mathord mathopen"
    " mathclose mathpunct mathinner"
    # fractions and roots
    " frac dfrac tfrac cfrac binom dbinom tbinom over atop choose brace brack sqrt root of"
    # fonts, styles and words
    " mathrm mathbf mathit mathsf mathtt mathbb mathcal mathfrak mathscr mathnormal mathup"
    " mathbfit boldsymbol bm pmb symbf symbfit rm bf it sf tt cal frak scr Bbb mit displaystyle"
    " textstyle scriptstyle scriptscriptstyle text textrm textbf textit textsf texttt textup"
    " textnormal emph mbox hbox"
    # spaces, forwards only
    " quad qquad enspace enskip thinspace medspace thickspace space nobreakspace hspace phantom"
    " hphantom vphantom strut mathstrut"
    # rows and environments
    " begin end cr newline hline hdashline tag notag nonumber matrix pmatrix cases"
    # states of quantum mechanics, chemistry
    " bra ket braket Bra Ket Braket set Set ketbra ce pu".split()
)
_SYMBOLS = frozenset(" \n\t,:;>!|{}%$&#_\\-/'`^\"~=.")
_ENVIRONMENTS = frozenset(
    "align align* alignat alignat* aligned alignedat array bmatrix Bmatrix cases dcases drcases"
    " rcases equation equation* flalign flalign* gather gather* gathered matrix multline multline*"
    " pmatrix smallmatrix split subarray vmatrix Vmatrix CD eqnarray eqnarray* matrix* pmatrix*"
    " bmatrix* Bmatrix* vmatrix* Vmatrix*".split()
)
_OPTIONS = frozenset("cancel bcancel xcancel".split())  # of MathJax: colour, padding, thickness
_STYLES = frozenset("displaystyle textstyle scriptstyle scriptscriptstyle".split())
_DEEPER = {"left": 1, "right": -1, "begin": 1, "end": -1}

# An @ belongs to the name in KaTeX.
_TOKEN = re.compile(r"\\([A-Za-z]+)(@?)|\\(.?)|([{}$%#]|\^\^)", re.DOTALL)
_NAME = re.compile(r"\s*\{([a-zA-Z]+\*?)\}")
_ARRAY = r"\s*(?:\[[tcb]\])?\s*\{(?:[lcr|:\s]|@\{\}){1,60}\}"
_COLUMNS = {
    **dict.fromkeys(("array", "subarray"), re.compile(_ARRAY)),
    **dict.fromkeys(("alignat", "alignat*", "alignedat"), re.compile(r"\s*\{\s*\d{1,2}\s*\}")),
}
_LENGTH = r"\s*(\d{0,3}\.?\d{0,4})\s*(em|ex|pt|mm|cm|in|mu)\s*"
_SPACE = re.compile(rf"\s*\{{{_LENGTH}\}}")
_ROW_GAP = re.compile(rf"\s*\*?\s*\[{_LENGTH}\]")
_NO_BRACKET = re.compile(r"(?!\s*\[)")
_NO_GAP = re.compile(r"\s*\*?\s*(?!\s*[\[*])")
_EM = {"em": 1, "ex": 0.45, "pt": 0.1, "mm": 0.29, "cm": 2.9, "in": 7.3, "mu": 1 / 18}


def is_typeset(tex: str) -> bool:
    """Return True for TeX without delimiters that may be given to a typesetter."""
    if len(tex) > MAX_TEX:
        return False
    formula = _Formula(tex)
    return all(map(formula.takes, _TOKEN.finditer(tex))) and formula.is_whole


class _Formula:
    """The state of a formula as it is read: its open braces and pairs, and what is limited."""

    def __init__(self, tex: str) -> None:
        self._tex = tex
        self._braces = self._pairs = self._styles = self._backward = 0
        self._chemistry: int | None = None  # the open braces around its latest \ce

    @property
    def is_whole(self) -> bool:
        return self._braces == 0

    def takes(self, token: re.Match[str]) -> bool:
        """Return True if the formula may hold this at this place."""
        word, at, symbol, plain = token.groups()
        if word is not None:
            fits = not at and self._takes_word(word, token.end())
        elif symbol is not None:
            fits = self._takes_symbol(symbol, token.end())
        else:
            fits = self._takes_plain(plain)
        return fits and self._braces + max(self._pairs, 0) <= MAX_NESTING

    def _takes_word(self, word: str, end: int) -> bool:
        if word == "ce":
            self._chemistry = self._braces
        self._pairs += _DEEPER.get(word, 0)
        self._styles += word in _STYLES
        return word in _COMMANDS and self._styles <= MAX_STYLES and _fits(word, self._tex, end)

    def _takes_symbol(self, symbol: str, end: int) -> bool:
        self._backward += symbol == "!"
        is_small = self._backward <= MAX_BACKWARD
        return symbol in _SYMBOLS and is_small and (symbol != "\\" or _row_fits(self._tex, end))

    def _takes_plain(self, plain: str) -> bool:
        self._braces += {"{": 1, "}": -1}.get(plain, 0)
        # Within braces a dollar begins maths in words; elsewhere it would end the formula. A %
        # makes a comment of what follows; # is a triple bond of chemistry, and ^^ has no place.
        if self._chemistry is not None and plain == "}" and self._braces <= self._chemistry:
            self._chemistry = None
        is_bond = self._chemistry is not None and self._braces > self._chemistry
        fits = plain in "{}" or (plain == "$" and self._braces > 0) or (plain == "#" and is_bond)
        return self._braces >= 0 and fits


def _fits(word: str, tex: str, at: int) -> bool:
    """Return True if what follows a command's name is no more than it needs."""
    if word in ("begin", "end"):
        name = _NAME.match(tex, at)
        if name is None or name[1] not in _ENVIRONMENTS:
            return False
        columns = _COLUMNS.get(name[1]) if word == "begin" else None
        return columns is None or columns.match(tex, name.end()) is not None
    if word == "hspace":
        return _is_within(MAX_SPACE, _SPACE.match(tex, at))
    if word in _OPTIONS:
        return _NO_BRACKET.match(tex, at) is not None
    return word not in ("cr", "newline") or _row_fits(tex, at)


def _row_fits(tex: str, at: int) -> bool:
    """Return True if no space follows a row, or a small one."""
    return _NO_GAP.match(tex, at) is not None or _is_within(MAX_ROW_GAP, _ROW_GAP.match(tex, at))


def _is_within(limit: float, length: re.Match[str] | None) -> bool:
    if length is None or not length[1].strip("."):
        return False
    return float(length[1]) * _EM[length[2]] <= limit
