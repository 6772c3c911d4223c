"""Describe estimators of scikit-learn and its kin: their parameters and fitted attributes."""

from __future__ import annotations

from typing import Any

from kimi_magic.context.summaries.reprs import Brief, Repr
from kimi_magic.context.walker import type_name

__all__ = ["describe_estimator"]

MAX_VALUE = 200


def describe_estimator(value: Any, brief: Brief) -> str | None:
    """Describe a value that has ``get_params`` and ``fit``."""
    kind = type(value)
    if issubclass(kind, type) or not (hasattr(kind, "get_params") and hasattr(kind, "fit")):
        return None
    shown = Repr(brief)
    params = value.get_params(deep=False)
    lines = [f"{type_name(value)}, an estimator"]
    lines += [f"- {name}={shown.of(params[name], MAX_VALUE)}" for name in params]
    # scikit-learn's convention: the names of fitted attributes end in an underscore.
    learned = [name for name in vars(value) if name.endswith("_") and not name.startswith("_")]
    if learned or hasattr(kind, "__sklearn_is_fitted__"):
        lines.append("fitted:" if learned else _fitted(value))
    for name in learned:
        lines.append(f"- {name} = {shown.of(vars(value)[name], MAX_VALUE)}")
    return "\n".join(lines)


def _fitted(value: Any) -> str:
    return "fitted" if value.__sklearn_is_fitted__() else "not fitted"
