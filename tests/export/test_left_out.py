"""Programs without earlier turns, and without data of the notebook."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.context.cells import Cell, cell_blocks
from kimi_magic.context.pictures import with_caption
from kimi_magic.context.variables import picture_caption, variable_blocks
from kimi_magic.core.messages import ImagePart, Message, Part, TextPart, ToolCall, join_parts
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import EndpointFacts, TurnRecord
from kimi_magic.export import FORMS, leave_out, program_of, write
from kimi_magic.testing import ScriptedServer
from tests.snippets import KEY, MODEL, run

ROWS = {"df": [["Ann", "ann@example.org"], ["```", "rows"]]}
PICTURE = ImagePart("iVBORw0KGgo=", width=3, height=4)
CALL = ToolCall("functions.look:0", "look", '{"name": "Ann"}')
PROMPT = "Why did it fall?\n\n```text\nkept\n```"


def turn(prompt: str | tuple[Part, ...], base_url: str = "http://lab/v1") -> Reply:
    messages = (
        Message("system", "Be brief."),
        Message("user", f"{variable_blocks(ROWS)}\n\nWho is first?"),
        Message("assistant", tool_calls=(CALL,)),
        Message("tool", "ann@example.org", tool_call_id=CALL.id, name="look"),
        Message("assistant", "Ann."),
        Message("user", prompt),
        Message("assistant", "Later."),
    )
    facts = EndpointFacts("lab", base_url, "LAB_API_KEY")
    parameters = {"model": MODEL, "stream": False}
    return Reply(TurnRecord(messages=messages, sent=6, parameters=parameters, endpoint=facts))


def texts(reply: Reply) -> list[str]:
    return [message.text for message in reply.record.messages[: reply.record.sent]]


def test_one_turn_is_the_prompt_below_its_system_prompt() -> None:
    alone, notes = leave_out(turn(PROMPT), chat=False, with_data=True)
    assert texts(alone) == ["Be brief.", PROMPT]
    assert "4 earlier messages of the chat left out; --chat" in notes[0]
    whole, notes = leave_out(turn(PROMPT), chat=True, with_data=True)
    assert whole.record == turn(PROMPT).record
    assert notes == []


def test_data_and_history_of_trajectories_go_as_well() -> None:
    one = turn(f"{variable_blocks(ROWS)}\n\nWho is last?")
    heavy = replace(one, record=replace(one.record, trajectories=(one.record,) * 2))
    alone, notes = leave_out(heavy, chat=False, with_data=False)
    assert [len(texts(each)) for each in alone.trajectories] == [2, 2]
    assert "Ann" not in "".join(text for each in alone.trajectories for text in texts(each))
    assert len(notes) == 2
    for form in FORMS:
        written = write(program_of(alone, [], prompt="{problem} {attempts}", chars=100), form)
        assert "Ann" not in written
        assert "Who is last?" in written


def test_data_become_placeholders() -> None:
    cells = [
        Cell(3, "df.head()  # Its output:", ("Ann  ann@example.org\n```\nrows",)),
        Cell(4, "x = 1"),
    ]
    pieces: list[str | Part] = [
        f"{cell_blocks(cells)}\n\n{variable_blocks(ROWS)}\n\n",
        *with_caption(picture_caption("fig"), PICTURE),
        PICTURE,  # of the user's own
        f"{PROMPT} 1 2\n3 4 twice: 1 2\n3 4",
    ]
    short, notes = leave_out(
        turn(join_parts(pieces)), chat=True, with_data=False, values={"1 2\n3 4"}
    )
    shown = "\n".join(texts(short))
    assert "ann@example.org" not in shown
    assert shown.count("[data left out: df]") == 2
    assert "df.head()" in shown
    assert "x = 1" in shown
    assert "[data left out: output of cell 3]" in shown
    assert "[data left out: picture of fig]" in shown
    assert shown.endswith(
        f"{PROMPT} {(hole := '[data left out: value of an expression]')} twice: {hole}"
    )
    assert [len(m.images) for m in short.record.messages] == [0, 0, 0, 0, 0, 1, 0]
    assert notes[0].startswith("df, result of look, output of cell 3, picture of fig, value of")
    assert "--with-data" in notes[0]


@given(
    st.text(min_size=1, max_size=60).filter(str.strip),
    st.text("`\n[]ab", max_size=80),
    st.text("`\n ab", max_size=60),
)
def test_no_row_stays_and_no_word_of_the_prompt_goes(name: str, data: str, prompt: str) -> None:
    prompt = f"{prompt.strip()}."
    sent = f"{variable_blocks({name: f'SECRET {data} SECRET'})}\n\n{prompt}"
    short, notes = leave_out(turn(sent), chat=False, with_data=False)
    assert "SECRET" not in texts(short)[-1]
    assert texts(short)[-1].endswith(f"]\n\n{prompt}")
    assert len(notes) == 2


@pytest.mark.parametrize("form", FORMS)
def test_programs_with_placeholders_run(
    form: str, scripted_server: ScriptedServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("node_folder") if form == "node" else tmp_path
    reply = turn((TextPart(f"{variable_blocks(ROWS)}\n\n{PROMPT}"),), scripted_server.base_url)
    short, notes = leave_out(reply, chat=True, with_data=False)
    program = program_of(short, [])
    scripted_server.reply("It fell.")
    text = write(replace(program, notes=(*program.notes, *notes)), form)
    assert "ann@example.org" not in text
    assert "It fell." in run(text, form, folder, LAB_API_KEY=KEY)
    sent = scripted_server.requests[0].body["messages"]
    assert "[data left out: df]" in str(sent[-1]["content"])
    assert len(sent) == 6
