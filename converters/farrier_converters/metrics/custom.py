"""A user's own metric: a function in a Python file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from .model import Metric


def load_function(file: Path, name: str) -> Metric:
    """Return `name(outputs, labels)` of a file as a metric; raises UsageError.

    It gets all rows at once: the output array (a list of arrays for several outputs) and the labels. Higher is
    better unless the function has an attribute `higher_is_better = False`.
    """
    if not file.is_file():
        raise UsageError(f"the metric's file {file} does not exist")
    spec = importlib.util.spec_from_file_location(f"farrier_metric_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"the metric's file {file} fails: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{file} has no function {name!r}")
    higher = bool(getattr(function, "higher_is_better", True))
    return Metric(
        f"{file.name}:{name}", lambda: _Whole(function), higher_is_better=higher, relative=not higher
    )


class _Whole:
    """Gathers every row for a function that wants them all."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._outputs: list[list[np.ndarray]] = []
        self._labels: list[np.ndarray] = []

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        self._outputs.append(list(outputs))
        self._labels.append(wanted[0])

    def value(self) -> float:
        arrays = [np.concatenate(parts) for parts in zip(*self._outputs, strict=True)]
        try:
            value = float(
                self._function(arrays[0] if len(arrays) == 1 else arrays, np.concatenate(self._labels))
            )
        except Exception as error:
            raise InputError(f"the metric's function fails: {type(error).__name__}: {error}") from error
        if not np.isfinite(value):
            raise InputError("the metric's function gave no finite number")
        return value
