"""The tokens of an answer, marked by how likely they were."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.likelihoods import Alternative, TokenLogprob
from kimi_magic.core.messages import Step
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import clean
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.display.html.confidence import confidence_html, confidence_text
from kimi_magic.display.record import record_of
from kimi_magic.display.view import ViewOptions


def token(text: str, likely: float | None, **others: float) -> TokenLogprob:
    found = tuple(Alternative(name, math.log(value)) for name, value in others.items())
    return TokenLogprob(text, None if likely is None else math.log(likely), found)


class Parsed(HTMLParser):
    """The spans of the marked text, the rows of the table, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.spans: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.tab_stops = 0
        self._within: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.tab_stops += tag in ("summary", "a", "button") or "tabindex" in dict(attrs)
        self._within.append(tag)
        if tag == "span" and "pre" in self._within:
            self.spans.append(("", dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._within.pop() == tag

    def handle_data(self, data: str) -> None:
        if "pre" in self._within and self.spans:
            self.spans[-1] = (self.spans[-1][0] + data, self.spans[-1][1])
        if "td" in self._within:
            self.rows[-1][-1] += data


@pytest.mark.parametrize(
    ("likely", "line"),
    [
        (1.0, None),
        (0.8, None),
        (0.79, "dotted"),
        (0.5, "dotted"),
        (0.49, "dashed"),
        (0.2, "dashed"),
        (0.19, "double"),
        (1e-12, "double"),
        (None, None),
    ],
)
def test_marks_differ_by_their_lines(likely: float | None, line: str | None) -> None:
    page = confidence_html([token("9", likely)], 1000)
    (span,) = Parsed(page).spans
    found = re.search(r"border-bottom:\dpx (\w+)", span[1].get("style") or "")
    assert (found and found[1]) == line
    for name in ("dotted", "dashed", "double"):
        assert f"{name}: " in page, "the legend names each"


def test_the_probability_and_the_alternatives_are_told_twice() -> None:
    tokens = [token("It is ", 0.99), token("9", 0.3, **{"9": 0.3, "8": 0.6, "7": 0.001})]
    parsed = Parsed(confidence_html(tokens, 10_000))
    assert parsed.spans[0] == ("It is ", {"title": "99 %"})
    assert parsed.spans[1][1]["title"] == "30 %; else “8” 60 %"
    assert parsed.rows[1:] == [["“9”", "It is ", "30 %", "“8” 60 %"]]


def test_few_places_to_tab_through() -> None:
    tokens = [token("word ", 0.3, other=0.5)] * 2000
    record = record_of(Reply(TurnRecord(steps=(Step("word " * 2000, logprobs=tuple(tokens)),))))
    parsed = Parsed(record.data["text/html"])
    assert parsed.tab_stops <= 4
    assert len(parsed.rows) == 21


@pytest.mark.parametrize(("text", "shown"), [("\n", "↵\n"), ("  ", "␣␣"), (" ", "␣")])
def test_a_mark_below_white_space_is_seen(text: str, shown: str) -> None:
    assert Parsed(confidence_html([token(text, 0.3)], 1000)).spans[0][0] == shown
    assert Parsed(confidence_html([token(text, 0.9)], 1000)).spans[0][0] == text


def test_one_line_of_text() -> None:
    tokens = [token("So ", 0.95), token("9", 0.3, **{"8": 0.6}), token("\n", 0.1), token("x", None)]
    assert confidence_text(tokens) == (
        "Least likely of 3 tokens: “↵” 10 %; “9” 30 % (else “8” 60 %)"
    )
    assert confidence_text(tokens[:1]) == "Each of 1 token was at least 80 % likely."


def reply(tokens: list[TokenLogprob]) -> Reply:
    text = "".join(each.token for each in tokens)
    step = Step(text, logprobs=tuple(tokens), finish_reason="stop")
    return Reply(TurnRecord(steps=(step,), finish_reason="stop", model="kimi-k2"))


def test_the_record_has_one_line_more() -> None:
    tokens = [token("So ", 0.95), token("9", 0.3)]
    with_them = record_of(reply(tokens)).data
    without = record_of(reply([])).data
    assert "Tokens of the answer" not in without["text/html"]
    assert "Tokens of the answer" in with_them["text/html"]
    plain = with_them["text/plain"].split("\n\n")
    assert plain == ["So 9", "[Least likely of 2 tokens: “9” 30 %]", "— kimi-k2"]


def lanes_of(count: int, tokens: list[TokenLogprob]) -> Reply:
    whole = reply(tokens).record
    step = replace(whole.steps[0], reasoning_logprobs=tuple(tokens))
    whole = replace(whole, steps=(step,))
    return Reply(replace(whole, trajectories=(whole.alone(),) * count))


def test_trajectories_and_reasoning_are_marked_as_well() -> None:
    """Folded, and not at all where the reasoning is hidden."""
    tokens = [token("So ", 0.95), token("9", 0.3)]
    html = record_of(lanes_of(3, tokens)).data["text/html"]
    assert html.count("Tokens of the answer") == html.count("Tokens of the reasoning") == 4
    assert html.count("dashed;") >= 8
    panels = re.findall(r"<details([^>]*)>\s*<summary[^>]*>(Tokens of the \w+)", html)
    assert sum("open" in attributes for attributes, _ in panels) == 1
    hidden = record_of(lanes_of(3, tokens), ViewOptions(hide_reasoning=True)).data["text/html"]
    assert "Tokens of the reasoning" not in hidden
    assert hidden.count("Tokens of the answer") == 4


@pytest.mark.parametrize("most", [20_000, 200_000])
def test_a_record_of_many_trajectories_is_bounded(most: int) -> None:
    tokens = [token(f"word{n} ", 0.3, **{"other" * 9: 0.5}) for n in range(5000)]
    html = record_of(lanes_of(8, tokens), ViewOptions(max_chars=most)).data["text/html"]
    assert len(html) < 3 * most + 10_000 * 8


def test_nothing_is_said_where_nothing_is_known() -> None:
    record = record_of(reply([token("9.9", None)])).data
    assert "Tokens of the answer" not in record["text/html"]
    assert record["text/plain"] == "9.9\n\n— kimi-k2"


@pytest.mark.parametrize("most", [2000, 20_000, 200_000])
def test_the_record_is_bounded(most: int) -> None:
    tokens = [token(f"word{n} ", 0.3, **{"other" * 9: 0.5}) for n in range(20_000)]
    html = record_of(reply(tokens), ViewOptions(max_chars=most)).data["text/html"]
    assert len(html) < 1.2 * most + 20_000
    assert "more tokens (setting max_output_chars)" in html


HOSTILE = st.text(
    st.sampled_from("ab <>&\"'$\\\n\t\x1b\u202e\u200b\u0301\U000e0041🙂`%{}/=") | st.characters(),
    max_size=12,
)
NUMBERS = st.none() | st.floats() | st.integers(-(10**9), 10**9)


@given(
    st.lists(
        st.builds(
            TokenLogprob,
            HOSTILE,
            NUMBERS,
            st.lists(st.builds(Alternative, HOSTILE, st.floats()), max_size=3).map(tuple),
        ),
        max_size=8,
    )
)
def test_whatever_a_stored_turn_holds_is_text(tokens: list[TokenLogprob]) -> None:
    """Also of a turn that was read from a file."""
    page = confidence_html(tokens, 100_000)
    parsed = Parsed(page)
    tags = "div span pre details summary table thead tbody tr th td code"
    assert parsed.tags <= set(tags.split())
    assert parsed.attributes <= {"style", "title", "scope"}
    assert clean(page) == page
    shown = "".join(text for text, _ in parsed.spans)
    told = "".join(clean(each.token) for each in tokens)
    assert re.sub(r"[\s↵␣]", "", shown) == re.sub(r"[\s↵␣]", "", told)
    assert "\n" not in confidence_text(tokens)
