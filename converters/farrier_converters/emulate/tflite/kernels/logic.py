"""Comparisons, truth values, and what chooses by them; of numbers without a scale, or of tensors that share one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..call import BYTES, Call, KernelError, same_quantum


def _compared(call: Call, *, function: Callable[[Any, Any], np.ndarray]) -> np.ndarray:
    """Compare as they are stored: right where both have one scale, which a kernel of TFLite need not ask for."""
    given = call.given(0), call.given(1)
    if given[0].dtype in BYTES and given[0].scales.size and not same_quantum(given):
        raise KernelError("its operands have different scales")
    return function(call.value(0), call.value(1))


def _logical(call: Call, *, function: Callable[..., np.ndarray]) -> np.ndarray:
    values = [call.value(i) for i in range(len(call.values))]
    if any(value.dtype != np.bool_ for value in values):
        raise KernelError("operands that are no truth values")
    return function(*values)


def select(call: Call) -> np.ndarray:
    """SELECT and SELECT_V2; SELECT's condition may be one for each row."""
    condition, left, right = (call.value(i) for i in range(3))
    if condition.dtype != np.bool_ or left.dtype != right.dtype:
        raise KernelError("its operands do not have the right types")
    if call.operator.name == "SELECT" and condition.ndim == 1 < left.ndim:
        condition = condition.reshape(-1, *[1] * (left.ndim - 1))
    return np.where(condition, left, right)


LOGIC: dict[str, Callable[[Call], np.ndarray]] = {
    "EQUAL": partial(_compared, function=np.equal),
    "NOT_EQUAL": partial(_compared, function=np.not_equal),
    "GREATER": partial(_compared, function=np.greater),
    "GREATER_EQUAL": partial(_compared, function=np.greater_equal),
    "LESS": partial(_compared, function=np.less),
    "LESS_EQUAL": partial(_compared, function=np.less_equal),
    "LOGICAL_AND": partial(_logical, function=np.logical_and),
    "LOGICAL_OR": partial(_logical, function=np.logical_or),
    "LOGICAL_NOT": partial(_logical, function=np.logical_not),
    "SELECT": select,
    "SELECT_V2": select,
}
