"""What a model is judged by. A new metric is one meter and one line in the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farrier_contracts.errors import UsageError

from .custom import load_function
from .errors import Cosine, MeanAbsolute, MeanSquared, Perplexity
from .model import Meter, Metric, drop
from .reference import Agreement, Likeness
from .scores import F1, Accuracy, AreaUnderCurve, TopK

__all__ = ["METRICS", "Meter", "Metric", "choose", "drop", "get"]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", Accuracy),
        Metric("top5", lambda: TopK(5)),
        Metric("auc", AreaUnderCurve),
        Metric("f1", F1),
        Metric("mae", MeanAbsolute, higher_is_better=False, relative=True),
        Metric("mse", MeanSquared, higher_is_better=False, relative=True),
        Metric("cosine", Cosine),
        Metric("perplexity", Perplexity, higher_is_better=False, relative=True),
        Metric("agreement", Agreement, needs_labels=False),
        Metric("likeness", Likeness, needs_labels=False),
    )
}


def get(name: str) -> Metric:
    """Return the metric called `name`, or the function of "file.py:function"; raises UsageError."""
    if name in METRICS:
        return METRICS[name]
    if name == "map":
        raise UsageError(
            "the metric 'map' comes with detection support; use agreement or your own file.py:function"
        )
    if ".py:" in name:
        file, _, function = name.rpartition(":")
        return load_function(Path(file), function)
    known = ", ".join([*METRICS, "file.py:function"])
    raise UsageError(f"unknown metric {name!r}; choose one of: {known}")


def choose(labels: np.ndarray | None, *, made_up: bool = False) -> Metric:
    """Return the metric that labels of this kind call for where none was named; `made_up`: the inputs are noise."""
    if labels is None and made_up:
        return METRICS["likeness"]
    if labels is None:
        return METRICS["agreement"]
    whole = np.issubdtype(labels.dtype, np.integer) or labels.dtype == np.bool_
    return METRICS["accuracy"] if whole else METRICS["mse"]
