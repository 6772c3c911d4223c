"""Describe arrays of numpy, torch, jax and their kin: shape, dtype, range, mean, a corner."""

from __future__ import annotations

import math
import sys
from typing import Any

__all__ = ["describe_array", "distribution"]

WHOLE = 100
EXACT = 5_000_000
SAMPLED = 100_000
SIDES = (0, 16, 5, 3)
SIDE = 2
FEWEST = 5  # values below which figures would be as good as the values


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
    heading = f"{_name(kind)}, shape {shape}, dtype {str(value.dtype).removeprefix('torch.')}"
    device = str(getattr(value, "device", "cpu"))
    if "cpu" not in device.lower():
        heading += f", on {device}"
    if values == "schema" or (values == "figures" and size < FEWEST):
        return heading
    if size and numpy is not None:
        exact = size <= (EXACT if isinstance(value, numpy.ndarray) else SAMPLED)
        sample = _as_numpy(value if exact else _every_so_many(value, shape), numpy)
        if figures := distribution(sample, numpy):
            of_some = "" if exact else f" (of {sample.size:,} values, evenly spaced)"
            heading += f", {figures}{of_some}"
    if values != "rows":
        return heading
    corner = value if size <= WHOLE else _corner(value, shape)
    if numpy is None:
        return f"{heading}\n{corner.tolist()}"
    with numpy.printoptions(threshold=2 * WHOLE, precision=6):
        text = str(_as_numpy(corner, numpy))
    note = "" if corner is value else f"corner {tuple(corner.shape)}:\n"
    return f"{heading}\n{note}{text}"


def _name(kind: type) -> str:
    library = kind.__module__.partition(".")[0].removesuffix("lib")
    name = kind.__name__.removesuffix("Impl")
    return name if library == "numpy" else f"{library} {name}"


def _as_numpy(value: Any, numpy: Any) -> Any:
    """Convert to a numpy array, also from another device's memory."""
    return value if isinstance(value, numpy.ndarray) else numpy.asarray(value.tolist())


def _every_so_many(value: Any, shape: tuple[int, ...]) -> Any:
    """Thin out an array evenly; slices are views, so nothing is copied."""
    steps = [1] * len(shape)
    left = list(shape)
    while math.prod(left) > SAMPLED:
        longest = left.index(max(left))
        steps[longest] *= 2
        left[longest] = math.ceil(shape[longest] / steps[longest])
    return value[tuple(slice(None, None, step) for step in steps)]


def _corner(value: Any, shape: tuple[int, ...]) -> Any:
    side = SIDES[len(shape)] if len(shape) < len(SIDES) else SIDE
    return value[(slice(side),) * len(shape)]


def distribution(array: Any, numpy: Any) -> str:
    """Describe how the values of a numpy array are distributed; "" if they have no order."""
    kind = array.dtype.kind
    if kind == "b":
        return f"{100 * array.mean():.3g} % true"
    if kind in "mM":
        known, missing = array[~numpy.isnat(array)], "NaT"
    elif kind in "iuf":
        known, missing = array[numpy.isfinite(array)], "not finite"
    else:
        return ""
    figures = [f"from {_plain(known.min())} to {_plain(known.max())}"] if known.size else []
    if known.size and kind in "iuf":
        figures.append(f"mean {known.mean(dtype=float):.6g}")
    if lost := array.size - known.size:
        figures.append(f"{lost:,} {missing}")
    return ", ".join(figures)


def _plain(number: Any) -> str:
    return f"{float(number):.6g}" if number.dtype.kind == "f" else str(number)
