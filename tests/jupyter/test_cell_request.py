"""A ``%%kimi`` cell as a request, and dry runs, which change nothing."""

from __future__ import annotations

import pytest

from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

STATE = """
import kimi_magic.session as _module
def _state(session=_module.current()):
    chats = [repr(vars(chat)) for chat in session.chats]
    return chats, session.chats.current, id(session.last), session.settings.trait_values()
"""


@pytest.mark.parametrize(
    "line",
    ["", "-c new", "-c old", "--fresh", "--no-history", "-o answer", "answer <<", "-e lab",
     "-f code", "-T f --approve yes", "--schema list[int]", "-v limit --seed 5", "-e local"],
)  # fmt: skip
def test_a_dry_run_changes_nothing(kernel: Kernel, asked: ScriptedServer, line: str) -> None:
    for chat in ("main", "old"):
        asked.reply("OK.")
        asked.reply("Better.")
        kernel.run(f"%%kimi -c {chat}\nFirst", cell="a")
        kernel.run(f"%%kimi -c {chat}\nFirst, again", cell="a")
    kernel.run(f"kimi.add_endpoint(name='lab', base_url={asked.base_url!r}, key_env='LAB_KEY_2')")
    kernel.run("limit = 7\ndef f(x: int): 'Do.'\n")
    kernel.run(f"{STATE}\n_before = _state()")
    sent = len(asked.requests)
    for cell in ("a", "b"):
        ran = kernel.run(
            f"%%kimi {line} --dry-run\nHow much?", allow_stdin=True, answer="fake-key-0", cell=cell
        )
        assert "Nothing was sent." in ran.stdout
        assert ran.questions == [], "a key is asked for before something is sent, not before"
    assert len(asked.requests) == sent
    assert kernel.run("print(_before == _state(), 'answer' in globals())").stdout == "True False\n"


def test_a_dry_run_begins_no_chat(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run("%%kimi -c new --dry-run\nHi")
    kernel.run("%%kimi --dry-run\nHi")
    assert kernel.run("%kimi chats").stdout.startswith("There is no chat yet")
    assert asked.requests == []


@pytest.mark.parametrize(
    ("line", "code"), [("--var-tokens 60", ""), ("", "kimi.settings.summary_tokens = 60"),
                       ("", "%env KIMI_SUMMARY_TOKENS=60")]
)  # fmt: skip
def test_the_summary_of_an_expression_is_held_to_its_limit(
    kernel: Kernel, asked: ScriptedServer, line: str, code: str
) -> None:
    kernel.run("rows = [{'name': 'x' * 20, 'n': n} for n in range(500)]")
    asked.reply("OK.")
    asked.reply("OK.")
    kernel.run("%%kimi\n{{ rows }}")
    kernel.run(f"{code}\nNone")
    kernel.run(f"%%kimi --fresh {line}\n{{{{ rows }}}}")
    long, short = (request.body["messages"][-1]["content"] for request in asked.requests)
    assert len(short) < 60 * 4 * 1.5 < len(long)


def test_options_of_a_request_need_no_code_of_their_own(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    asked.reply("[1]")
    kernel.run("%%kimi -f json --no-history --seed 3 --stop END -o answer\nGo")
    kernel.run("assert answer.data == [1] and answer.chat is None")
    body = asked.requests[0].body
    assert (body["seed"], body["stop"]) == (3, ["END"])


def test_a_large_tool_is_told_once_and_a_part_of_it_is_sent(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    kernel.run(f"def large(path: str, sep: str = ',', n: int = 1):\n    {'A text. ' * 400!r}")
    for line in ("-T large", "-T large", '-T "large(path, sep)"'):
        asked.reply("OK.")
        ran = kernel.run(f"%%kimi {line} --no-history\nHi")
        told = "large takes about 8" in ran.record["text/plain"]
        assert told == (len(asked.requests) == 1), "once in a session"
    names = [
        list(r.body["tools"][0]["function"]["parameters"]["properties"]) for r in asked.requests
    ]
    assert names == [["path", "sep", "n"], ["path", "sep", "n"], ["path", "sep"]]
    assert "large takes about 8" in kernel.run("%%kimi -T large --dry-run\nHi").stdout
    program = kernel.run("print(kimi.snippet(kimi.last))").stdout
    assert '"sep"' in program
    assert '"n": {' not in program, "the program offers the same part"


@pytest.mark.parametrize(
    ("code", "line", "reason"),
    [
        ("", "-T f(nothing)", "f has no parameter nothing: it takes x"),
        ("", "-T f()", "f needs x, which params leaves out: add it"),
        ("f = Broken()", "-T f", "f cannot be offered: OSError: no way"),
        ("f.__annotations__ = {'x': Broken()}", "-T f", "f cannot be offered: OSError: no way"),
        ("f = kimi.tool(Broken())", "", "Broken cannot be offered: OSError: no way"),
    ],
)
def test_what_cannot_be_offered_ends_the_cell_in_one_line(
    kernel: Kernel, asked: ScriptedServer, code: str, line: str, reason: str
) -> None:
    kernel.run(
        "class Broken:\n"
        "    @property\n"
        "    def __signature__(self): raise OSError('no\\n  way')\n"
        "    def __repr__(self): raise OSError('no way')\n"
        "    def __call__(self, x): return x\n"
        "def f(x): return x"
    )
    kernel.run(code)
    ran = kernel.run(f"%%kimi {line}\nHi", ok=False)
    kernel.run("import kimi_magic.tools.decorator as o; o.offered.clear()")
    assert reason in ran.error
    assert len(ran.error.splitlines()) == 1
    assert asked.requests == []
