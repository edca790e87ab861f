"""Scales and zero points of 8-bit tensors, and what TFLite's kernels make of them.

Source: tensorflow/tensorflow lite/g3doc/performance/quantization_spec.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...tflite.layout import Order

LOWEST, HIGHEST = -128, 127  # of int8
# Operators whose output has the scale of their input, whatever the file says of it.
SAME = {
    *("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"),
    *(
        "PAD",
        "PADV2",
        "MIRROR_PAD",
        "GATHER",
        "GATHER_ND",
        "SLICE",
        "STRIDED_SLICE",
        "SPLIT",
        "SPLIT_V",
        "TILE",
    ),
    *("BROADCAST_TO", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "PACK"),
    *(
        "UNPACK",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "MAXIMUM",
        "MINIMUM",
        "REDUCE_MAX",
        "REDUCE_MIN",
    ),
    *("RELU", "RELU6", "RELU_N1_TO_1", "REVERSE_V2", "SELECT_V2"),
}


@dataclass(frozen=True)
class Quanta:
    """real = scale * (integer - zero point): one pair of them, or one for each index of `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0

    @property
    def single(self) -> bool:
        """Say whether one scale is for all elements."""
        return len(self.scales) == 1

    @property
    def centred(self) -> bool:
        """Say whether zero stands for zero everywhere."""
        return not any(self.zero_points)

    def raised(self) -> Quanta:
        """Return what describes the same numbers in unsigned integers."""
        return replace(self, zero_points=tuple(zero - LOWEST for zero in self.zero_points))

    def permuted(self, order: Order) -> Quanta:
        """Return what describes a tensor whose axes are permuted."""
        return self if self.single else replace(self, axis=order.index(self.axis))

    def quantize(self, values: np.ndarray | float) -> np.ndarray:
        """Return int8 for real numbers, rounded half to even as engines do, in float32."""
        array = np.asarray(values, np.float32)
        with np.errstate(over="ignore"):  # what lies beyond saturates
            steps = np.rint(array / self._along(self.scales, array.ndim))
        integers = steps + self._along(self.zero_points, array.ndim)
        return np.clip(integers, LOWEST, HIGHEST).astype(np.int8)

    def dequantize(self, integers: np.ndarray) -> np.ndarray:
        """Return the real numbers, float32, that integers stand for."""
        zero_points = self._along(self.zero_points, integers.ndim)
        return (integers.astype(np.float32) - zero_points) * self._along(self.scales, integers.ndim)

    def split(self, count: int, axis: int) -> list[Quanta]:
        """Return what describes equal parts of a tensor that is cut along an axis."""
        if self.single or axis != self.axis:
            return [self] * count
        size = len(self.scales) // count
        parts = [slice(i * size, (i + 1) * size) for i in range(count)]
        return [replace(self, scales=self.scales[p], zero_points=self.zero_points[p]) for p in parts]

    def _along(self, numbers: Sequence[float], rank: int) -> np.ndarray:
        array = np.array(numbers, np.float32)
        return array[0] if self.single else array.reshape([-1 if a == self.axis else 1 for a in range(rank)])


def quanta(scale: float, zero_point: int = 0) -> Quanta:
    """Return one scale, rounded to float32, and one zero point."""
    return Quanta((float(np.float32(scale)),), (int(zero_point),))


def exactly(number: float) -> Quanta:
    """Return a scale in which one number is an integer: 127 of its steps, or -127."""
    return quanta(abs(number) / HIGHEST if number else 1.0)


# Operators whose kernels write one scale, whatever the file says.
FIXED = {
    "LOGISTIC": quanta(1 / 256, LOWEST),
    "SOFTMAX": quanta(1 / 256, LOWEST),
    "LOG_SOFTMAX": quanta(16 / 256, HIGHEST),
    "TANH": quanta(1 / 128),
    "L2_NORMALIZATION": quanta(1 / 128),
}
