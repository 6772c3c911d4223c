"""Aim: have a secret read by the model, by a holder that no rule of names knows."""

from __future__ import annotations

import importlib
from http.cookiejar import Cookie, CookieJar
from http.cookies import SimpleCookie
from typing import Any

import pytest

from kimi_magic.context.cells import Cell, cell_blocks
from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.summary import summarize, summary_of
from kimi_magic.context.variables import attach_variables
from kimi_magic.core.messages import Message
from kimi_magic.export import write
from kimi_magic.export.function_sources import gather
from kimi_magic.export.left_out import _Holes
from kimi_magic.secrets.redact import Redactor
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.toolset import Toolset
from tests.snippets import cell, program

pd: Any = importlib.import_module("pandas")

SECRET = "hunter2xyz"


def _jar() -> CookieJar:
    jar = CookieJar()
    rest: tuple[Any, ...] = (".org", True, False, "/", True, True, None, False, None, None, {})
    jar.set_cookie(Cookie(0, "sid", SECRET, None, False, *rest))
    return jar


def _graph() -> object:
    graph = pytest.importorskip("networkx").Graph(password=SECRET)
    graph.add_node(1, password=SECRET)
    graph.add_edge(1, 2, api_key=SECRET)
    return graph


def _array() -> object:
    return pytest.importorskip("xarray").Dataset({"password": ("x", [SECRET, SECRET])})


HOLDERS: dict[str, Any] = {
    "a Series of settings": lambda: pd.Series({"DB_PASSWORD": SECRET, "USER": "me"}),
    "a long one": lambda: pd.Series({f"k{n}": "v" for n in range(99)} | {"DB_PASS": SECRET}),
    "names and values": lambda: pd.DataFrame({"name": ["PGPASSWORD"] * 9, "value": SECRET}),
    "transposed": lambda: pd.DataFrame({"a": {"password": SECRET}}),
    "two levels": lambda: pd.DataFrame({("auth", "password"): [SECRET] * 9}),
    "far right": lambda: pd.DataFrame({f"c{n}": [1] * 9 for n in range(70)} | {"pwd": SECRET}),
    "a graph": _graph,
    "an xarray": _array,
    "headers": lambda: {"Cookie": f"a={SECRET}", "X-Api-Key": SECRET},
    "pairs": lambda: [(b"authorization", f"Basic {SECRET}".encode()), ("Cookie", f"a={SECRET}")],
    "keys as bytes": lambda: {b"password": SECRET.encode()},
    "user and password": lambda: {"auth": ("me", SECRET)},
    "password first": lambda: [f"password={SECRET} host=h", f"PWD={SECRET};UID=me"],
    "libpq": lambda: {"dsn": f"host=h user=me password={SECRET} dbname=d"},
    "ODBC": lambda: [f"Driver={{SQL Server}};Server=s;UID=me;PWD={SECRET};"],
    "ODBC in a URL": lambda: [f"mssql:///?odbc_connect=DRIVER%3Dx%3BUID%3Dsa%3BPWD%3D{SECRET}"],
    "Azure": lambda: f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}==;",
    "a line of a header": lambda: f"Authorization: Basic {SECRET}",
    "a cookie": lambda: SimpleCookie({"session": SECRET}),
    "a jar": _jar,
}


@pytest.mark.parametrize("made", HOLDERS.values(), ids=HOLDERS)
def test_a_secret_in_a_holder_without_a_field(made: Any) -> None:
    """Input: labels, pairs, headers, connection strings. Holds: the secret is masked in each."""
    value = made()
    texts = [summarize(value, tokens=tokens) for tokens in (1500, 3000)]
    texts += [summary_of(value, detail=Detail("figures")).text, summarize({"a": value})]
    for text in texts:
        assert SECRET not in Redactor(shapes=True).text(text)


HARMLESS = [
    "connect(host=host, user=user, password=password, port=5432)",
    'f"host={host} user={user} password={password} dbname={name}"',
    "host=h user=me password=*** and Server=s;PWD={pwd};",
    "let host=a; let user = x; password = input.value",
    "Authorization: Basic {credentials}, authorization by Basic authentication",
    "<Cookie jar for example.org>",
    str({("password", "count"): 1, "auth": "basic", "low_pass": "butter", "compass": "north"}),
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    """Input: code and words that look alike. Holds: nothing is masked."""
    assert Redactor(shapes=True).text(text) == text


def test_labels_and_figures_stay() -> None:
    """Input: figures on a column of passwords. Holds: labels and numbers are told."""
    frame = pd.DataFrame({"password": ["a", "b"] * 5, "n": 1})
    text = summarize(frame.agg(["count", "nunique"]))
    assert "10,10" in text
    assert "[masked]" not in summarize(pd.DataFrame({("password", "count"): [1, 2]}))


@pytest.mark.parametrize(
    "part",
    [
        "host=h ",
        "pwd=abc ",
        "host=" + "h" * 90 + " ",
        "Server=s;",
        "host=" * 9,
        "a=b;user=",
        "%3Bpwd%3D",
    ],
)
def test_no_connection_string_takes_long(part: str) -> None:
    """Input: beginnings of connection strings without end. Holds: it ends soon."""
    Redactor(shapes=True).text(part * 5000)


def test_a_tool_neither_shows_nor_reaches_secrets() -> None:
    """Input: a default, and variables for a parameter of any data. Holds: the model has neither."""

    def load(data, password="hunter2", options={"api_key": "hunter2", "n": 1}):  # type: ignore[no-untyped-def]  # noqa: B006
        return data

    namespace = {"sales": [1], "credentials": {"a": SECRET}, "db_passwords": [SECRET], "load": load}
    bench = Toolset(["load"], namespace=namespace)
    text = str(bench.schemas())
    assert "hunter2" not in text
    assert "['sales']" in text
    for name in ("credentials", "db_passwords"):
        assert SECRET not in bench.call("load", f'{{"data": "{name}"}}').content


SOURCES = [
    'def tool(q: str) -> str:\n    return connect(q, password="hunter2")\n',
    'def tool(q: str, *, password: str = "hunter2") -> str:\n    return q\n',
    'def tool(q: str) -> str:\n    headers = {"X-Api-Key": "hunter2"}\n    return q\n',
    'def tool(q: str) -> str:\n    q.pwd = DSN["passwd"] = "hunter2"\n    return q\n',
    'CONFIG = {"pwd": "hunter2"}\ndef tool(q: str) -> str:\n    return q + CONFIG["pwd"]\n',
    'PGPASSWORD = "hunter2"\ndef tool(q: str) -> str:\n    return q + PGPASSWORD\n',
]


@pytest.mark.parametrize("source", SOURCES)
def test_an_exported_program_has_no_secret(source: str) -> None:
    """Input: secrets in a tool's source and in what it uses. Holds: none is in the program."""
    notebook: dict[str, Any] = {}
    cell(source, notebook)
    with ScriptedServer() as server:
        text = write(program(server, functions={"tool": notebook["tool"]}), "python")
        harmless = source.replace("hunter2", "")
        cell(harmless, notebook)
        assert "hunter2" not in text
        sources = gather({"tool": notebook["tool"]})
    assert "tool" in sources.functions


def test_data_of_which_less_is_sent_stays_out_of_programs() -> None:
    """Input: a variable with its figures alone, a cell with its outline. Holds: both stay out."""
    frame = pd.DataFrame({"a": [123456, 654321] * 9})
    figures = attach_variables({"df": frame}, details={"df": Detail("figures")})[0]
    cells = cell_blocks([Cell(3, "f()", ("out",), "error", (), "outline 123456")], values=False)
    found: list[str] = []
    for block in (figures, cells):
        assert "123456" in block
        found.append(_Holes(()).message(Message("user", f"{block}\n\nWhy?")).text)
    assert "123456" not in str(found)
    assert "[data left out: df]" in found[0]
    assert "[data left out: output of cell 3]" in found[1]
