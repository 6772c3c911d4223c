"""Describe estimators of scikit-learn: steps, set parameters, what was learned, searches."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    is_number,
    listed,
    number,
    phrase,
    shape_of,
)
from kimi_magic.context.summaries.reprs import Repr, label
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["changed_parameters", "describe", "important"]

MOST_STEPS = 10
MOST_LINES = 40
MOST_DEPTH = 4
MOST_LEARNED = 12
MOST_IMPORTANT = 8
MAX_PARAMETER, MAX_CALL = 80, 300
MAX_TREES = 500  # of a forest whose importances are the mean of its trees'
FEW_CLASSES = 10
# Parameters that are said elsewhere, or change nothing that is learned
_QUIET = {
    "steps", "transformers", "transformer_list", "estimators", "param_grid", "param_distributions",
    "n_jobs", "nthread", "verbose", "verbosity", "silent",
}  # fmt: skip
_PARTS = ("steps", "transformers", "transformer_list", "estimators")
_SEARCHED = ("param_grid", "param_distributions")
_SAID = {
    "n_features_in_", "feature_names_in_", "classes_", "n_classes_", "coef_", "intercept_",
    "feature_importances_", "best_estimator_", "best_params_", "best_score_", "best_index_",
    "cv_results_", "scorer_", "n_splits_", "refit_time_", "multimetric_", "n_outputs_",
    "estimators_", "estimator_", "transformers_", "steps_", "named_transformers_", "tree_",
    "sparse_output_", "output_indices_", "feature_name_", "best_iteration_", "evals_result_", "le_",
    "drop_idx_", "named_estimators_", "stack_method_", "fit_status_", "shape_fit_", "class_weight_",
    "support_", "dual_coef_", "fixed_vocabulary_", "categories_", "is_fitted_", "booster_",
    "objective_", "n_features_", "fitted_", "n_estimators_",
}  # fmt: skip


def describe(value: Any, limit: int, detail: Detail) -> str:
    """Describe an estimator, a pipeline or a search."""
    library = type(value).__module__.partition(".")[0]
    own = library == "__main__"
    heading = _call(value, detail) if own else f"{library} {_call(value, detail)}"
    lines = [phrase(heading, "an sklearn estimator" if own else None, *_state(value, detail))]
    lines += islice(_parts(value, detail, 0), MOST_LINES)
    lines += _search(value, detail)
    if detail.values != "schema":
        lines += important(value, detail)
    lines += _learned(value, detail)
    return fitted_lines(lines, limit)


def changed_parameters(value: Any, detail: Detail) -> Iterator[str]:
    """Name the parameters that differ from their defaults; estimators among them in short."""
    defaults: dict[str, Any] = {}
    # XGBoost's classes pass on what their base class takes.
    for kind in reversed(type(value).__mro__):
        if "__init__" in vars(kind) and kind is not object:
            parameters = inspect.signature(vars(kind)["__init__"]).parameters
            defaults |= {name: one.default for name, one in parameters.items()}
    searches = any(hasattr(value, name) for name in _SEARCHED)
    for name, given in value.get_params(deep=False).items():
        default = defaults.get(name, inspect.Parameter.empty)
        if _same(given, default) or name in _QUIET or (name == "estimator" and searches):
            continue
        if detail.values == "schema" or (detail.values != "rows" and not _is_plain(given)):
            yield name
        else:
            yield f"{name}={_parameter(given, detail)}"


def _same(given: Any, default: Any) -> bool:
    if given is default:
        return True
    if type(given) is not type(default):
        return False
    try:
        return bool(given == default) or (given != given and default != default)  # noqa: PLR0124
    except USER_ERRORS:
        return False


def _is_plain(given: Any) -> bool:
    return given is None or type(given) is bool or is_number(given)


def _parameter(given: Any, detail: Detail) -> str:
    if hasattr(type(given), "get_params"):
        return _call(given, detail) if not isinstance(given, type) else type_name(given)
    if isinstance(given, types.FunctionType):
        return given.__name__
    shape = attribute(given, "shape")
    if type(shape) is tuple and shape:
        return f"{type_name(given)} {shape_of(given)}"
    return Repr().of(given, MAX_PARAMETER, 6)


def _call(value: Any, detail: Detail) -> str:
    """Write an estimator as the call that makes it."""
    try:
        parameters = list(changed_parameters(value, detail))
    except USER_ERRORS:
        parameters = ["…"]
    if not parameters and any(hasattr(value, name) for name in _PARTS):
        return type_name(value)
    return clip(f"{type_name(value)}({', '.join(parameters)})", MAX_CALL)


def _state(value: Any, detail: Detail) -> Iterator[str]:
    if not is_fitted(value):
        yield "not fitted"
        return
    names = attribute(value, "feature_names_in_")
    text = "fitted"
    if is_number(features := attribute(value, "n_features_in_")):
        text += f" on {count(int(features), 'feature')}"
    if names is not None and len(names):
        text += f" ({listed(map(_named, names), len(names), most=10, room=200)})"
    yield text
    classes = attribute(value, "classes_")
    if classes is not None and hasattr(type(classes), "__len__"):
        some = len(classes) <= FEW_CLASSES and detail.values == "rows"
        of = f": {listed(_items(classes))}" if some else ""
        yield f"{len(classes)} classes{of}"


def _named(name: Any) -> str:
    return clip(str(name), 40)  # numpy's texts have a repr of their own


def _items(values: Any) -> list[Any]:
    return list(values.tolist() if hasattr(values, "tolist") else values)


def is_fitted(value: Any) -> bool:
    """Return True for an estimator that has learned; the last step tells it of a pipeline."""
    if hasattr(type(value), "__sklearn_is_fitted__"):
        try:
            return bool(value.__sklearn_is_fitted__())
        except USER_ERRORS:  # a FeatureUnion raises what its first unfitted part raises
            return False
    steps = attribute(value, "steps")
    if isinstance(steps, list) and steps:
        return any(is_fitted(step[1]) for step in steps if hasattr(step[1], "get_params"))
    return any(name.endswith("_") and not name.startswith("_") for name in vars(value))


def _parts(value: Any, detail: Detail, depth: int) -> Iterator[str]:
    """Describe the steps of a pipeline and the branches of a transformer, one a line."""
    if depth >= MOST_DEPTH:
        return
    indent = "  " * depth
    parts = list(_members(value))
    for at, (name, part, of) in enumerate(parts):
        # The last step is the model.
        if len(parts) > MOST_STEPS and MOST_STEPS - 2 < at < len(parts) - 1:
            if at == MOST_STEPS - 1:
                yield f"{indent}- … {len(parts) - MOST_STEPS:,} more"
            continue
        written = part if isinstance(part, str) else _call(part, detail)
        yield f"{indent}- {label(name)}{of}: {written}"
        if not isinstance(part, str):
            yield from _parts(part, detail, depth + 1)


def _members(value: Any) -> Iterator[tuple[str, Any, str]]:
    fitted = attribute(value, "transformers_")
    for name in ("best_estimator_", "estimator", "base_estimator"):
        inner = attribute(value, name)
        if hasattr(type(inner), "get_params") and any(map(partial(hasattr, value), _SEARCHED)):
            yield "best estimator" if name.startswith("best") else name, inner, ""
            return
    for name in _PARTS:
        found = attribute(value, name)
        if name == "transformers" and isinstance(fitted, list):
            found = fitted
        if not isinstance(found, list | tuple):
            continue
        for part in found:
            if not isinstance(part, list | tuple) or len(part) < 2:
                continue
            of = f" ({_columns(part[2])})" if len(part) > 2 else ""
            if of == " (0 columns)" and part[0] == "remainder":
                continue
            yield str(part[0]), "passthrough" if part[1] is None else part[1], of
        return


def _columns(columns: Any) -> str:
    if isinstance(columns, str | int):
        return label(columns)
    if isinstance(columns, slice) or callable(columns):
        return "selected when fitted" if callable(columns) else str(columns)
    found = _items(columns) if hasattr(type(columns), "__len__") else []
    if not found:
        return "0 columns"
    if all(type(one) is bool for one in found):
        return f"{sum(found)} columns"
    return listed(found, most=8, room=160)


def _search(value: Any, detail: Detail) -> Iterator[str]:
    """Tell the best candidate of a search, or what it will try."""
    grid = attribute(value, "param_grid", attribute(value, "param_distributions"))
    best = attribute(value, "best_params_")
    if isinstance(best, dict):
        chosen = [
            f"{name}={Repr().of(one, 60)}" if detail.values == "rows" or _is_plain(one) else name
            for name, one in best.items()
        ]
        if detail.values == "schema":
            yield f"best of {_candidates(value)}: {listed(best)}"
            return
        score = attribute(value, "best_score_")
        splits = attribute(value, "n_splits_")
        yield (
            f"best score {number(score)}, the mean of {splits} splits, "
            f"of {_candidates(value)}: {listed(chosen)}"
        )
        yield from _spread_of_scores(value)
    if isinstance(grid, dict | list) and detail.values == "rows":
        yield f"{'tried' if isinstance(best, dict) else 'tries'} {Repr().of(grid, MAX_CALL)}"


def _candidates(value: Any) -> str:
    results = attribute(value, "cv_results_")
    tried = len(results["params"]) if isinstance(results, dict) and "params" in results else 0
    return count(tried, "candidate")


def _spread_of_scores(value: Any) -> Iterator[str]:
    results = attribute(value, "cv_results_") or {}
    scores = results.get("mean_test_score")
    at = attribute(value, "best_index_")
    if scores is None or not is_number(at):
        return
    deviation = results.get("std_test_score", {at: None})[at]
    failed = int((scores != scores).sum())  # noqa: PLR0124 - NaN
    yield phrase(
        f"scores of the candidates from {number(scores.min())} to {number(scores.max())}",
        f"std of the best {number(deviation, 3)}" if deviation is not None else None,
        f"{failed} failed" if failed else None,
    )


def important(value: Any, detail: Detail) -> Iterator[str]:
    """Name the features of most weight in a linear model or an ensemble of trees."""
    steps = attribute(value, "steps")
    inner = attribute(value, "best_estimator_")
    if inner is not None:
        yield from important(inner, detail)
        return
    model, names = value, attribute(value, "feature_names_in_")
    if isinstance(steps, list) and steps:
        model = steps[-1][1]
        names = attribute(model, "feature_names_in_")
        if names is None:
            names = _names_before(value)
            if names is not None and detail.values != "rows":
                names = _without_categories(value, names)
    weights, words = _weights(model)
    if weights is None:
        return
    flat = weights.ravel() if weights.ndim == 1 or weights.shape[0] == 1 else None
    if flat is None:  # a row for each class
        size = shape_of(weights)
        weights = abs(weights).mean(axis=0)
        words, flat = f"{words} of shape {size}, mean sizes", weights
    order = abs(flat).argsort()[::-1][:MOST_IMPORTANT].tolist()
    if names is None or len(names) != len(flat):
        names = [f"x{at}" for at in range(len(flat))]
    told = [f"{_named(names[at])} {number(flat[at], 3)}" for at in order]
    text = f"{words}{' (largest)' if len(flat) > len(told) else ''}: {listed(told, len(flat))}"
    intercept: Any = attribute(model, "intercept_") if words.startswith("coef") else None
    if is_number(intercept) or attribute(intercept, "size") == 1:
        one = intercept if is_number(intercept) else intercept.ravel()[0]
        text += f"; intercept {number(one)}"
    yield text


def _names_before(pipeline: Any) -> Any:
    """Return the names of the features that reach the last step, where no step hides them."""
    names = attribute(pipeline, "feature_names_in_")
    for step in pipeline.steps[:-1]:
        part = step[1]
        if part is None or part == "passthrough":
            continue
        told = attribute(part, "get_feature_names_out")
        try:
            names = told(names) if told is not None else None
        except USER_ERRORS:
            return None
        if names is None:
            return None
    return names


def _without_categories(pipeline: Any, features: Iterable[Any]) -> list[str]:
    """Put an ellipsis for the category in the name of a feature that an encoder made of it."""
    own = [str(name) for name in attribute(pipeline, "feature_names_in_", ())]
    hidden = []
    for name in map(str, features):
        step, mark, feature = name.rpartition("__")
        of = max((one for one in own if feature.startswith(one)), key=len, default="")
        hidden.append(name if feature in own else f"{step}{mark}{of}…")
    return hidden


def _weights(model: Any) -> tuple[Any, str]:
    numpy: Any = sys.modules.get("numpy")
    trees = attribute(model, "estimators_", ())
    many = hasattr(type(trees), "__len__") and len(trees) > MAX_TREES
    for name, words in (("coef_", "coefficients"), ("feature_importances_", "importances")):
        if name == "feature_importances_" and many:
            continue
        found = attribute(model, name)
        if numpy is not None and type(found) is numpy.ndarray and found.dtype.kind in "fiu":
            return found, words
    return None, ""


def _learned(value: Any, detail: Detail) -> Iterator[str]:
    """Tell further fitted attributes, whose names end in an underscore by convention."""
    found = [name for name in vars(value)
             if name.endswith("_") and not name.startswith("_") and name not in _SAID]  # fmt: skip
    if (categories := attribute(value, "categories_")) and isinstance(categories, list):
        yield f"categories: {_categories(value, categories, detail)}"
    said = [f"{name} {_about(vars(value)[name], detail)}".strip() for name in found[:MOST_LEARNED]]
    if said:
        yield f"learned: {listed(said, len(found), most=MOST_LEARNED, room=500)}"
    model = attribute(value, "tree_")
    if model is not None and is_number(attribute(model, "node_count")):
        yield f"tree of {count(int(model.node_count), 'node')}, depth {model.max_depth}"
    if (trees := attribute(value, "estimators_")) is not None and hasattr(trees, "__len__"):
        yield f"{len(trees):,} fitted estimators"


def _categories(value: Any, categories: list[Any], detail: Detail) -> str:
    names = attribute(value, "feature_names_in_")
    said = []
    for at, found in enumerate(categories[:MOST_LEARNED]):
        name = _named(names[at]) if names is not None and at < len(names) else f"x{at}"
        some = f": {listed(map(_named, found), len(found), most=6, room=80)}"
        said.append(f"{name} ({len(found)}{some if detail.values == 'rows' else ''})")
    return listed(said, len(categories), room=600)


def _about(one: Any, detail: Detail) -> str:
    shape = attribute(one, "shape")
    if type(shape) is tuple and shape:
        small = attribute(one, "size", 99) <= 4 and attribute(one, "dtype.kind") in ("f", "i")
        if small and detail.values == "rows":
            return f"[{', '.join(number(item) for item in one.ravel().tolist())}]"
        return f"of shape {shape}"
    if _is_plain(one):
        return number(one) if is_number(one) and detail.values != "schema" else ""
    if type(one) is str:
        return label(one, 40) if detail.values == "rows" else ""
    if isinstance(one, list | tuple | dict | set):
        return f"of {count(len(one), 'item')}"
    return type_name(one)
