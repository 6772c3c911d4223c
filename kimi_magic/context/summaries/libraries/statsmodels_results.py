"""Describe models of statsmodels and their results, by the figures of ``summary()``."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    hide_literals,
    is_number,
    listed,
    number,
    phrase,
    span,
)
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count

__all__ = ["describe"]

MOST_COEFFICIENTS = 20
MAX_FORMULA = 300
WORK = 100_000_000  # multiplications for the eigenvalues, about 50 ms
FEWEST, DIAGNOSED = 8, 500_000  # residuals
SMALL_EIGENVALUE, LARGE_CONDITION = 1e-10, 1000  # where summary() warns
_LONG = ("llf", "aic", "bic")  # whose differences count
_PARTS = ("observed", "trend", "seasonal", "resid")

_FIT = (
    ("rsquared", "R²"),
    ("rsquared_adj", "adjusted R²"),
    ("rsquared_within", "R² within"),
    ("prsquared", "pseudo R²"),
    ("fvalue", "F"),
    ("f_pvalue", "p of F"),
    ("llf", "log-likelihood"),
    ("llr_pvalue", "p of the likelihood ratio"),
    ("deviance", "deviance"),
    ("pearson_chi2", "Pearson χ²"),
    ("sse", "SSE"),
    ("aic", "AIC"),
    ("bic", "BIC"),
    ("scale", "scale"),
)


def describe(value: Any, limit: int, detail: Detail) -> str | None:
    """Describe the results of a fit, a model, or a series taken apart."""
    if type_name(value) == "DecomposeResult":
        return _decomposed(value, detail)
    if any(kind.__module__ == "statsmodels.base.model" for kind in type(value).__mro__) and (
        hasattr(value, "endog") and not hasattr(value, "params")
    ):
        return _model(value, limit, detail)
    model = attribute(value, "model")
    kind = type_name(model) if model is not None else type_name(value).removesuffix("Wrapper")
    lines = [phrase(f"statsmodels {kind} results", *_kind(value, model))]
    if formula := _formula(model, detail):
        lines.append(formula)
    if detail.values == "schema":
        lines.append(_terms(_names(value, model), detail))
        return fitted_lines(lines, limit)
    if figures := phrase(*_figures(value)):
        lines.append(figures)
    lines += _coefficients(value, model, detail)
    lines += _notes(value, model)
    return fitted_lines(lines, limit)


def _model(model: Any, limit: int, detail: Detail) -> str:
    lines = [phrase(f"statsmodels {type_name(model)} model, without results", *_kind(model, model))]
    if formula := _formula(model, detail):
        lines.append(formula)
    names = attribute(model, "exog_names") or []
    rows = attribute(model, "endog.shape", ("?",))[0]
    lines.append(f"n = {rows:,}" if isinstance(rows, int) else "without its data")
    if names and isinstance(names, list):
        lines.append(_terms(names, detail))
    return fitted_lines(lines, limit)


def _kind(value: Any, model: Any) -> Iterator[str]:
    """Tell what the class of the model leaves open: family, order, method."""
    # Logit and its kin have one as well, which says nothing new.
    family = attribute(model, "family") if type_name(model)[:2] in ("GL", "GE") else None
    if family is not None:
        link = attribute(family, "link")
        yield f"family {type_name(family)}" + (f" with link {type_name(link)}" if link else "")
    order, seasonal = attribute(model, "order"), attribute(model, "seasonal_order")
    if isinstance(order, tuple):
        yield f"order {order}"
    if isinstance(seasonal, tuple) and any(seasonal):
        yield f"seasonal order {seasonal}"
    if is_number(lags := attribute(value, "k_ar")) and not isinstance(order, tuple):
        yield count(int(lags), "lag")
    for name in ("trend", "seasonal", "seasonal_periods", "damped_trend"):
        if (of := attribute(model, name)) and isinstance(of, str | int):
            yield f"{name.replace('_', ' ')} {of}"
    if is_number(quantile := attribute(value, "q")) and "Quant" in type_name(model):
        yield f"quantile {number(quantile)}"
    if isinstance(method := attribute(value, "method"), str) and value is not model:
        yield f"fitted by {method}"


def _formula(model: Any, detail: Detail) -> str:
    formula = attribute(model, "formula")
    if not isinstance(formula, str):
        explained = attribute(model, "endog_names")
        # «y» is what statsmodels calls an array without a name.
        of = isinstance(explained, str) and explained != "y"
        return f"of {clip(explained, 80)}" if of else ""
    formula = " ".join(formula.split())
    return clip(formula if detail.values == "rows" else hide_literals(formula), MAX_FORMULA)


def _names(value: Any, model: Any) -> list[str]:
    """Return the names of the coefficients."""
    params = attribute(value, "params")
    if isinstance(params, dict):
        return [str(name) for name in params]
    labels = attribute(params, "index")
    if labels is not None and not callable(labels):
        return [str(name) for name in labels]
    names = attribute(model, "param_names") or attribute(model, "exog_names") or []
    size = len(params) if hasattr(type(params), "__len__") else 0
    names = [str(name) for name in names]
    return names if len(names) == size else [f"x{at}" for at in range(size)]


def _terms(names: list[str], detail: Detail) -> str:
    if detail.values != "rows":
        names = list(dict.fromkeys(map(hide_literals, names)))
    return f"{count(len(names), 'term')}: {listed(names, most=30)}"


def _figures(value: Any) -> Iterator[str]:
    if _is_known(rows := attribute(value, "nobs")):
        yield f"n = {number(rows)}"
    if _is_known(freedom := attribute(value, "df_resid")):
        yield f"{number(freedom)} degrees of freedom"
    has_r2 = _is_known(attribute(value, "rsquared"))
    for name, words in _FIT:
        # Of least squares these say nothing beside R² and F.
        if has_r2 and name in ("scale", "deviance", "pearson_chi2", "sse"):
            continue
        if _is_known(figure := attribute(value, name)) and not (name == "scale" and figure == 1):
            digits = 3 if words.startswith("p of") else 6 if name in _LONG else 4
            yield f"{words} {number(figure, digits)}"
    kind = attribute(value, "cov_type")
    if isinstance(kind, str) and kind:
        yield f"covariance {kind}"


def _is_known(figure: Any) -> bool:
    return is_number(figure) and math.isfinite(figure)


def _coefficients(value: Any, model: Any, detail: Detail) -> Iterator[str]:
    params = attribute(value, "params")
    if isinstance(params, dict):
        shown = [f"{name} {number(one)}" for name, one in params.items() if _is_known(one)]
        yield f"parameters: {listed(shown)}"
        return
    if getattr(params, "ndim", 1) != 1:
        yield from _matrix(params, _names(value, model), detail)
        return
    if params is None:
        return
    names = _names(value, model)
    columns = [list(params)]
    for name in ("bse", "pvalues"):
        column = attribute(value, name)
        columns.append(list(column) if column is not None else [None] * len(names))
    statistic = "t" if attribute(value, "use_t") else "z"
    yield f"coefficients, with standard errors and p of {statistic}:"
    rows = list(zip(names, *columns, strict=False))
    for name, estimate, error, p in rows[:MOST_COEFFICIENTS]:
        told = name if detail.values == "rows" else hide_literals(name)
        about = phrase(_known("se", error), _known("p", p))
        yield f"- {clip(told, 60)}: {number(estimate)}{f' ({about})' if about else ''}"
    if (left := len(rows) - MOST_COEFFICIENTS) > 0:
        yield f"- … {left:,} more"


def _matrix(params: Any, names: list[str], detail: Detail) -> Iterator[str]:
    """Describe coefficients of several equations, those of one term in a line."""
    rows, equations = params.shape
    yield f"coefficients of {count(equations, 'equation')}, by term:"
    values = params.to_numpy() if hasattr(params, "to_numpy") else params
    for name, row in list(zip(names, values.tolist(), strict=False))[:MOST_COEFFICIENTS]:
        shown = name if detail.values == "rows" else hide_literals(name)
        yield f"- {clip(shown, 60)}: {listed(map(number, row), equations, most=8)}"
    if (left := rows - MOST_COEFFICIENTS) > 0:
        yield f"- … {left:,} more"


def _known(name: str, figure: Any) -> str:
    if figure is None:
        return ""
    if name == "p" and figure < 0.001:
        return "p < 0.001"
    return f"{name} {number(figure, 3)}"


def _notes(value: Any, model: Any) -> Iterator[str]:
    """Give the warnings of summary(), and what it says of the residuals of least squares."""
    converged = attribute(value, "converged")
    if converged is None:
        retvals = attribute(value, "mle_retvals")
        converged = retvals.get("converged") if isinstance(retvals, dict) else None
    if converged is not None and not converged:
        yield "warning: the fit did not converge"
    if not _is_known(attribute(value, "rsquared")):
        return
    residuals = attribute(value, "wresid")
    if residuals is not None and FEWEST <= len(residuals) <= DIAGNOSED:
        yield _residuals(sys.modules["numpy"].asarray(residuals))
    rows, terms = attribute(model, "wexog.shape", (0, 0))[:2]
    if not rows or rows * terms * terms > WORK:
        return
    if terms > rows:
        yield "warning: the input rank is higher than the number of observations"
    least = attribute(value, "eigenvals", [1])[-1]
    condition = attribute(value, "condition_number", 0)
    if least < SMALL_EIGENVALUE:
        yield (
            f"warning: the smallest eigenvalue is {number(least, 3)}; there might be strong "
            "multicollinearity, or the design matrix is singular"
        )
    elif condition > LARGE_CONDITION:
        yield (
            f"warning: the condition number is large, {number(condition, 3)}; there might be "
            "strong multicollinearity or other numerical problems"
        )


def _residuals(residuals: Any) -> str:
    """Test residuals as summary() does, whose tests are imported by it alone."""
    square = (residuals**2).sum()
    watson = ((residuals[1:] - residuals[:-1]) ** 2).sum() / square
    centred = residuals - residuals.mean()
    variance = (centred**2).mean()
    skew = (centred**3).mean() / variance**1.5
    kurtosis = (centred**4).mean() / variance**2
    jarque_bera = len(residuals) / 6 * (skew**2 + (kurtosis - 3) ** 2 / 4)
    return (
        f"residuals: Durbin-Watson {number(watson, 3)}, "
        f"Jarque-Bera p {number(math.exp(-jarque_bera / 2), 3)}, "  # of χ² with 2 degrees
        f"skew {number(skew, 3)}, kurtosis {number(kurtosis, 3)}"
    )


def _decomposed(value: Any, detail: Detail) -> str:
    lines = [f"statsmodels DecomposeResult of {len(value.observed):,} values"]
    for name in _PARTS:
        part = attribute(value, name)
        if part is not None:
            about = span(part) if detail.values != "schema" else ""
            lines.append(f"- {name}{f': {about}' if about else ''}")
    return "\n".join(lines)
