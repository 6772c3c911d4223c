"""Some rows of what speaks the dataframe interchange protocol, read from its buffers in place.

The protocol is https://data-apis.org/dataframe-protocol/latest/API.html; the numbers below are its.
"""

from __future__ import annotations

import ctypes
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from typing import Any

from kimi_magic.context.summaries.tables import Rows, Table

__all__ = ["table_of_interchange"]

CPU = 1
INT, UINT, FLOAT, BOOL, STRING, DATETIME, CATEGORICAL = 0, 1, 2, 20, 21, 22, 23
SENTINEL, BIT_MASK, BYTE_MASK = 2, 3, 4

_NAMES = {INT: "int", UINT: "uint", FLOAT: "float"}
_WORDS = {BOOL: "bool", STRING: "string", DATETIME: "datetime", CATEGORICAL: "category"}
_FORMATS = {INT: dict(zip((8, 16, 32, 64), "bhiq", strict=True))}
_FORMATS[UINT] = {bits: code.upper() for bits, code in _FORMATS[INT].items()}
_FORMATS[FLOAT] = {16: "e", 32: "f", 64: "d"}
_PER_SECOND = {"s": 1, "m": 1_000, "u": 1_000_000, "n": 1_000_000_000}

Getter = Callable[[int], Any]


def table_of_interchange(frame: Any, title: str) -> Table:
    """See what ``__dataframe__()`` gave as a table."""
    columns = [(name, _dtype(frame.get_column_by_name(name))) for name in frame.column_names()]

    def take(positions: Sequence[int], width: int) -> Rows:
        chunks = list(frame.get_chunks())
        starts = [0, *accumulate(chunk.num_rows() for chunk in chunks)]
        values = [_values(chunks, starts, positions, i) for i in range(width)]
        return Rows(positions, values)

    return Table(title, int(frame.num_rows()), columns, take)


def _dtype(column: Any) -> str:
    kind, bits, *_ = column.dtype
    return f"{_NAMES[kind]}{bits}" if kind in _NAMES else _WORDS.get(kind, f"kind {kind}")


def _values(chunks: list[Any], starts: list[int], positions: Sequence[int], i: int) -> list[Any]:
    columns: dict[int, _Column] = {}
    found = []
    for position in positions:
        chunk = bisect_right(starts, position) - 1
        if chunk not in columns:
            columns[chunk] = _Column(chunks[chunk].get_column(i))
        found.append(columns[chunk].value(position - starts[chunk]))
    return found


class _Column:
    """A column of one chunk. It keeps the buffers: what they point to lives as long as they do."""

    def __init__(self, column: Any) -> None:
        self._column = column
        self._offset: int = column.offset
        self._buffers: dict[str, Any] = column.get_buffers()
        self._read = self._reader()
        self._is_missing = self._missing()

    def value(self, at: int) -> Any:
        """The value at a position; None where it is missing."""
        at += self._offset
        return None if self._is_missing(at) else self._read(at)

    def _reader(self) -> Getter:
        kind, bits, layout, _ = self._column.dtype
        data, (data_kind, data_bits, *_) = self._buffers["data"]
        if kind == STRING:
            text = _memory(data)
            offsets, (_, offset_bits, *_) = self._buffers["offsets"]
            bound = _numbers(offsets, INT, offset_bits)
            return lambda at: bytes(text[bound(at) : bound(at + 1)]).decode("utf-8", "replace")
        if kind == BOOL:
            flag = _bits(data) if bits == 1 else _numbers(data, UINT, 8)
            return lambda at: bool(flag(at))
        number = _numbers(data, data_kind if data_kind in _FORMATS else INT, data_bits)
        if kind == DATETIME:
            return lambda at: _moment(number(at), layout)
        if kind == CATEGORICAL:
            categories = _Column(self._column.describe_categorical["categories"])
            return lambda at: categories.value(number(at))
        return number

    def _missing(self) -> Callable[[int], bool]:
        how, mark = self._column.describe_null
        if how == SENTINEL:
            data, (_, bits, *_) = self._buffers["data"]
            number = _numbers(data, INT, bits)
            return lambda at: bool(number(at) == mark)
        if how in (BIT_MASK, BYTE_MASK) and self._buffers["validity"] is not None:
            validity, _ = self._buffers["validity"]
            flag = _bits(validity) if how == BIT_MASK else _numbers(validity, UINT, 8)
            return lambda at: bool(flag(at) == mark)
        return lambda _: False


def _numbers(buffer: Any, kind: int, bits: int) -> Getter:
    layout, memory, size = _FORMATS[kind][bits], _memory(buffer), bits // 8
    return lambda at: struct.unpack_from(layout, memory, at * size)[0]


def _bits(buffer: Any) -> Getter:
    memory = _memory(buffer)
    return lambda at: memory[at // 8] >> (at % 8) & 1


def _memory(buffer: Any) -> memoryview:
    device, _ = buffer.__dlpack_device__()
    if device != CPU:
        raise ValueError("its memory is another device's")
    return memoryview((ctypes.c_ubyte * buffer.bufsize).from_address(buffer.ptr)).cast("B")


def _moment(number: int, layout: str) -> Any:
    """``tdD`` counts days since 1970, ``tsu:`` with ``s``, ``m``, ``u``, ``n`` parts of seconds."""
    if layout == "tdD":
        return date(1970, 1, 1) + timedelta(days=number)
    per_second = _PER_SECOND.get(layout[2:3])
    if not per_second:
        return number
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=number * 10**6 // per_second)
    return moment if layout[4:] else moment.replace(tzinfo=None)
