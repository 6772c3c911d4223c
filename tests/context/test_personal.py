"""Columns that look like personal data: found by their values or names, with few false alarms."""

from __future__ import annotations

import random
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given

from kimi_magic.context.summaries.personal import (
    ACCOUNT,
    CARD,
    EMAIL,
    NAME,
    NATIONAL,
    PHONE,
    kind_of,
)
from kimi_magic.context.summaries.summary import summary_of

RANDOM = random.Random(5)


def luhn(digits: str) -> str:
    doubled = [sum(divmod(2 * int(d), 10)) for d in digits[::-2]]
    return digits + str(-(sum(map(int, digits[-2::-2])) + sum(doubled)) % 10)


def digits(count: int) -> str:
    return "".join(RANDOM.choices("0123456789", k=count))


CARDS = [luhn(f"4{digits(14)}") for _ in range(50)]
CPFS = ["529.982.247-25", "111.444.777-35", "935.411.347-80", "153.509.460-56"]
PERSONAL: list[tuple[str, list[Any], str]] = [
    ("contact", ["a.b@example.org", "c+d@mail.example.co.uk", None, "x_y@example.com"], EMAIL),
    ("Ansprechpartner", ["jörg@example.de", "", "li@example.cn", "n/a"], EMAIL),
    ("call", ["+49 30 1234567", "+1-202-555-0143", "(0)20 7946 0958", "0044 20 7946 0958"], PHONE),
    ("column 3", ["(202) 555-0143", "202-555-0143", "212.555.0199"], PHONE),
    ("phone", [2025550143, 2025550199, 3035550100], PHONE),
    ("Mobile No", ["01512345678", "01609876543"], PHONE),
    ("work_phone", ["5550143", "5550199"], PHONE),
    ("card", CARDS, CARD),
    ("x", [int(card) for card in CARDS], CARD),
    ("x", [f"{c[:4]} {c[4:8]} {c[8:12]} {c[12:]}" for c in CARDS], CARD),
    ("CardNumber", CARDS[:1], CARD),
    ("id", ["078-05-1120", "219-09-9999", "457-55-5462", "123-45-6789"], NATIONAL),
    ("SSN", [78051120, 219099999, 457555462], NATIONAL),
    ("id", ["AB123456C", "JG103759A", "AP019283D", "ZX047829C"], NATIONAL),
    ("id", ["12345678Z", "00000000T", "X1234567L", "87654321X"], NATIONAL),
    ("id", ["RSSMRA85T10A562S", "BNCGVN90A41F205X", "VRDLGI70M20H501K", "NRIPLA60D15L219U"],
     NATIONAL),
    ("id", CPFS, NATIONAL),
    ("id", ["44051401359", "02070803628", "90090515836", "92071314764"], NATIONAL),
    ("national ID", ["11010519491231002X", "440524188001010014"], NATIONAL),
    ("passport number", ["C01X00T47", "L01X00T44"], NATIONAL),
    ("iban", ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"], ACCOUNT),
    ("first_name", ["Ada", "Li", None], NAME),
    ("lastName", ["Lovelace", "Li"], NAME),
    ("Customer Name", ["Ada Lovelace", "ACME"], NAME),
    ("Nachname", ["Müller", "Ortiz"], NAME),
    ("name", ["Ada Lovelace", "Alan M. Turing", "Grace Hopper"], NAME),
]  # fmt: skip
HARMLESS: list[tuple[str, list[Any]]] = [
    ("date", ["2024-01-02", "2024-02-03", "2023-12-31"]),
    ("day", ["02.01.2024", "31.12.2023"]),
    ("day", ["01/02/2024", "12/31/2023"]),
    ("at", ["2024-01-02 10:00:00", "2024-01-03 11:30:00"]),
    ("at", ["2024-01-02T10:00:00+00:00"] * 3),
    ("time", ["10:15", "23:59:59"]),
    ("ip", ["192.168.0.1", "10.0.0.255"]),
    ("version", ["1.2.3", "10.0.1"]),
    ("price", ["0.99", "12.50", "1,200.00"]),
    ("delta", ["+0.5", "-1.25", "+3"]),
    ("change", ["+15 %", "+3 %"]),
    ("amount", [1234567, 7654321, 2345678]),
    ("n", list(range(1000))),
    ("stamp", [1700000000000 + 977 * n for n in range(200)]),
    ("serial", [4000000000000000 + 10 * n for n in range(200)]),
    ("zip", ["10115", "02139", "90210"]),
    ("isbn", ["978-3-16-148410-0", "978-0-306-40615-7"]),
    ("ean", [4006381333931, 4012345678901, 4000417025005, 4008400401621]),
    ("uuid", ["123e4567-e89b-12d3-a456-426614174000"] * 3),
    ("range", ["10-20", "20-30", "30-40"]),
    ("code", ["A-100", "B-200"]),
    ("name", ["sales.csv", "costs.csv"]),
    ("name", ["Widget", "Gadget"]),
    ("product_name", ["Red Chair", "Blue Table"]),
    ("file name", ["report.pdf"]),
    ("hostname", ["web1", "web2"]),
    ("column_name", ["a", "b"]),
    ("city", ["New York", "San Juan"]),
    ("telemetry", [1.5, 2.5]),
    ("cell_type", ["neuron", "glia"]),
    ("text", ["mail me @ home", "a@b"]),
    ("handle", ["@ada", "@li"]),
    ("empty", [None, "", float("nan")]),
    ("lists", [[1], {"a": 1}, object()]),
    ("bools", [True, False]),
    ("floats", [0.5, 1e300, float("inf"), float("nan")]),
    ("scores", ["07 12", "03 04"]),
    ("coordinates", ["52.5200", "13.4050"]),
    ("geo", ["-33.86", "151.20"]),
]


@pytest.mark.parametrize(("name", "values", "kind"), PERSONAL)
def test_personal_columns(name: str, values: list[Any], kind: str) -> None:
    assert kind_of(name, values) == kind


@pytest.mark.parametrize(("name", "values"), HARMLESS)
def test_harmless_columns(name: str, values: list[Any]) -> None:
    assert kind_of(name, values) == ""


@given(st.lists(st.integers(-(10**19), 10**19) | st.floats() | st.dates().map(str)), st.text())
def test_numbers_and_dates_are_nothing_personal(values: list[Any], name: str) -> None:
    assert kind_of(f"{name}0", values) in ("", CARD), "sixteen digits may be a card's by chance"


@given(st.text(), st.lists(st.text() | st.none() | st.binary() | st.integers()))
def test_any_column_is_read(name: str, values: list[Any]) -> None:
    kind_of(name, values)


@pytest.mark.parametrize("text", ["a" * 10**6, "+" + "1 " * 10**6, "a.b@" + "c." * 10**6,
                                  "A b" * 10**6, "4" * 10**6])  # fmt: skip
def test_long_values_take_no_time(text: str) -> None:
    assert kind_of("x", [text] * 200) == ""


def test_a_million_rows_are_sampled() -> None:
    rows = 1_000_000
    emails = np.array(["a@example.org", "b@example.org"] * (rows // 2))
    for frame in (pd.DataFrame({"n": range(rows), "mail": emails}),
                  pl.DataFrame({"n": range(rows), "mail": emails})):  # fmt: skip
        summary = summary_of(frame)
        assert summary.personal == (("mail", EMAIL),)
        assert (summary.shown, summary.of) == (10, rows)
