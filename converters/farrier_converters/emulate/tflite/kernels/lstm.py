"""An LSTM with 8-bit weights and activations and a 16-bit cell state.

Source: tensorflow/lite/kernels/unidirectional_sequence_lstm.cc and lstm_eval.cc (`EvalInteger8x8_16`),
internal/reference/portable_tensor_utils.cc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from ....tflite import schema
from ...rounding import multiplied
from .. import fixed
from ..call import Call, KernelError, factor, quantum, scale_of, zero_point
from .linear import product

GATES = ("input", "forget", "cell", "output")
FROM_INPUT, FROM_STATE, BIAS = 1, 5, 12  # inputs of the operator: the first of four
PEEPHOLES, PROJECTION, NORMS = (9, 10, 11), (16, 17), (20, 21, 22, 23)
STATE, CELL = 18, 19
HIDDEN = 4  # of the intermediates: the scale of the hidden state
GATE_BITS = 3  # integer bits of a gate before its function
SHORT = (fixed.NARROW.least, fixed.NARROW.most)
EVERY = np.concatenate([np.arange(SHORT[1] + 1), np.arange(SHORT[0], 0)])  # of 16 bits, as an index sees them


@dataclass(frozen=True)
class Gate:
    """What a gate makes of the input and of the state before: functions to integers of 16 bits, not yet clipped."""

    of_input: Callable[[np.ndarray], np.ndarray]
    of_state: Callable[[np.ndarray], np.ndarray]

    def __call__(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Return the gate before its function, in Q3 of 16 bits."""
        return np.clip(self.of_state(state) + np.clip(self.of_input(x), *SHORT), *SHORT)


def lstm(call: Call) -> np.ndarray:
    """UNIDIRECTIONAL_SEQUENCE_LSTM; states start at zero."""
    _check(call)
    order = (0, 1, 2) if call.option("time_major") else (1, 0, 2)
    steps = call.value(0).transpose(order)
    gates = [_gate(call, position) for position in range(len(GATES))]
    scale, zero = quantum(call.intermediates[HIDDEN])
    hidden = factor(float(np.float32(2.0**-15 / scale * 2.0**-15)))
    exponent = _exponent(float(scale_of(call.given(CELL))))
    bounds = _bounds(call)
    cells = call.given(FROM_INPUT).shape[0]
    state = np.full((steps.shape[1], cells), zero_point(call.given(STATE)), np.int64)
    cell = np.zeros((steps.shape[1], cells), np.int64)
    results = np.empty((*steps.shape[:2], cells), np.int8)
    for number, x in enumerate(steps):
        opened = [gate(x, state) for gate in gates]
        into, forget, output = (_logistic()[opened[i]] for i in (0, 1, 3))
        update = _tanh(GATE_BITS)[opened[2]]
        kept = fixed.divided(forget * cell, 15)
        cell = np.clip(kept + fixed.divided(into * update, 30 + exponent), *bounds)
        shown = output * _tanh(15 + exponent)[cell]
        state = np.clip(multiplied(shown, *hidden) + zero, -128, 127)
        results[number] = state
    return results.transpose(order)


@cache
def _logistic() -> np.ndarray:
    """Return a gate's function of every integer of 16 bits; negative ones count from the end."""
    return fixed.NARROW.logistic(EVERY, GATE_BITS)


@cache
def _tanh(bits: int) -> np.ndarray:
    return fixed.NARROW.tanh(EVERY, bits)


def _gate(call: Call, number: int) -> Gate:
    bias = call.value(BIAS + number)
    return Gate(
        _weighted(call, FROM_INPUT + number, 0, bias),
        _weighted(call, FROM_STATE + number, STATE, np.zeros(1, np.int32)),
    )


def _weighted(call: Call, weights: int, values: int, bias: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the products of activations by weights, scaled to a gate's 2^-12."""
    matrix, zero = call.value(weights).astype(np.int64).T, zero_point(call.given(values))
    scale = scale_of(call.given(weights)) * scale_of(call.given(values)) / np.float32(2.0**-12)
    parts = factor(float(scale))
    return lambda x: multiplied(product(x.astype(np.int64) - zero, matrix).astype(np.int64) + bias, *parts)


def _bounds(call: Call) -> tuple[float, float]:
    """Return what the cell state is clipped to."""
    clip = np.float32(call.operator.options["cell_clip"]) / scale_of(call.given(CELL))
    return SHORT if clip <= 0 else (-min(int(clip), SHORT[1]), min(int(clip), SHORT[1]))


def _exponent(scale: float) -> int:
    """Return n of a cell state's scale 2^n; raises KernelError for any other."""
    mantissa, exponent = np.frexp(scale)
    if mantissa != 0.5 or not -15 <= exponent - 1 <= -9:
        raise KernelError("its cell state has no scale that is a power of two between 2^-15 and 2^-9")
    return int(exponent) - 1


def _check(call: Call) -> None:
    if {call.output.dtype, call.given(0).dtype, call.given(FROM_INPUT + 1).dtype} != {"int8"}:
        raise KernelError("its input, weights and result are not all int8")
    if call.given(CELL).dtype != "int16":
        raise KernelError(f"its cell state is {call.given(CELL).dtype}, not int16")
    extra = {"peepholes": PEEPHOLES, "a projection": PROJECTION, "layer norms": NORMS}
    for name, positions in extra.items():
        if any(call.optional(position) is not None for position in positions):
            raise KernelError(f"it has {name}, which are not emulated")
    if call.optional(FROM_INPUT) is None or call.option("diagonal"):
        raise KernelError("its input gate is coupled or diagonal, which is not emulated")
    if call.option("activation") != schema.TANH:
        raise KernelError("its activation is not tanh")
    if len(call.intermediates) <= HIDDEN:
        raise KernelError("it does not say the scale of its hidden state")
    if call.value(0).ndim != 3:
        raise KernelError("its input is not a batch of sequences")


LSTM: dict[str, Callable[[Call], np.ndarray]] = {"UNIDIRECTIONAL_SEQUENCE_LSTM": lstm}
