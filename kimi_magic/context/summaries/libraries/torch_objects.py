"""Describe tensors and modules of PyTorch: shape, dtype, device; parameters by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Any

from kimi_magic.context.summaries.arrays import describe_array
from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import attribute, fitted_lines, phrase
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["describe"]

MOST_LAYERS = 16
MOST_MODULES = 20_000
MAX_LAYER = 100


def describe(value: Any, limit: int, detail: Detail) -> str | None:
    if hasattr(type(value), "named_modules"):
        return fitted_lines(list(_module(value)), limit)
    if not hasattr(type(value), "requires_grad"):
        return None
    return _tensor(value, detail)


def _tensor(value: Any, detail: Detail) -> str:
    kind = "Parameter" if type_name(value) == "Parameter" else "Tensor"
    graph = attribute(value, "grad_fn")
    facts = phrase(
        f"on {value.device}" if str(value.device) != "cpu" else None,
        f"layout {_short(value.layout)}" if "strided" not in str(value.layout) else None,
        "requires grad" if value.requires_grad else None,
        f"made by {type_name(graph)}" if graph is not None else None,
    )
    heading = phrase(
        f"torch {kind}, shape {tuple(value.shape)}, dtype {_short(value.dtype)}", facts
    )
    if detail.values == "schema" or "strided" not in str(value.layout):
        return heading
    try:
        # A detached tensor shares its memory, and nothing of what is read enters the graph.
        own = describe_array(value.detach(), detail.values)
    except USER_ERRORS:  # on the device «meta», or quantized
        own = None
    if own is None:
        return heading
    first, _, rest = own.partition("\n")
    mark = f"dtype {_short(value.dtype)}"
    figures = first.partition(mark)[2].removeprefix(f", on {value.device}")
    return f"{heading}{figures}{rest and chr(10)}{rest}"


def _short(name: object) -> str:
    return str(name).removeprefix("torch.")


def _module(value: Any) -> Iterator[str]:
    sizes = [
        (name, _size(one), one) for name, one in islice(value.named_parameters(), MOST_MODULES)
    ]
    total = sum(size for _, size, _ in sizes)
    frozen = sum(size for _, size, one in sizes if not one.requires_grad)
    yield phrase(
        f"torch module {type_name(value)}",
        count(total, "parameter"),
        ("all frozen" if frozen == total else f"{total - frozen:,} trainable") if frozen else None,
        *_each(_short(one.dtype) for _, _, one in sizes),
        *_each(f"on {one.device}" for _, _, one in sizes),
        "training mode" if value.training else "evaluation mode",
    )
    layers = list(islice(_layers(value), MOST_MODULES))
    kinds = Counter(type_name(one) for _, one in layers)
    if len(layers) <= MOST_LAYERS:
        for name, one in layers:
            yield f"- {name or 'itself'}: {_layer(one)}"
        return
    yield "layers: " + ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common(8))
    children = list(value.named_children())
    for name, one in children[:MOST_LAYERS]:
        own = sum(size for path, size, _ in sizes if path.startswith(f"{name}."))
        inside = sum(1 for _ in islice(one.modules(), MOST_MODULES)) - 1
        about = f"{type_name(one)} of {count(inside, 'module')}" if inside else _call(one)
        yield f"- {name}: {about}, {count(own, 'parameter')}"
    if (left := len(children) - MOST_LAYERS) > 0:
        yield f"- … {left:,} more"


def _size(parameter: Any) -> int:
    try:
        return prod(parameter.shape)
    except USER_ERRORS:  # a lazy one has no shape yet
        return 0


def _each(found: Iterator[str]) -> list[str]:
    return [" and ".join(Counter(found))]


def _layers(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the modules that hold no others."""
    for name, one in value.named_modules():
        if next(iter(one.children()), None) is None:
            yield name, one


def _layer(one: Any) -> str:
    size = sum(_size(parameter) for parameter in one.parameters(recurse=False))
    return phrase(_call(one), count(size, "parameter") if size else None)


def _call(one: Any) -> str:
    extra = attribute(one, "extra_repr")
    try:
        text = str(extra()) if extra is not None else ""
    except USER_ERRORS:
        text = ""
    return f"{type_name(one)}({clip(' '.join(text.split()), MAX_LAYER)})"
