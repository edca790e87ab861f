"""What a kernel gets: one operator with the arrays that flow in, and its tensors as the file describes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...tflite import schema
from ...tflite.file import Operator, Tensor
from ..rounding import quantized_multiplier

MAX_ELEMENTS = 1 << 26  # of one tensor: whatever a file asks for beyond is refused
BYTES = ("int8", "uint8")  # the types that kernels compute with as scaled integers


class KernelError(ValueError):
    """The operator cannot be computed; the message says why, for the sentence that names it."""


@dataclass(frozen=True)
class Call:
    """One operator and its inputs; None is an input left out."""

    operator: Operator
    inputs: tuple[Tensor | None, ...]
    values: tuple[np.ndarray | None, ...]
    outputs: tuple[Tensor, ...]
    intermediates: tuple[Tensor, ...] = ()

    def value(self, position: int) -> np.ndarray:
        """Return an input that must be there; raises KernelError."""
        found = self.optional(position)
        if found is None:
            raise KernelError(f"input {position} is missing")
        return found

    def optional(self, position: int) -> np.ndarray | None:
        """Return an input, or None where it is left out."""
        return self.values[position] if position < len(self.values) else None

    def integers(self, position: int) -> list[int]:
        """Return an input of integers, such as axes or a shape, as a flat list."""
        return [int(v) for v in self.value(position).ravel()]

    def option(self, name: str) -> int:
        """Return an option that is a whole number."""
        return int(self.operator.options[name])

    def axis(self, number: int, rank: int) -> int:
        """Return an axis counted from the front; raises KernelError."""
        if not -rank <= number < rank:
            raise KernelError(f"axis {number} is not one of {rank}")
        return number % rank

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    @property
    def quantized(self) -> bool:
        """Whether the result is scaled 8-bit integers."""
        return self.output.dtype in BYTES and self.output.scales.size > 0

    def given(self, position: int) -> Tensor:
        """Return the description of an input that must be there; raises KernelError."""
        found = self.inputs[position] if position < len(self.inputs) else None
        if found is None:
            raise KernelError(f"input {position} is missing")
        return found

    def centred(self, position: int) -> np.ndarray:
        """Return an input's integers less their zero point, int32."""
        return self.value(position).astype(np.int32) - zero_point(self.given(position))

    def finish(self, values: np.ndarray, *, activation: int | None = None) -> np.ndarray:
        """Add the result's zero point, clip to its type and to a fused activation (the operator's own): the result."""
        number = int(self.operator.options.get("activation", 0)) if activation is None else activation
        low, high = self.activation_range(number)
        return np.clip(values + zero_point(self.output), low, high).astype(self.output.dtype)

    def activation_range(self, activation: int) -> tuple[int, int]:
        """Return the smallest and the largest integer of the result; `CalculateActivationRangeQuantized`."""
        info = np.iinfo(self.output.dtype)
        low, high = int(info.min), int(info.max)
        bounds = ACTIVATION_BOUNDS.get(schema.ACTIVATIONS.get(activation, ""), (-math.inf, math.inf))
        scale, zero = scale_of(self.output), zero_point(self.output)
        if bounds[0] > -math.inf:
            low = max(low, zero + int(round_away(np.float32(bounds[0]) / scale)))
        if bounds[1] < math.inf:
            high = min(high, zero + int(round_away(np.float32(bounds[1]) / scale)))
        return low, high


ACTIVATION_BOUNDS = {"RELU": (0.0, math.inf), "RELU_N1_TO_1": (-1.0, 1.0), "RELU6": (0.0, 6.0)}


def scale_of(tensor: Tensor) -> np.float32:
    """Return the one scale of a tensor, float32; raises KernelError where it has none."""
    if not tensor.scales.size:
        raise KernelError(f"the tensor {tensor.name!r} has no scale")
    return np.float32(tensor.scales[0])


def zero_point(tensor: Tensor) -> int:
    """Return the one zero point of a tensor, 0 where none is given."""
    return int(tensor.zero_points[0]) if tensor.zero_points.size else 0


def quantum(tensor: Tensor) -> tuple[float, int]:
    """Return scale (the float32 number as a double) and zero point of a tensor."""
    return float(scale_of(tensor)), zero_point(tensor)


def same_quantum(tensors: Sequence[Tensor]) -> bool:
    """Say whether all tensors have one scale and one zero point."""
    return len({quantum(tensor) for tensor in tensors}) == 1


def factor(real: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a real factor as TFLite's 31-bit multiplier and exponent."""
    return quantized_multiplier(np.asarray(real, np.float64))


def round_away(values: np.ndarray | np.floating) -> np.ndarray:
    """Round halves away from zero, as C++'s `std::round`: float64."""
    doubles = np.asarray(values, np.float64)
    whole = np.trunc(doubles)
    return whole + np.copysign(np.abs(doubles - whole) >= 0.5, doubles)


def bounded(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape that a file asks for; raises KernelError where no tensor may be that large."""
    if min(shape, default=1) < 0 or math.prod(shape) > MAX_ELEMENTS:
        raise KernelError(f"no tensor may have the shape {list(shape)}")
    return tuple(int(size) for size in shape)
