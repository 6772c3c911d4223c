"""Describe models of XGBoost and LightGBM: set parameters, rounds, features that matter."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.sklearn_estimators import (
    changed_parameters,
    important,
)
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    is_number,
    listed,
    number,
    phrase,
    shape_of,
)
from kimi_magic.context.summaries.reprs import bounded_repr, label
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count

__all__ = ["describe"]

MAX_CALL = 300
MOST_IMPORTANT = 8
FEW_CLASSES = 10


def describe(value: Any, limit: int, detail: Detail) -> str:
    library = type(value).__mro__[-2].__module__.partition(".")[0]
    for kind in type(value).__mro__:
        if kind.__module__.startswith(("xgboost", "lightgbm")):
            library = kind.__module__.partition(".")[0]
            break
    if hasattr(type(value), "get_params") and hasattr(type(value), "fit"):
        return fitted_lines(list(_estimator(value, library, detail)), limit)
    if type_name(value) == "Booster":
        return fitted_lines(list(_booster(value, library, detail)), limit)
    return _data(value, library)


def _estimator(value: Any, library: str, detail: Detail) -> Iterator[str]:
    parameters = list(changed_parameters(value, detail))
    call = clip(f"{type_name(value)}({', '.join(parameters)})", MAX_CALL)
    booster = attribute(value, "booster_") or _of_xgboost(value)
    if booster is None:
        yield f"{library} {call}, not fitted"
        return
    yield phrase(f"{library} {call}", *_fitted(value, booster, detail))
    yield from _evaluated(value, detail)
    if detail.values != "schema":
        names = attribute(value, "feature_name_")
        if isinstance(names, list):
            yield from _importances(names, attribute(value, "feature_importances_"), "splits")
        else:
            yield from important(value, detail)


def _of_xgboost(value: Any) -> Any:
    known = attribute(value, "__sklearn_is_fitted__")
    return attribute(value, "get_booster")() if known is not None and known() else None


def _fitted(value: Any, booster: Any, detail: Detail) -> Iterator[str]:
    features = attribute(value, "n_features_in_")
    yield f"fitted on {count(int(features), 'feature')}" if is_number(features) else "fitted"
    classes = attribute(value, "classes_")
    if classes is not None and len(classes):
        shown = detail.values == "rows" and len(classes) <= FEW_CLASSES
        yield f"{len(classes)} classes{f': {listed(classes.tolist())}' if shown else ''}"
    yield from _rounds(booster)
    best = attribute(value, "best_iteration_", attribute(value, "best_iteration"))
    if is_number(best) and best:
        yield f"best iteration {number(best)}"


def _rounds(booster: Any) -> Iterator[str]:
    for name in ("num_boosted_rounds", "current_iteration"):
        if (told := attribute(booster, name)) is not None:
            yield count(int(told()), "round")
            return


def _evaluated(value: Any, detail: Detail) -> Iterator[str]:
    """Tell the last figures of the data that were watched during the fit."""
    results = attribute(value, "evals_result_")
    if not isinstance(results, dict) or detail.values == "schema":
        return
    said = [f"{name} {metric} {number(list(values)[-1])}"
            for name, metrics in results.items() for metric, values in metrics.items()
            if len(values)]  # fmt: skip
    if said:
        yield f"evaluated: {listed(said)}"


def _booster(value: Any, library: str, detail: Detail) -> Iterator[str]:
    names = attribute(value, "feature_names")
    told = attribute(value, "feature_name")
    if told is not None:
        names = told()
    features = attribute(value, "num_features", attribute(value, "num_feature"))
    best = attribute(value, "best_iteration")
    yield phrase(
        f"{library} Booster",
        *_rounds(value),
        count(int(features()), "feature") if features is not None else None,
        f"best iteration {number(best)}" if is_number(best) and best > 0 else None,
        f"objective {found}" if (found := _objective(value)) else None,
    )
    params = attribute(value, "params")
    if isinstance(params, dict):
        params = {name: one for name, one in params.items() if not _is_default(library, name, one)}
    if params:
        shown = detail.values == "rows"
        said = [f"{key}={bounded_repr(one, 40)}" if shown else key for key, one in params.items()]
        yield f"parameters: {listed(said)}"
    if detail.values == "schema":
        if isinstance(names, list):
            yield f"features: {listed(names, most=30)}"
        return
    score = attribute(value, "get_score")
    if score is not None:
        weights = score(importance_type="gain")
        if isinstance(weights, dict):
            yield from _importances(list(weights), list(weights.values()), "gain")
    elif (ask := attribute(value, "feature_importance")) is not None and isinstance(names, list):
        yield from _importances(names, ask(), "splits")


def _is_default(library: str, name: str, given: Any) -> bool:
    """Return True for what the estimators of LightGBM pass to their booster anyway."""
    model = attribute(sys.modules.get(library), "LGBMModel")
    if name in ("verbose", "verbosity", "num_threads") or given is None:
        return True
    if model is None:
        return False
    known = inspect.signature(model.__init__).parameters.get(name)
    return known is not None and bool(known.default == given)


def _objective(value: Any) -> str:
    save = attribute(value, "save_config")
    if save is None:
        return ""
    learner = json.loads(save()).get("learner", {})
    return str(learner.get("objective", {}).get("name", ""))


def _importances(names: list[str], weights: Any, by: str) -> Iterator[str]:
    if weights is None or len(weights) != len(names):
        return
    order = sorted(range(len(names)), key=lambda at: -float(weights[at]))
    said = [f"{label(names[at], 40)} {number(weights[at], 3)}" for at in order[:MOST_IMPORTANT]]
    yield f"importances by {by}: {listed(said, len(names))}"


def _data(value: Any, library: str) -> str:
    """Describe a DMatrix or a Dataset; one that LightGBM has not built yet is left so."""
    name = f"{library} {type_name(value)}"
    rows = attribute(value, "num_row")
    if rows is not None:
        return f"{name}, {count(int(rows()), 'row')} × {count(int(value.num_col()), 'feature')}"
    if attribute(value, "_handle") is None:
        data = attribute(value, "data")
        return f"{name}, not built yet, of {type_name(data)} {shape_of(data)}".rstrip()
    rows, features = int(value.num_data()), int(value.num_feature())
    return f"{name}, {count(rows, 'row')} × {count(features, 'feature')}"
