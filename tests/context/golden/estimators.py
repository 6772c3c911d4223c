"""Estimators of scikit-learn, LightGBM and XGBoost."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tests.context.golden import Case


def data() -> Any:
    pd: Any = pytest.importorskip("pandas")
    rows = range(120)
    return pd.DataFrame(
        {
            "age": [20.0 + n * 7 % 50 for n in rows],
            "fare": [n * 13 % 100 / 2 for n in rows],
            "port": [("Kiel", "Bonn", "Rome")[n * n % 3] for n in rows],
        }
    )


def pipeline() -> Any:
    pytest.importorskip("sklearn", "1.5")
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    prepare = ColumnTransformer(
        [
            ("numbers", numbers, ["age", "fare"]),
            ("port", OneHotEncoder(handle_unknown="ignore"), ["port"]),
        ]
    )
    return Pipeline([("prepare", prepare), ("model", Ridge(alpha=0.5))])


def fitted() -> Any:
    X = data()
    return pipeline().fit(X, 3 * X.age - X.fare + 20 * (X.port == "Kiel"))


def searched() -> Any:
    pytest.importorskip("sklearn", "1.5")
    from sklearn.model_selection import GridSearchCV

    X = data()
    search = GridSearchCV(pipeline(), {"model__alpha": [0.01, 1000.0]}, cv=3, n_jobs=1)
    return search.fit(X, 3 * X.age - X.fare + [n * n % 7 * 5 for n in range(120)])


def classes() -> Any:
    pytest.importorskip("sklearn", "1.5")
    from sklearn.tree import DecisionTreeClassifier

    X = data()
    return DecisionTreeClassifier(max_depth=2, random_state=0).fit(X[["age", "fare"]], X.port)


def encoder() -> Any:
    pytest.importorskip("sklearn", "1.5")
    from sklearn.preprocessing import OrdinalEncoder

    return OrdinalEncoder().fit(data()[["port"]])


def long() -> Any:
    pytest.importorskip("sklearn", "1.5")
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler

    steps: list[Any] = [(f"scale{n}", MinMaxScaler()) for n in range(100)]
    return Pipeline([*steps, ("model", LinearRegression())])


def lightgbm(*, booster: bool = False) -> Any:
    library: Any = pytest.importorskip("lightgbm", "4.5")
    X = data()[["age", "fare"]]
    model = library.LGBMRegressor(n_estimators=5, learning_rate=0.5, n_jobs=1, verbose=-1)
    model.fit(X, 3 * X.age - X.fare)
    return model.booster_ if booster else model


class Booster:
    """As XGBoost has it."""

    feature_names: ClassVar = ["age", "fare"]
    best_iteration = 7

    def num_boosted_rounds(self) -> int:
        return 10

    def num_features(self) -> int:
        return 2

    def save_config(self) -> str:
        return '{"learner": {"objective": {"name": "reg:squarederror"}}}'

    def get_score(self, importance_type: str) -> dict[str, float]:
        return {"age": 12.5, "fare": 3.25}


Booster.__module__ = "xgboost.core"
CASES = {
    "pipeline": Case(pipeline),
    "pipeline-fitted": Case(fitted, "Kiel Bonn"),
    "pipeline-long": Case(long),
    "search": Case(searched, "Kiel Rome 1000"),
    "tree": Case(classes, "Kiel Bonn"),
    "encoder": Case(encoder, "Kiel Bonn"),
    "lightgbm": Case(lightgbm),
    "lightgbm-booster": Case(lambda: lightgbm(booster=True)),
    "xgboost-booster": Case(Booster),
}
