"""Recurrent layers.

TFLite keeps the state of a sequence LSTM from one run to the next until it is reset; here each run starts from zeros,
as the layer does in training.
"""

from __future__ import annotations

import numpy as np

from ....tflite import layout, schema
from ..builder import Builder, Value
from ._operation import Handler, Operation, UnsupportedError

GATES = (0, 3, 1, 2)  # TFLite: input, forget, cell, output; ONNX: input, output, forget, cell
INPUT_WEIGHTS, RECURRENT_WEIGHTS, PEEPHOLES, BIASES = 1, 5, 9, 12
PROJECTION, STATES, NORMS = 16, (18, 19), range(20, 24)


def _lstm(b: Builder, op: Operation) -> None:
    x, o = op.input(0), op.options
    if op.optional(PROJECTION) is not None or any(op.optional(i) is not None for i in NORMS):
        raise UnsupportedError("it has a projection or layer norms inside")
    if op.optional(INPUT_WEIGHTS) is None or o["diagonal"] or o["activation"] != schema.TANH:
        raise UnsupportedError("it couples its gates, or its activation is not tanh")
    if any(v is not None and v.constant is not None and v.constant.any() for v in map(op.optional, STATES)):
        raise UnsupportedError("it starts from a state that is not zero")
    kernels = [op.constant(INPUT_WEIGHTS + g) for g in GATES]
    recurrent = [op.constant(RECURRENT_WEIGHTS + g) for g in GATES]
    hidden = kernels[0].shape[0]
    biases = [_bias(op, BIASES + g, hidden) for g in GATES]
    time, rows = (0, 1) if o["time_major"] else (1, 0)
    if layout.free(x.shape[time]):
        raise layout.BatchError("it runs along the rows")
    inputs = [
        b.get(x, (time, rows, 2)),
        b.constant(f"{op.output.name}/W", np.concatenate(kernels)[None].astype(np.float32)),
        b.constant(f"{op.output.name}/R", np.concatenate(recurrent)[None].astype(np.float32)),
        b.constant(
            f"{op.output.name}/B", np.concatenate([*biases, np.zeros(4 * hidden)])[None].astype(np.float32)
        ),
    ]
    peepholes = [op.optional(PEEPHOLES + i) for i in (0, 2, 1)]  # ONNX: input, output, forget
    if any(p is not None for p in peepholes):
        values = [np.zeros(hidden) if p is None else _value(p) for p in peepholes]
        inputs += [
            "",
            "",
            "",
            b.constant(f"{op.output.name}/P", np.concatenate(values)[None].astype(np.float32)),
        ]
    name = b.node("LSTM", inputs, f"{op.output.name}/lstm", hidden_size=hidden)
    name = b.node("Squeeze", [name, b.integers("axes", [1])], op.output.name)
    b.put(op.output, name, (time, rows, 2), (*x.shape[:2], hidden))
    clip, steps = float(o["cell_clip"]), x.shape[time]
    if 0 < clip < steps:  # a cell grows by at most 1 a step
        b.notes.append(
            f"{op.output.name}: TFLite limits the LSTM's cells to {clip:g}, ONNX cannot; "
            "outputs differ only for inputs that drive a cell beyond that"
        )


def _bias(op: Operation, position: int, hidden: int) -> np.ndarray:
    value = op.optional(position)
    return np.zeros(hidden) if value is None else _value(value)


def _value(value: Value) -> np.ndarray:
    if value.constant is None:
        raise UnsupportedError(f"its parameter {value.name!r} depends on the data")
    return value.constant


RECURRENT: dict[str, Handler] = {"UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm}
