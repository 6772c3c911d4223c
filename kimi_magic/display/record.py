"""Static outputs: the frozen record of a turn, a chat, a program.

They need no kernel, widget or script. Untrusted notebooks drop ``<style>`` and declarations with
``var(--…)``, so a record is made of plain elements with inline styles, in colours that suit light
and dark pages. A turn that is run again with the same answer leaves the same output: durations go
into the metadata, and only where they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from html import escape
from typing import Any, NamedTuple, Protocol, Self

from kimi_magic.core.events import Envelope, ToolFinished, ToolStarted
from kimi_magic.core.likelihoods import TokenLogprob
from kimi_magic.core.messages import ImagePart, ToolCall, ToolResult, Usage
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import (
    clean,
    count,
    cut_note,
    escape_hidden,
    keep_ends,
    without_stacks,
)
from kimi_magic.display.calls import arguments_html, call_line, call_notes, call_text
from kimi_magic.display.html.code import MONOSPACE, code_html
from kimi_magic.display.html.confidence import MOST_ROWS, confidence_html, confidence_text
from kimi_magic.display.html.data import data_html, data_text
from kimi_magic.display.html.markdown import plain_html, to_html
from kimi_magic.display.html.tool_results import OUTCOMES, has_image, result_html
from kimi_magic.display.segments import Segment
from kimi_magic.display.timeline import MAX_NAME, Timeline
from kimi_magic.display.times import times_of
from kimi_magic.display.view import ViewOptions

__all__ = [
    "Bundle",
    "RecordView",
    "confidence_line",
    "is_record",
    "lane_line",
    "lanes_line",
    "make_record",
    "publish",
    "record_of",
    "show_call",
    "show_chat",
    "show_code",
    "show_folded",
    "thumbnail",
    "tokens_line",
]

MAX_THUMBNAIL = 200  # pixels across
# live.css has the same declarations: nothing may move when the record replaces the live view.
# Every element that holds text from outside clips it: formulas, stacked accents and long words must
# not be drawn over the card or the line beside them. Untrusted notebooks drop contain alone.
_CLIPPED = "overflow:hidden;contain:paint"
_SCROLLED = "overflow:auto;contain:paint"
_ANSWER = "overflow-x:auto;overflow-y:hidden;overflow-wrap:break-word;contain:paint"
_WRAP = "white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;line-height:1.5"
_PROSE = "font-family:inherit;font-size:inherit"
_THOUGHT = f"opacity:.8;line-height:1.5;overflow-wrap:anywhere;{_CLIPPED}"
_BLOCK = "margin:0 0 .8em"
_SUMMARY = f"cursor:pointer;opacity:.8;font-size:90%;overflow-wrap:anywhere;{_CLIPPED}"
_CALL = f"display:inline-block;max-width:95%;vertical-align:bottom;{_CLIPPED}"
_PANEL = (
    "margin:.3em 0 0 .3em;padding:0 0 0 .9em;border-left:2px solid rgba(127,127,127,.4);"
    f"max-height:24em;{_SCROLLED}"
)
_FAINT = "rgba(127,127,127,.35)"
_CARD = f"{_BLOCK};padding:.4em .8em;border:1px solid {_FAINT};border-radius:6px"
_INSIDE = "margin:.4em 0 0"
_RESULT = f"margin:.5em 0 0;padding:.5em 0 0;border-top:1px dashed rgba(127,127,127,.4);{_SCROLLED}"
_CUT = "opacity:.65;font-size:90%"
_NOTICE = (
    f"{_BLOCK};padding:.1em 0 .1em .8em;border-left:2px solid #b58100;overflow-wrap:anywhere;"
    f"white-space:pre-line;{_CLIPPED}"
)
_FOOTER = f"opacity:.8;font-size:85%;overflow-wrap:anywhere;{_CLIPPED}"
_BADGE = (
    "display:inline-block;max-width:100%;box-sizing:border-box;vertical-align:bottom;"
    f"padding:0 .5em;border:1px solid rgba(127,127,127,.6);border-radius:4px;{_CLIPPED}"
)
_PROMPT = (
    f"margin:1em 0 .5em;font-weight:600;white-space:pre-wrap;overflow-wrap:anywhere;{_CLIPPED}"
)
_ASIDE = "opacity:.65"
_BEFORE_BLANK = re.compile(r"\n([ \t]*)(?=\n)")
_FENCE = re.compile(r"^([ \t]*)([`~])(?=\2\2)", re.MULTILINE)
_FENCES = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
# Of max_chars, the part that the marked tokens of an answer take with their HTML. Those of the
# reasoning take half of that, and so do the answers of all trajectories, and their reasoning.
MARKED_SHARE = 2
ROWS_OF_LANE = 5
MIN_TURN = 2000  # characters of a turn in a chat
KEY = "kimi_magic"  # of what is ours in an output's metadata and transient data
NO_BREAK = "\N{NO-BREAK SPACE}"
EMPTY = "The chat is empty."
ASIDE = "Set aside by cells that were run again"


class Bundle(NamedTuple):
    """An output of a cell: its representations by MIME type, and metadata."""

    data: dict[str, Any]
    metadata: dict[str, Any]

    @classmethod
    def of(cls, text: str, page: str, metadata: dict[str, Any] | None = None) -> Self:
        """Bundle a text with a page of HTML that stays whole inside Markdown.

        Markdown ends a block of HTML at a blank line and reads on after it as its own (CommonMark
        0.31, 4.6): nbconvert, code hosts and site builders put outputs into Markdown. Quarto puts
        them into a fenced block (``{=html}``), which a fence of theirs would end.
        """
        whole = _BEFORE_BLANK.sub(r"&#10;\1", page)
        whole = _FENCE.sub(lambda fence: f"{fence[1]}&#{ord(fence[2])};", whole)
        return cls({"text/plain": text, "text/html": whole}, metadata or {})


class Record(Bundle):
    """A frozen turn, and its times, which the page alone is told.

    They are *transient*: front ends keep them with the output and out of the file (Jupyter
    messaging protocol, *display_data*).
    """

    times: dict[str, Any]


def make_record(timeline: Timeline, options: ViewOptions | None = None) -> Record:
    """Freeze a turn in its present state: as HTML, as a transcript, and its facts as metadata."""
    options = options or ViewOptions()
    text, answer = _transcript(timeline, options)
    facts = _facts(timeline, options) | ({"answer": answer} if answer else {})
    record = Record.of(text, _html(timeline, options), {KEY: facts})
    record.times = times_of(timeline)
    return record


def record_of(reply: Reply, options: ViewOptions | None = None) -> Record:
    """Draw the record of a turn that is over, such as one that was stored."""
    options = options or ViewOptions()
    hide, most = options.hide_reasoning, options.max_chars
    return make_record(Timeline.of(reply, hide_reasoning=hide, max_chars=most), options)


def is_record(page: str) -> bool:
    """Return True for the HTML of a record, by the footer that each of them ends with."""
    return page.startswith("<div>\n") and f'<div style="{_FOOTER}">' in page[-2000:]


def tokens_line(usage: Usage, mark: str = "") -> str:
    """Return the usage without its seconds, with a mark such as ``recorded`` at its end."""
    line = str(usage).rpartition(" · ")[0]
    return f"{line} · {mark}" if mark else line


class RecordView:
    """Shows the record of a turn when it has ended."""

    def __init__(self, options: ViewOptions) -> None:
        self._options = options
        self._timeline = Timeline(
            hide_reasoning=options.hide_reasoning, max_chars=options.max_chars
        )

    def handle(self, envelope: Envelope) -> None:
        whole = self._timeline
        timeline = whole.lanes[envelope.lane] if envelope.lane else whole
        timeline.apply(envelope.event, envelope.seconds)

    def tick(self) -> None: ...

    def close(self) -> None:
        self._timeline.end()
        publish(make_record(self._timeline, self._options))


def thumbnail(image: ImagePart) -> Bundle:
    """Return a small view of a picture that would be sent."""
    width = min(image.width or MAX_THUMBNAIL, MAX_THUMBNAIL)
    data = {image.media_type: image.data, "text/plain": f"[{image}]"}
    return Bundle(data, {image.media_type: {"width": width}})


def publish(bundle: Bundle, display_id: str | None = None, *, update: bool = False) -> None:
    """Show a bundle as an output of the running cell; without IPython, print its text."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import publish_display_data

    if not InteractiveShell.initialized():
        print(bundle.data["text/plain"])
        return
    send: Any = publish_display_data  # IPython's own annotations leave it untyped
    transient: dict[str, Any] = {"display_id": display_id} if display_id else {}
    if isinstance(bundle, Record) and bundle.times:
        transient[KEY] = bundle.times
    send(bundle.data, bundle.metadata, transient=transient or None, update=update)


def _html(timeline: Timeline, options: ViewOptions) -> str:
    pieces = _pieces(timeline, options)
    if timeline.lanes:
        pieces.insert(timeline.lanes_at, _lanes_html(timeline, options))
    pieces[:0] = _sent_html(timeline)
    pieces += _marked(timeline, options)
    facts = [timeline.head]
    if (reply := timeline.reply) is not None:
        facts += [f"{len(reply.steps)} steps"] if len(reply.steps) > 1 else []
        facts += [tokens_line(reply.usage, timeline.usage_mark)] if options.usage else []
    footer = f'<div style="{_FOOTER}">{plain_html(" · ".join(facts))}{_badge(timeline)}</div>'
    return "\n".join(["<div>", *pieces, *_cut(timeline.left_out), footer, "</div>"])


def _sent_html(timeline: Timeline) -> list[str]:
    """Show what was sent in a line, folded over the same at length."""
    sent = timeline.sent
    if sent is None or not sent.line:
        return []
    lines = "".join(f"<div>{plain_html(clean(line))}</div>" for line in sent.details)
    return [_details(plain_html(clean(sent.line)), lines)]


def _badge(timeline: Timeline) -> str:
    """Name the tape that the turn was played from."""
    if not timeline.tape:
        return ""
    title = escape(timeline.about_tape, quote=True)
    return f' <span title="{title}" style="{_BADGE}">{plain_html(timeline.tape)}</span>'


def _marked(timeline: Timeline, options: ViewOptions, lanes: int = 0) -> list[str]:
    """Show the tokens of the answer and of the reasoning by how likely they were.

    Those of one of ``lanes`` trajectories are folded, and share the room of one turn.
    """
    room = options.max_chars // MARKED_SHARE
    panels = []
    if tokens := _tokens(timeline):
        own = room // (2 * lanes) if lanes else room
        html = confidence_html(tokens, own, rows=ROWS_OF_LANE if lanes else MOST_ROWS)
        panels.append(_details("Tokens of the answer", html, is_open=not lanes))
    if not options.hide_reasoning and (tokens := _tokens_of_reasoning(timeline)):
        own = room // (2 * max(lanes, 1))
        html = confidence_html(tokens, own, rows=ROWS_OF_LANE if lanes else MOST_ROWS)
        panels.append(_details("Tokens of the reasoning", html))
    return panels


def _tokens(timeline: Timeline) -> tuple[TokenLogprob, ...]:
    """Return the tokens of the final answer, if it is known of any how likely it was."""
    steps = timeline.reply.record.steps if timeline.reply else ()
    return _known(steps[-1].logprobs if steps else ())


def _tokens_of_reasoning(timeline: Timeline) -> tuple[TokenLogprob, ...]:
    """Return the tokens of the reasoning of all steps, as `_tokens` those of the answer."""
    steps = timeline.reply.record.steps if timeline.reply else ()
    between = TokenLogprob("\n\n")
    joined: list[TokenLogprob] = []
    for step in steps:
        if tokens := _known(step.reasoning_logprobs):
            joined += [between, *tokens] if joined else tokens
    return tuple(joined)


def _known(tokens: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
    return tokens if any(token.logprob is not None for token in tokens) else ()


def confidence_line(timeline: Timeline) -> str:
    """Return one line on the answer's least likely tokens; "" where nothing is known of any."""
    tokens = _tokens(timeline)
    return confidence_text(tokens) if tokens else ""


def _pieces(timeline: Timeline, options: ViewOptions) -> list[str]:
    answer = _data_segment(timeline)
    return [
        f'<div style="{_ANSWER}">\n{data_html(timeline.reply.data)}</div>'
        if segment is answer and timeline.reply
        else _segment_html(segment, options)
        for segment in timeline.segments
    ]


def _lanes_html(timeline: Timeline, options: ViewOptions) -> str:
    """Show the trajectories, folded twice: all of them, and each for itself."""
    cards = []
    for number, lane in timeline.lanes.items():
        marked = _marked(lane, options, len(timeline.lanes))
        inside = "\n".join([*_pieces(lane, options), *marked, *_cut(lane.left_out)])
        title = escape(lane_line(timeline, number))
        cards.append(_folding(title, _inside(inside), _CARD, is_open=False))
    title = escape(" · ".join(filter(None, [lanes_line(timeline), timeline.vote])))
    return _folding(title, _inside("".join(cards)), _BLOCK, is_open=False)


def _inside(html: str) -> str:
    return f'<div style="{_INSIDE}">{html}</div>'


def lanes_line(timeline: Timeline) -> str:
    """Count the trajectories, and those that gave no answer."""
    failed = sum(lane.state != "Done" for lane in timeline.lanes.values())
    said = f"{len(timeline.lanes)} trajectories"
    return f"{said}, {failed} without an answer" if failed else said


def lane_line(timeline: Timeline, number: int) -> str:
    """Return a trajectory's number with its answer, or with the state that it ended in."""
    lane = timeline.lanes[number]
    said = timeline.answer_of(number) or lane.state or "Not begun"
    calls = sum(segment.kind == "tool" for segment in lane.segments)
    called = [count(calls, "tool call")] if calls else []
    return " · ".join([f"Trajectory {number}", said, *called])


def _data_segment(timeline: Timeline) -> Segment | None:
    """Return the answer that is shown as data; None if there are no data, or the text was cut."""
    if timeline.reply is None or timeline.reply.data is None:
        return None
    answers = [segment for segment in timeline.segments if segment.kind == "answer"]
    last = answers[-1] if answers else None
    return None if last is None or last.missing else last


def _segment_html(segment: Segment, options: ViewOptions) -> str:
    whole = _whole(segment) if segment.missing else segment.text
    if segment.kind == "reasoning":
        is_open = options.keep_reasoning if segment.open is None else segment.open
        if options.format in ("text", "json"):
            kept = _pre(escape(segment.text.rstrip())) + "".join(_end(segment, _pre_end))
        else:
            kept = _thought(segment.text) + "".join(_end(segment, _thought_end))
        return _details("Reasoning", kept, is_open=is_open)
    if segment.kind == "tool":
        return _card(segment)
    if segment.kind == "notice":
        end = "".join(_end(segment, plain_html))
        return f'<div style="{_NOTICE}">{plain_html(segment.text)}{end}</div>'
    if options.format in ("text", "json"):
        return f'<pre style="{_WRAP};{_PROSE};{_CLIPPED}">{escape(whole)}</pre>'
    if options.format == "code" and "```" not in segment.text:
        return code_html(whole, "python")
    end = "".join(_end(segment, _end_html))
    return f'<div style="{_ANSWER}">\n{to_html(segment.text)}{end}</div>'


def _end(segment: Segment, shown: Callable[[str], str]) -> list[str]:
    """Return the note on what is missing and the end of the text; nothing if nothing is."""
    note = cut_note(segment.missing)
    return [*_cut(note), shown(segment.end)] if note else []


def _thought(text: str) -> str:
    """Show reasoning, which is as little trusted as an answer."""
    return f'<div style="{_THOUGHT}">\n{to_html(text, light=True)}</div>'


def _thought_end(text: str) -> str:
    return _thought(_reopened(text))


def _pre_end(text: str) -> str:
    return _pre(escape(text))


def _end_html(text: str) -> str:
    return to_html(_reopened(text))


def _reopened(text: str) -> str:
    """Return the end of a Markdown text; an odd fence closes code that began before it."""
    return f"```\n{text}" if len(_FENCES.findall(text)) % 2 else text


def _cut(note: str) -> list[str]:
    return [f'<div style="{_CUT}">{plain_html(note)}</div>'] if note else []


def _card(segment: Segment) -> str:
    """Show a tool call: its arguments, and its result below them."""
    result, outcome = segment.result, OUTCOMES.get(segment.state)
    inner = []
    if arguments := arguments_html(segment):
        inner.append(_inside(_pre(arguments, MONOSPACE)))
    if not segment.edited:
        inner += _end(segment, lambda end: _pre(escape(end), MONOSPACE))
    if result is not None:
        inner.append(f'<div style="{_RESULT}">{result_html(result)}</div>')
    shows = result is not None and has_image(result)
    notes = "".join(f" · {note.replace(' ', NO_BREAK)}" for note in call_notes(segment))
    if outcome:
        mark = f'<span style="{outcome.ink}">{outcome.mark}</span>'
        notes = notes.replace(outcome.mark, mark)
    title = f'<code style="{_CALL}">{escape(call_line(segment))}</code>{notes}'
    edge = outcome.colour if outcome else _FAINT
    is_open = shows if segment.open is None else segment.open
    style = f"{_CARD};border-left:3px solid {edge}"
    return _folding(title, "\n".join(inner), style, is_open=is_open)


def _pre(html: str, font: str = _PROSE) -> str:
    return f'<pre style="margin:0;opacity:.8;{_WRAP};{font};{_CLIPPED}">{html}</pre>'


def _details(title: str, html: str, *, is_open: bool = False) -> str:
    # Keys scroll only an element that can have the focus.
    panel = f'<div tabindex="0" style="{_PANEL}">{html}</div>'
    return _folding(title, panel, _BLOCK, is_open=is_open)


def _folding(title: str, html: str, style: str, *, is_open: bool) -> str:
    return (
        f'<details{" open" if is_open else ""} style="{style}">'
        f'<summary style="{_SUMMARY}">{title}</summary>\n{html}</details>'
    )


def _transcript(timeline: Timeline, options: ViewOptions) -> tuple[str, list[int] | None]:
    """Return the turn as text, and where in it the last answer begins and ends."""
    sent = timeline.sent
    paragraphs = [f"[{clean(sent.line)}]"] if sent and sent.line else []
    at = None
    for place, segment in enumerate(timeline.segments):
        if timeline.lanes and place == timeline.lanes_at:
            paragraphs.append(_lanes_text(timeline))
        at = len(paragraphs) if segment.kind == "answer" else at
        paragraphs.append(_segment_text(segment, timeline))
    if timeline.lanes and timeline.lanes_at >= len(timeline.segments):
        paragraphs.append(_lanes_text(timeline))
    paragraphs += [f"[{line}]"] if (line := confidence_line(timeline)) else []
    paragraphs += [timeline.left_out] if timeline.left_out else []
    paragraphs.append(f"— {timeline.head}")
    if options.usage and timeline.reply is not None:
        paragraphs[-1] += f" · {tokens_line(timeline.reply.usage, timeline.usage_mark)}"
    paragraphs[-1] += f" · {timeline.tape}" if timeline.tape else ""
    if at is None:
        return without_stacks("\n\n".join(paragraphs)), None
    ends = ("\n\n".join([*paragraphs[:at], ""]), "\n\n".join(paragraphs[: at + 1]))
    whole = without_stacks("\n\n".join(paragraphs))
    return whole, [len(without_stacks(end)) for end in ends]


def _segment_text(segment: Segment, timeline: Timeline) -> str:
    text = _whole(segment)
    if segment.kind == "reasoning":
        return f"Reasoning:\n{text}"
    if segment.kind == "tool":
        return call_text(segment)
    if segment.kind == "notice":
        return f"[{text}]"
    if timeline.reply is not None and segment is _data_segment(timeline):
        return data_text(timeline.reply.data)
    return text


def _lanes_text(timeline: Timeline) -> str:
    lines = [lane_line(timeline, number) for number in timeline.lanes]
    title = lanes_line(timeline) + (f" ({timeline.vote})" if timeline.vote else "")
    return "\n".join([f"{title}:", *(f"  {line}" for line in lines)])


def _whole(segment: Segment) -> str:
    """Return a segment's text, with a note where something is missing."""
    text = segment.text.rstrip()
    return f"{text}\n{cut_note(segment.missing)}\n{segment.end}" if segment.missing else text


def _facts(timeline: Timeline, options: ViewOptions) -> dict[str, Any]:
    names = ("model", "endpoint", "practice", "state")
    facts: dict[str, Any] = {name: getattr(timeline, name) for name in names}
    if (reply := timeline.reply) is not None:
        facts |= {
            "model": _name(reply.model) or timeline.model,
            "chat": _name(reply.chat),
            "finish_reason": _name(reply.finish_reason),
            "error": type(reply.error).__name__ if reply.error is not None else None,
            "steps": len(reply.steps),
            "usage": _counts(reply, times=options.times),
        }
        facts |= {"times": times_of(timeline)} if options.times else {}
    facts |= {"replayed": timeline.replayed} if timeline.replayed else {}
    facts = options.mask(facts)
    if reply is not None and options.portable is not None:
        facts["turn"] = options.portable(reply.record)
    return facts


def _counts(reply: Reply, *, times: bool) -> dict[str, Any]:
    if times:
        return asdict(reply.usage)
    # Summed over the steps: an answer that was discarded is of this run alone.
    usage = sum((step.usage for step in reply.record.steps), Usage())
    names = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
    return {name: getattr(usage, name) for name in names}


def _name(text: str | None) -> str | None:
    return clean(text)[:MAX_NAME] if text else text


def show_code(code: str, language: str) -> Bundle:
    """Show a program, highlighted; what it hides is written as escapes."""
    code = escape_hidden(code)[0]
    return Bundle.of(code, code_html(code, language))


def show_folded(title: str, text: str, short: str) -> Bundle:
    """Show a text folded below its title; where nothing folds, a shorter one."""
    html = _details(escape(title), _pre(escape(text)))
    return Bundle({"text/plain": f"{title}\n{short}", "text/html": html}, {})


def show_call(call: ToolCall, result: ToolResult, *, max_chars: int = 200_000) -> Bundle:
    """Show a call of a tool with its result, as a turn shows it, unfolded."""
    timeline = Timeline(max_chars=max_chars)
    for event in (ToolStarted(0, call), ToolFinished(0, result)):
        timeline.apply(event)
    (segment,) = timeline.segments
    segment.open = True
    return Bundle.of(call_text(segment), _card(segment))


class _Turn(Protocol):
    """A turn of a chat."""

    @property
    def prompt(self) -> str: ...
    @property
    def reply(self) -> Reply: ...


def show_chat(
    turns: Iterable[_Turn], set_aside: Iterable[_Turn] = (), *, max_chars: int = 200_000
) -> Bundle:
    """Show the turns of a chat one after the other, and those that were set aside below them.

    In a long chat each turn is cut to its beginning.
    """
    shown, aside = list(turns), list(set_aside)
    limit = max(max_chars // (len(shown) + len(aside) or 1), MIN_TURN)
    html = [_turn_html(turn, limit) for turn in shown] or [f"<p>{EMPTY}</p>"]
    text = [_turn_text(turn, limit) for turn in shown] or [EMPTY]
    if aside:
        below = [_turn_html(turn, limit) for turn in aside]
        html += [f'<div style="{_ASIDE}"><p>{ASIDE}:</p>', *below, "</div>"]
        text += [f"[{ASIDE}:]", *(_turn_text(turn, limit) for turn in aside)]
    page = "\n".join(["<div>", *html, "</div>"])
    return Bundle.of("\n\n".join(text), page)


def _turn_html(turn: _Turn, limit: int) -> str:
    reply = turn.reply
    pieces = [f'<div style="{_PROMPT}">{plain_html(_cut_to(turn.prompt, limit // 4))}</div>']
    if reply.reasoning:
        pieces.append(_details("Reasoning", _thought(_cut_to(reply.reasoning, limit // 4))))
    pieces.append(f'<div style="{_ANSWER}">{to_html(_cut_to(reply.text, limit // 2))}</div>')
    return "\n".join([*pieces, f"<div>{_ending(reply)}</div>"])


def _turn_text(turn: _Turn, limit: int) -> str:
    prompt, answer = _cut_to(turn.prompt, limit // 4), _cut_to(turn.reply.text, limit // 2)
    return f"> {prompt}\n\n{answer}\n{_ending(turn.reply)}".rstrip()


def _cut_to(text: str, limit: int) -> str:
    return clean(text if len(text) <= limit else keep_ends(text, limit))


def _ending(reply: Reply) -> str:
    """Return the number of tool calls and the error, if there are any."""
    facts = [count(len(reply.tool_calls), "tool call")] if reply.tool_calls else []
    if reply.error is not None:
        facts.append(type(reply.error).__name__)
    return f"[{', '.join(facts)}]" if facts else ""
