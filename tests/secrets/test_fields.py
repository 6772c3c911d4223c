"""Secrets that the names of their fields tell, in reprs and in data."""

from __future__ import annotations

import importlib
import os
from collections import namedtuple
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.summary import summarize, summary_of
from kimi_magic.secrets.fields import is_secret_field, mask_fields
from kimi_magic.secrets.redact import Redactor
from kimi_magic.tools.results import to_text

np: Any = importlib.import_module("numpy")
pd: Any = importlib.import_module("pandas")

SECRET = "hunter2!"
RANDOM = "aB3dE5gH7jaB3dE5gH7j"
DSN = f"postgresql+psycopg://me:{SECRET}@db:5432/shop"


@dataclass
class Login:
    user: str
    password: str
    port: int = 5432


@dataclass
class Nested:
    logins: list[Login] = field(default_factory=lambda: [Login("me", SECRET)])


Pair = namedtuple("Pair", "user api_key")  # noqa: PYI024


class Model(pydantic.BaseModel):
    user: str = "me"
    client_secret: str = SECRET
    inner: dict[str, str] = {"accessToken": SECRET}


class Plain:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Client:
    """As scikit-learn has it."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"openai_api_key": SECRET, "alpha": 0.5}

    def fit(self) -> None:
        raise NotImplementedError


def attrs_instance() -> object:
    attr = pytest.importorskip("attrs")
    made: Any = attr.make_class("Account", {"user": attr.field(), "refresh_token": attr.field()})
    return made("me", SECRET)


HOLDERS: dict[str, Any] = {
    "dataclass": Login("me", SECRET),
    "nested": Nested(),
    "named tuple": Pair("me", SECRET),
    "pydantic": Model(),
    "attrs": attrs_instance(),
    "namespace": SimpleNamespace(user="me", secret_key=SECRET),
    "dict": {"user": "me", "DB_PASSWORD": SECRET},
    "bytes": {"user": "me", "passphrase": SECRET.encode()},
    "list": [{"user": "me", "auth-token": SECRET}],
    "estimator": Client(),
    "repr": Plain(f"Session(user='me', password={SECRET!r})"),
    "repr of bytes": Plain(f"Session(user='me', pwd=b{SECRET!r})"),
    "repr in a repr": Plain(repr({"config": f"user='me', passwd='{SECRET}'"})),
    "with a quote": Plain(f'Session(user="me", password="it\\"s {SECRET}")'),
    "bare": Plain(f"<connection user=me password={SECRET} host=db>"),
    "JSON": Plain(f'{{"user": "me", "clientSecret": "{SECRET}"}}'),
    "token": Plain(f"Hub(user='me', token='{RANDOM}')"),
    "DSN": Plain(f"Engine('{DSN}', user='me')"),
    "long": Plain(f"Engine(user='me', note='{'x' * 300}', password='{SECRET * 3000}')"),
    "frame": pd.DataFrame({"user": ["me"] * 20, "password": [SECRET] * 20}),
    "labels of rows": pd.DataFrame(
        {"user": ["me"] * 20}, index=pd.Index([SECRET] * 20, name="pwd")
    ),
    "groups": pd.DataFrame({"user": ["me"] * 20, "password": SECRET}).groupby("password"),
    "records": np.array([("me", SECRET)] * 9, dtype=[("user", "U2"), ("password", "U9")]),
    "environment": os._Environ({}, *[str] * 4) | {"user": "me", "HF_TOKEN": SECRET},
    "categories": pd.DataFrame({"user": "me", "api_key": pd.Categorical([SECRET] * 20)}),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
@pytest.mark.parametrize("tokens", [1500, 60])
def test_a_secret_is_masked_by_the_name_of_its_field(holder: Any, tokens: int) -> None:
    for text in (summarize(holder, tokens=tokens), summarize([holder], tokens=tokens)):
        assert "hunter2" not in text
        assert RANDOM not in text
    if tokens > 60 and not isinstance(holder, Client):
        assert "me" in summarize(holder) or "user" in summarize(holder)
    assert "hunter2" not in summary_of(holder, detail=Detail("figures")).text


@pytest.mark.parametrize("name", ["dataclass", "nested", "named tuple", "pydantic", "dict", "list"])
def test_so_it_is_in_what_a_tool_returns(name: str) -> None:
    text = to_text(HOLDERS[name], 2000)
    assert "hunter2" not in text
    assert '"[masked]"' in text
    assert '"me"' in text


def test_a_secret_is_masked_before_it_is_cut() -> None:
    """The rest of it would not look like one."""
    url = f"postgresql://me:{'hunter2' * 30}@db"
    frame = pd.DataFrame({"url": [url] * 20})
    for value in ([url], {"url": url}, {url: 1}, frame, Plain(f"Engine({url})"), [url * 30]):
        for tokens in (20, 40, 60, 250):
            text = Redactor(shapes=True).text(summarize(value, tokens=tokens))
            assert "hunter2" not in text


HARMLESS = [
    {"password": None, "max_tokens": 300, "tokens": 12, "key": "column", "api_key": ""},
    {"token": "hello", "pad_token": "[PAD]", "eos_token": "</s>", "n_tokens": "12"},
    {"password": "***", "secret": "<hidden>", "api_key": "${API_KEY}", "pwd": "/home/me"},
    {"password": "object", "token": "str", "sort_key": "date", "passwords": ["a"]},
    {"secretary": "Ann", "keyboard": "qwerty", "tokenizer": "bert-base-uncased-12"},
    Plain("Model(max_tokens=300, tokens=12, key='column', password=None, token=<class str>)"),
    Plain("f(password=get_password(), api_key=os.environ['OPENAI_API_KEY'], secret=True)"),
    Plain("columns: password (str), api_key: object, 'token': 'str'"),
    Plain("Tokenizer(unk_token='[UNK]', mask_token='<mask>', token='word')"),
    Plain("pwd='C:\\\\work' pwd='~/work'"),
]


@pytest.mark.parametrize("value", HARMLESS, ids=map(str, range(len(HARMLESS))))
def test_what_is_no_secret_is_not_masked(value: Any) -> None:
    assert "[masked]" not in summarize(value)
    assert summarize(value) == repr(value)


def test_own_text_and_code_stay_as_they_are() -> None:
    text = f"password='{SECRET}'"
    assert summarize(text) == text

    def connect(password: str = "changeme") -> str:
        return password

    assert "changeme" in summarize(connect)


@given(st.text(max_size=200), st.sampled_from(["password", "api_key", "DB_PASSWORD", "apiKey"]))
def test_any_text_in_a_repr_is_masked_whole(secret: str, name: str) -> None:
    marked = f"«{secret}»"
    written = repr(marked)
    text = mask_fields(f"Login(user='me', {name}={written}, port=1)")
    assert text == f"Login(user='me', {name}={written[0]}[masked]{written[-1]}, port=1)"
    assert is_secret_field(name, marked)
    assert mask_fields(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "a='" * 20_000,
        "password='" * 20_000,
        "\\" * 60_000,
        "a" * 60_000,
        "password=" + "'\\" * 40_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    mask_fields(text)
