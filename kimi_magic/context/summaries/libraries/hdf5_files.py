"""Describe files of HDF5 by h5py: groups, datasets with shape and dtype, attributes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import attribute, fitted_lines, listed, phrase
from kimi_magic.context.summaries.reprs import bounded_repr, label
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["describe"]

MOST_MEMBERS = 20  # of a group
MOST_LINES = 40
MOST_ATTRIBUTES = 6
MAX_DEPTH = 6
MANY = 10_000  # members; h5py reads all names of a group before the first one
LARGE = 100  # values of an attribute


def describe(value: Any, limit: int, detail: Detail) -> str | None:
    """Describe a file, group or dataset; the data of a dataset are not read."""
    name = type_name(value)
    if not value:
        return f"h5py {name}, closed"
    if hasattr(type(value), "dtype"):
        return phrase(f"h5py Dataset {value.name}", _dataset(value), _attributes(value, detail))
    if not hasattr(type(value), "get"):
        return None
    if name == "File":
        heading = f"h5py File {value.filename if detail.values == 'rows' else ''}".rstrip()
        heading = phrase(heading, f"open with mode {value.mode}")
    else:
        heading = f"h5py {name} {value.name}"
    lines = [phrase(heading, count(len(value), "member"), _attributes(value, detail))]
    lines += islice(_members(value, detail, 0), MOST_LINES)
    return fitted_lines(lines, limit)


def _names(parent: Any) -> list[str]:
    if len(parent) <= MANY:
        return list(islice(parent, MOST_MEMBERS))
    names = (parent.id.get_objname_by_idx(at) for at in range(MOST_MEMBERS))
    return [name.decode("utf-8", "replace") for name in names]


def _members(parent: Any, detail: Detail, depth: int) -> Iterator[str]:
    indent = "  " * depth
    names = _names(parent)
    for name in names:
        # Another file's members would be opened with it.
        link = parent.get(name, getlink=True)
        if type_name(link) != "HardLink":
            path = attribute(link, "path", "") if detail.values == "rows" else ""
            yield f"{indent}- {label(name)}: {type_name(link)} {clip(str(path), 80)}".rstrip()
            continue
        try:
            member = parent[name]
        except USER_ERRORS as error:
            yield f"{indent}- {label(name)}: cannot be read ({type_name(error)})"
            continue
        if hasattr(type(member), "dtype") and hasattr(type(member), "shape"):
            said = phrase(_dataset(member), _attributes(member, detail))
            yield f"{indent}- {label(name)}: {said}"
        elif hasattr(type(member), "get"):
            yield phrase(f"{indent}- {label(name)}/", _attributes(member, detail))
            if depth < MAX_DEPTH:
                yield from _members(member, detail, depth + 1)
            else:
                yield f"{indent}  … {count(len(member), 'member')}"
        else:
            yield f"{indent}- {label(name)}: {type_name(member)}"
    if (left := len(parent) - len(names)) > 0:
        yield f"{indent}- … {left:,} more"


def _dataset(dataset: Any) -> str:
    if dataset.shape is None:
        return "empty dataset"
    shape = "scalar" if dataset.shape == () else f"shape {dataset.shape}"
    chunks = dataset.chunks and f"chunks {dataset.chunks}"
    return phrase(shape, clip(_dtype(dataset.dtype), 120), chunks or None, dataset.compression)


def _dtype(dtype: Any) -> str:
    fields = dtype.names
    if fields:
        return f"fields {listed([f'{name} {_dtype(dtype[name])}' for name in fields], most=6)}"
    if (string := (dtype.metadata or {}).get("vlen")) is not None:
        return "str" if string in (str, bytes) else f"lists of {string}"
    return str(dtype)


def _attributes(member: Any, detail: Detail) -> str:
    attributes = member.attrs
    total = len(attributes)
    if not total:
        return ""
    said = []
    for name in islice(attributes, MOST_ATTRIBUTES):
        if detail.values != "rows" or prod(attributes.get_id(name).shape or ()) > LARGE:
            said.append(label(name))
            continue
        one = attribute(attributes[name], "tolist", None)
        value = one() if one is not None else attributes[name]
        said.append(f"{label(name)}={bounded_repr(value, 60)}")
    return f"attributes {listed(said, total)}"
