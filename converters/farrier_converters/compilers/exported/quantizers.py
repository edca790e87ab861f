"""Q/DQ steps as `torch.ops.quantized_decomposed`, with the graph's own scales: what PT2E back ends look for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farrier_contracts.errors import InputError

from ...training.lowering import Program, Step

KINDS = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int16: (-32768, 32767),
    torch.int32: (-(1 << 31), (1 << 31) - 1),
}
SCALES, ZEROS = "\0scales", "\0zeros"  # end the names of constants that are made here; no tensor's ends so
WIDE = (
    np.int32,
    np.int64,
)  # a bias: its product with the scale is exact enough in float, and no back end wants it


@dataclass(frozen=True)
class Grid:
    """The affine grid of one tensor; `scale` and `zero` are numbers, or names of constants with one value per channel.

    Integers saturate at `low` and `high`.
    """

    scale: float | str
    zero: int | str
    axis: int
    low: int
    high: int
    kind: torch.dtype

    @property
    def names(self) -> tuple[str, ...]:
        """The constants that the operators read besides the tensor."""
        return tuple(name for name in (self.scale, self.zero) if isinstance(name, str))

    def quantize(self, x: Tensor, *many: Tensor) -> Tensor:
        """Return integers; `many` are the values of `names`."""
        limits = self.low, self.high, self.kind
        if many:
            return _ops().quantize_per_channel(x, *many, self.axis % x.ndim, *limits)
        return _ops().quantize_per_tensor(x, self.scale, self.zero, *limits)

    def dequantize(self, x: Tensor, *many: Tensor) -> Tensor:
        """Return floats, likewise."""
        limits = self.low, self.high, self.kind
        if many:
            return _ops().dequantize_per_channel(x, *many, self.axis % x.ndim, *limits)
        return _ops().dequantize_per_tensor(x, self.scale, self.zero, *limits)


def quantizers(program: Program) -> list[Step]:
    """Return the program's steps with quantizers as torch's operators; a stored bias becomes a float constant.

    Adds to the program's constants what these steps read. Raises InputError for a scale that is no constant.
    """
    return [_STEPS[step.name](step, program) if step.name in _STEPS else step for step in program.steps]


def _both(step: Step, program: Program) -> Step:
    grid = _grid(step, program, bounds=form(step)["bounds"])

    def run(x: Tensor, *many: Tensor) -> Tensor:
        return grid.dequantize(grid.quantize(x, *many), *many)

    return _with(step, grid, run)


def _quantize(step: Step, program: Program) -> Step:
    grid = _grid(step, program)
    return _with(step, grid, grid.quantize)


def _dequantize(step: Step, program: Program) -> Step:
    stored = program.constants.get(step.inputs[0])
    if stored is None or stored.dtype not in WIDE:
        grid = _grid(step, program)
        return _with(step, grid, grid.dequantize)
    axis = form(step)["axis"]
    scale, zero = (_laid(_constant(step, program, index), axis, stored.ndim) for index in (1, 2))
    value = (stored.astype(np.float64) - zero.astype(np.float64)) * scale.astype(np.float64)
    program.constants[step.outputs[0]] = value.astype(np.float32)
    return replace(step, name="Stored", function=lambda: (), inputs=(), outputs=())


def _laid(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    if values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if a == axis % rank else 1 for a in range(rank)])


_STEPS: Mapping[str, Callable[[Step, Program], Step]] = {
    "FakeQuantize": _both,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}


def _with(step: Step, grid: Grid, function: Callable[..., Tensor]) -> Step:
    return replace(step, function=function, inputs=(step.inputs[0], *grid.names))


def _grid(step: Step, program: Program, *, bounds: tuple[int, int] | None = None) -> Grid:
    scales, zeros = _constant(step, program, 1), _constant(step, program, 2)
    kind = torch.from_numpy(zeros.reshape(-1)[:1].copy()).dtype
    if kind not in KINDS:
        raise InputError(
            f"{step.outputs[0]!r} is quantized to {zeros.dtype}, which torch's back ends do not take"
        )
    axis, (low, high) = form(step)["axis"], bounds or KINDS[kind]
    if scales.size == 1:
        return Grid(float(scales.reshape(-1)[0]), int(zeros.reshape(-1)[0]), axis, low, high, kind)
    names = f"{step.outputs[0]}{SCALES}", f"{step.outputs[0]}{ZEROS}"
    program.constants[names[0]] = scales.astype(np.float32)
    program.constants[names[1]] = np.broadcast_to(zeros, scales.shape).astype(np.int64)
    return Grid(*names, axis, low, high, kind)


def _constant(step: Step, program: Program, index: int) -> np.ndarray:
    name = step.inputs[index] if index < len(step.inputs) else ""
    if index == 2 and not name:
        stored = program.constants.get(step.inputs[0])
        kind = np.uint8 if stored is None else stored.dtype
        return np.zeros(_constant(step, program, 1).shape, kind)
    if name not in program.constants:
        raise InputError(
            f"the quantizer of {step.outputs[0]!r} has no constant scale, which torch's back ends want"
        )
    return program.constants[name]


def form(step: Step) -> Mapping[str, Any]:
    """Return the attributes that a step's function was made with."""
    return step.function.keywords if isinstance(step.function, partial) else {}


def _ops() -> Any:
    from torch.ao.quantization.fx import _decomposed  # noqa: F401  # importing it registers the operators

    return torch.ops.quantized_decomposed
