"""Models and results of statsmodels."""

from __future__ import annotations

from typing import Any

import pytest

from tests.context.golden import Case


def data() -> Any:
    np: Any = pytest.importorskip("numpy")
    pd: Any = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    city = rng.choice(["Bonn", "Oslo"], 80)
    y = 2 * x + (city == "Oslo") + rng.normal(size=80)
    frame = {"x": x, "city": city, "y": y, "n": rng.poisson(3, 80), "up": (y > 0).astype(int)}
    return pd.DataFrame(frame)


def formula() -> Any:
    return pytest.importorskip("statsmodels.formula.api")


def collinear() -> Any:
    np: Any = pytest.importorskip("numpy")
    year = np.arange(1980.0, 2020.0)
    design = np.column_stack([np.ones(40), year])
    return pytest.importorskip("statsmodels.api").OLS(np.sin(year) + year / 10, design).fit()


def poisson() -> Any:
    sm: Any = pytest.importorskip("statsmodels.api")
    pytest.importorskip("statsmodels", "0.15")  # has another BIC
    return formula().glm("n ~ x", data(), family=sm.families.Poisson()).fit()


def series() -> Any:
    np: Any = pytest.importorskip("numpy")
    months = np.arange(96)
    return 10 + months / 12 + 3 * np.sin(months / 6 * np.pi) + np.cos(months * months)


def smoothed() -> Any:
    tsa: Any = pytest.importorskip("statsmodels.tsa.api")
    model = tsa.SimpleExpSmoothing(series(), initialization_method="heuristic")
    return model.fit(smoothing_level=0.5, optimized=False)


CASES = {
    "ols": Case(lambda: formula().ols("y ~ x + C(city)", data()).fit(), "Oslo Bonn"),
    "ols-robust": Case(
        lambda: formula().ols("y ~ C(city, Treatment('Oslo'))", data()).fit(cov_type="HC3"), "Bonn"
    ),
    "ols-collinear": Case(collinear),
    "ols-without-results": Case(lambda: formula().ols("y ~ x", data())),
    "poisson": Case(poisson),
    "logit": Case(lambda: formula().logit("up ~ x", data()).fit(disp=0)),
    "exponential-smoothing": Case(smoothed),
    "decomposition": Case(
        lambda: pytest.importorskip("statsmodels.tsa.api").seasonal_decompose(series(), period=12)
    ),
}
