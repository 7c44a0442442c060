"""Models of rows and columns; scikit-learn, XGBoost and LightGBM answer. Runs in the model runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import skops.io
import xgboost
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.models.common import Reference, case

_ROWS = (0, 60, 120)  # one of each kind


def make_iris(folder: Path, files: Path) -> Reference:
    """A pipeline of scikit-learn, saved with skops; its classes have names."""
    data = load_iris(as_frame=True)
    kinds = data.target_names[data.target]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, kinds)
    skops.io.dump(model, folder / "model.skops")
    rows = data.data.iloc[list(_ROWS)]
    likeliest = [
        [{"label": str(model.classes_[place]), "score": float(row[place])} for place in np.argsort(-row)[:2]]
        for row in model.predict_proba(rows)
    ]
    labels = [str(label) for label in model.predict(rows)]
    columns = {str(name): [float(value) for value in rows[name]] for name in rows.columns}
    return {
        "task": "tabular-classification",
        "cases": [
            case({"ROWS": rows.to_numpy().tolist()}, labels),
            case({"ROWS": {"table": columns}}, labels),
            case({"ROWS": rows.to_numpy().tolist()}, likeliest, top_k=2),
        ],
    }


def make_forest(folder: Path, files: Path) -> Reference:
    """A pickle in a folder as Hugging Face's hub had it: ``config.json`` says which columns the model wants."""
    data = load_diabetes(as_frame=True)
    columns = [str(name) for name in data.data.columns[:4]]
    model = RandomForestRegressor(n_estimators=5, random_state=0).fit(data.data[columns], data.target)
    joblib.dump(model, folder / "model.joblib")
    said = {"sklearn": {"columns": columns, "model": {"file": "model.joblib"}, "task": "tabular-regression"}}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    rows = data.data[columns].iloc[list(_ROWS)]
    named = [{str(name): float(value) for name, value in row.items()} for row in rows.to_dict("records")]
    return {"task": "tabular-regression", "cases": [case({"ROWS": named}, model.predict(rows).tolist())]}


def make_boosted(folder: Path, files: Path) -> Reference:
    """XGBoost's own binary JSON."""
    data = load_iris()
    model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(data.data, data.target)
    model.save_model(folder / "model.ubj")
    rows = data.data[list(_ROWS)]
    return _numbers(rows, [str(label) for label in model.predict(rows)], "tabular-classification")


def make_leaves(folder: Path, files: Path) -> Reference:
    """LightGBM's text."""
    data = load_diabetes()
    model = lightgbm.LGBMRegressor(n_estimators=5, n_jobs=1, verbose=-1).fit(data.data, data.target)
    model.booster_.save_model(folder / "model.txt")
    rows = data.data[list(_ROWS)]
    return _numbers(rows, model.predict(rows).tolist(), "tabular-regression")


def _numbers(rows: Any, answer: object, task: str) -> Reference:
    return {"task": task, "cases": [case({"ROWS": rows.tolist()}, answer), case({"ROWS": {"data": rows.tolist()}}, answer)]}
