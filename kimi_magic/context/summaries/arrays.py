"""Describe arrays of numpy, torch, jax and their kin: shape, dtype, distribution, a corner."""

from __future__ import annotations

import math
import sys
from collections import Counter
from contextlib import suppress
from typing import Any

from kimi_magic.context.summaries.column_figures import quoted
from kimi_magic.context.summaries.reprs import bounded_repr
from kimi_magic.core.sampling import positions_at_random
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS
from kimi_magic.secrets.fields import names_secret

__all__ = ["describe_array", "distribution", "some_of"]

WHOLE = 100
EXACT_BYTES = 40_000_000  # of numpy's memory; this much is read in less than 50 ms
EXACT_OF_A_FILE = 2_000_000
EXACT_ELSEWHERE = 20_000  # values of another library, which become Python's
SAMPLED = 10_000
SAMPLED_OF_A_FILE = 200  # each may be a page to read
SIDES = (0, 16, 5, 3)
SIDE = 2
FEWEST = 5  # values below which figures would be as good as the values
CLASSES, PER_CLASS = 12, 3
WIDEST_CLASSES = 1000  # from the least integer to the greatest
MAX_DTYPE, MAX_LABEL = 100, 30
MASKED = "masked"


def describe_array(value: Any, values: str = "rows") -> str | None:
    """Describe an array; a large one is read in part.

    ``values`` is the one of ``Detail``.
    """
    kind = type(value)
    # An array that shares its memory by DLPack holds its data: it is not lazy, and not a file.
    if not all(hasattr(kind, name) for name in ("__dlpack__", "shape", "dtype")):
        return None
    shape = tuple(value.shape)
    size = math.prod(shape)
    numpy: Any = sys.modules.get("numpy")
    heading = f"{_name(kind)}, shape {shape}, dtype {_dtype(value.dtype)}"
    device = str(getattr(value, "device", "cpu"))
    if "cpu" not in device.lower():
        heading += f", on {device}"
    if values == "schema" or (values == "figures" and size < FEWEST):
        return heading
    if size and numpy is not None:
        heading += _figures(value, shape, numpy, quotes=values == "rows")
    fields = getattr(value.dtype, "names", None) or ()
    if values != "rows" or any(map(names_secret, fields)):
        return heading
    corner = value if size * max(len(fields), 1) <= WHOLE else _corner(value, shape)
    if numpy is None:
        return f"{heading}\n{corner.tolist()}"
    shown = _as_numpy(corner, numpy)
    note = "" if corner is value else f"corner {shown.shape}:\n"
    if len(shape) == 1 or shape[1:] == (1,):  # a column takes a line for each value
        shown = shown.ravel()
        note = note and f"first {shown.size}:\n"
    with numpy.printoptions(threshold=2 * WHOLE, precision=6):
        return f"{heading}\n{note}{shown}"


def _name(kind: type) -> str:
    library = kind.__module__.partition(".")[0].removesuffix("lib")
    name = kind.__name__.removesuffix("Impl")
    return name if library == "numpy" else f"{library} {name}"


def _dtype(dtype: object) -> str:
    return clip(str(dtype).removeprefix("torch."), MAX_DTYPE)


def _figures(value: Any, shape: tuple[int, ...], numpy: Any, *, quotes: bool) -> str:
    own = isinstance(value, numpy.ndarray)
    most = EXACT_OF_A_FILE if isinstance(value, numpy.memmap) else EXACT_BYTES
    exact = value.nbytes <= most if own else math.prod(shape) <= EXACT_ELSEWHERE
    sample = _as_numpy(value if exact else some_of(value, shape, numpy), numpy)
    figures = []
    if isinstance(sample, numpy.ma.MaskedArray) and not sample.dtype.names:
        figures.append(_masked(sample, exact=exact))
        sample = sample.compressed()
    if sample.size:
        classes = _classes(sample, shape, numpy, exact=exact, quotes=quotes)
        figures.append(classes or distribution(sample, numpy))
    text = ", ".join(filter(None, figures))
    if not text:
        return ""
    return f", {text}" + ("" if exact else f" (of {count(sample.size, 'value')} at random)")


def _masked(sample: Any, *, exact: bool) -> str:
    lost = sample.size - sample.count()
    if lost == sample.size and exact:
        return f"all {MASKED}"
    return f"{lost:,} {MASKED}" if exact else f"{100 * lost / sample.size:.3g} % {MASKED}"


def _as_numpy(value: Any, numpy: Any) -> Any:
    """Convert to a numpy array, also from another device's memory."""
    return value if isinstance(value, numpy.ndarray) else numpy.asarray(value.tolist())


def some_of(value: Any, shape: tuple[int, ...], numpy: Any) -> Any:
    """Take values at random, the same in each run; nothing else is read."""
    size = math.prod(shape)
    is_file = isinstance(value, numpy.memmap)
    wanted = min(SAMPLED_OF_A_FILE if is_file else SAMPLED, size)
    places = numpy.unravel_index(positions_at_random(0, size, wanted), shape)
    try:
        return value[places]
    except USER_ERRORS:  # jax takes arrays alone, others take lists alone
        return value[tuple(place.tolist() for place in places)]


def _corner(value: Any, shape: tuple[int, ...]) -> Any:
    side = SIDES[len(shape)] if len(shape) < len(SIDES) else SIDE
    return value[(slice(side),) * len(shape)]


def _classes(sample: Any, shape: tuple[int, ...], numpy: Any, *, exact: bool, quotes: bool) -> str:
    """Count the labels of a vector that has few; "" for any other array.

    Without ``quotes`` no text is named.
    """
    if (len(shape) != 1 and shape[1:] != (1,)) or sample.size < FEWEST:
        return ""
    kind = sample.dtype.kind
    counted = dict[Any, int]()
    if kind in "iu" and int(sample.max()) - int(sample.min()) < WIDEST_CLASSES:
        least = int(sample.min())
        above = numpy.subtract(sample, sample.min(), dtype=numpy.int64, casting="unsafe")
        counts = numpy.bincount(above.ravel())
        counted = {least + int(at): int(counts[at]) for at in numpy.flatnonzero(counts)}
    elif kind in "USOT":
        part = sample.ravel()
        if part.size > SAMPLED:
            part, exact = some_of(part, part.shape, numpy), False
        with suppress(*USER_ERRORS):  # objects that have no hash
            counted = dict(Counter(part.tolist()).most_common())
    several = len(counted) > 1
    few = several and sum(counted.values()) >= PER_CLASS * len(counted)
    if not few or len(counted) > CLASSES or (kind in "USOT" and not quotes):
        return f"{len(counted):,} distinct" if several and kind in "USOT" else ""
    total = sum(counted.values())
    shown = (
        f"{_label(name)} ({times:,})" if exact else f"{_label(name)} ({100 * times / total:.3g} %)"
        for name, times in counted.items()
    )
    return f"{len(counted)} classes: {', '.join(shown)}"


def _label(name: object) -> str:
    return quoted(clip(name, MAX_LABEL) if type(name) is str else bounded_repr(name, MAX_LABEL))


def distribution(array: Any, numpy: Any) -> str:
    """Describe how the values of a numpy array are distributed; "" if they have no order."""
    kind = array.dtype.kind
    if kind == "b":
        return f"{100 * array.mean():.3g} % true"
    if kind == "c":
        return _complex(array, numpy)
    if kind in "mM":
        known, missing = _where(array, ~numpy.isnat(array)), "NaT"
    elif kind in "iu":
        known, missing = array, ""
    elif kind == "f":
        known, missing = _where(array, numpy.isfinite(array)), "not finite"
    else:
        return ""
    figures = [f"from {_plain(known.min())} to {_plain(known.max())}"] if known.size else []
    if known.size and kind in "iuf":
        figures.append(f"mean {known.mean(dtype=float):.6g}")
    if kind == "M" and (step := _step(array, numpy)):
        figures.append(step)
    if lost := array.size - known.size:
        figures.append(f"{lost:,} {missing}")
    return ", ".join(figures)


def _where(array: Any, known: Any) -> Any:
    """Leave out what is not known; without anything such, copy nothing."""
    return array if known.all() else array[known]


def _complex(array: Any, numpy: Any) -> str:
    if array.size < FEWEST:
        return ""
    known = _where(array, numpy.isfinite(array))
    figures = []
    if known.size:
        for name, part in (("real", known.real), ("imaginary", known.imag)):
            figures.append(f"{name} from {_plain(part.min())} to {_plain(part.max())}")
        figures.append(f"modulus up to {_plain(numpy.abs(known).max())}")
    if lost := array.size - known.size:
        figures.append(f"{lost:,} not finite")
    return ", ".join(figures)


def _step(times: Any, numpy: Any) -> str:
    """Name the distance of times that are equally far from each other."""
    if times.ndim != 1 or times.size < FEWEST or numpy.isnat(times).any():
        return ""
    steps = numpy.diff(times)
    if (steps == steps[0]).all():
        step = steps[0]
        with suppress(*USER_ERRORS):  # a month is no number of microseconds
            step = str(step.astype("m8[us]").item()).removesuffix(", 0:00:00")
        return f"every {step}"
    return "in ascending order" if (steps >= numpy.timedelta64(0)).all() else ""


def _plain(number: Any) -> str:
    return f"{float(number):.6g}" if number.dtype.kind == "f" else str(number)
