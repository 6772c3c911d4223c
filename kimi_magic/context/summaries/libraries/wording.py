"""Words that the summaries of libraries' objects share: lists that end, numbers, ranges."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

from kimi_magic.context.summaries.reprs import bounded_repr, label
from kimi_magic.context.walker import type_name
from kimi_magic.core.sampling import SEED, positions_at_random
from kimi_magic.core.text import clip
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = [
    "attribute",
    "fitted_lines",
    "hide_literals",
    "is_number",
    "kinds",
    "listed",
    "named",
    "number",
    "phrase",
    "quoted",
    "shape_of",
    "span",
    "written",
]

MOST = 1600  # characters of a summary that shows no rows of data
MAX_TITLE = 100
MAX_VALUE = 80
EXACT, SAMPLED = 1_000_000, 100_000

_LITERAL = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")
_MIDNIGHT = re.compile(r"T00:00:00(\.0+)?$|\.0+$")
_LEVEL = re.compile(r"\[(T\.|S\.|H\.|D\.)?[^\[\]]*\]")


def attribute(value: object, path: str, default: Any = None) -> Any:
    """Return an attribute, ``a.b`` as well; the default where the value's own code fails."""
    try:
        return attrgetter(path)(value)
    except USER_ERRORS:
        return default


def named(value: object, library: str) -> str:
    """Name a value by its class, one of a user's class by the library's class as well."""
    bases = type(value).__mro__
    own = type_name(value)
    if bases[0].__module__.lstrip("_").partition(".")[0] == library:
        return f"{library} {own}"
    of = [kind for kind in bases if kind.__module__.lstrip("_").partition(".")[0] == library]
    return f"{own}, a {library} {of[0].__name__}" if of else own


def listed(
    items: Iterable[object], total: int | None = None, *, most: int = 12, room: int = 400
) -> str:
    """List some items with commas between them, and how many there are besides."""
    if total is None:
        items = list(items)
        total = len(items)
    texts: list[str] = []
    for item in islice(items, most):
        texts.append(label(item, MAX_VALUE))
        room -= len(texts[-1]) + 2
        if room < 0 and len(texts) > 1:
            del texts[-1]
            break
    left = total - len(texts)
    return ", ".join([*texts, *([f"… {left:,} more"] if left > 0 else [])])


def fitted_lines(lines: Sequence[str], limit: int, most: int = MOST) -> str:
    """Join as many lines as fit into a summary."""
    room = min(limit, most) - len("\n… 1,000 more lines")
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0 and kept:
            return "\n".join([*kept, f"… {len(lines) - len(kept):,} more lines"])
        kept.append(line)
    return "\n".join(kept)


def number(value: Any, digits: int = 4) -> str:
    """Write a figure in few digits, a whole number in full."""
    try:
        as_float = float(value)
    except USER_ERRORS:
        return bounded_repr(value, MAX_VALUE)
    if as_float.is_integer() and abs(as_float) < 1e15:
        return f"{int(as_float):,}"
    return f"{as_float:.{digits}g}" if math.isfinite(as_float) else str(as_float)


def is_number(value: object) -> bool:
    """Return True for a number of Python or numpy, not for a truth value."""
    kind = type(value)
    numpy_number = getattr(sys.modules.get("numpy"), "number", ())
    return (kind is not bool and issubclass(kind, int | float)) or issubclass(kind, numpy_number)


def phrase(*parts: str | None) -> str:
    """Join what there is to say with commas."""
    return ", ".join(filter(None, parts))


def quoted(text: object) -> str:
    """Quote a title in one short line; "" for none."""
    if not isinstance(text, str) or not text.strip():
        return ""
    return f"«{clip(' '.join(text.split()), MAX_TITLE)}»"


def kinds(values: Iterable[object]) -> str:
    """Name the types of values, such as ``int | str``."""
    names = list(dict.fromkeys(map(type_name, values)))
    return " | ".join([*names[:3], *["…"][: len(names) - 3]])


def shape_of(value: object) -> str:
    """Write the shape of an array or frame, or the length of anything else."""
    shape = attribute(value, "shape")
    if type(shape) is tuple:
        return " × ".join(f"{side:,}" if isinstance(side, int) else "?" for side in shape) or "()"
    return f"{len(value):,}" if hasattr(type(value), "__len__") else ""  # type: ignore[arg-type]


def span(values: Any, *, texts: bool = True, mean: bool = False) -> str:
    """Describe the range of a column of data; of a long one a sample is read.

    Without ``texts`` no value of a text is told. With ``mean`` that of numbers is told as well.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and hasattr(type(values), "__array__"):
        array = numpy.asarray(values).reshape(-1)
        total = len(array)
        most = total if total <= EXACT and array.dtype.kind in "biufmM" else SAMPLED
        if total > most:
            array = array[numpy.random.default_rng(SEED).integers(0, total, most)]
    elif isinstance(values, list | tuple | range):
        total, most = len(values), SAMPLED
        array = [values[at] for at in positions_at_random(0, len(values), most)]
    else:
        return ""
    text = _range_of(array, numpy, texts=texts)
    if mean and text and attribute(array, "dtype.kind") in ("i", "u", "f"):
        known = array[numpy.isfinite(array)]
        text += f", mean {number(known.mean(dtype=float))}" if len(known) > 1 else ""
    return f"{text} (of {most:,} at random)" if total > most and text else text


def _range_of(array: Any, numpy: Any, *, texts: bool) -> str:
    if hasattr(array, "dtype") and array.dtype.kind == "b":
        return f"{100 * array.mean():.3g} % true" if len(array) else ""
    if hasattr(array, "dtype") and array.dtype.kind in "iufmM":
        lost = numpy.isnat(array) if array.dtype.kind in "mM" else ~numpy.isfinite(array)
        known = array[~lost]
        missing = len(array) - len(known)
        text = _ends(known.min(), known.max()) if len(known) else ""
        return phrase(text, f"{missing:,} not finite" if missing else None)
    items = array.tolist() if hasattr(array, "tolist") else array
    known = [item for item in items if item is not None and item == item]  # noqa: PLR0124 - NaN
    if known and all(map(is_number, known)):
        return _ends(min(known), max(known))
    if not known or not texts:
        return ""
    try:
        distinct = list(dict.fromkeys(known))
    except TypeError:  # values without a hash
        return f"of {kinds(known)}"
    return listed(distinct, most=6, room=150)


def _ends(low: Any, high: Any) -> str:
    if low == high:
        return f"always {written(low)}"
    return f"from {written(low)} to {written(high)}"


def written(value: Any) -> str:
    """Write a value of the data, a date without a time of zero."""
    if is_number(value) and attribute(value, "dtype.kind", "f") not in ("m", "M"):
        return number(value)
    text = str(value)
    return _MIDNIGHT.sub("", text)


def hide_literals(text: str) -> str:
    """Put an ellipsis for the literals and levels of a formula: they are values of the data."""
    return _LEVEL.sub(r"[\1…]", _LITERAL.sub("…", text))
