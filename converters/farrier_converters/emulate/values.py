"""What flows through an emulated graph besides float arrays: integers with scales, and results not yet rounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from farrier_contracts.targets import FIXED_POINT

from . import rounding
from .rounding import Params


class Value(Protocol):
    """Something that stands for real numbers."""

    def real(self) -> np.ndarray:
        """Return them in float32."""
        ...


class Pending(Value, Protocol):
    """The result of an integer operator before it is rounded to the scale that its reader wants."""

    def quantize(self, params: Params, rule: str) -> np.ndarray:
        """Return integers in that scale, rounded by this rule."""
        ...

    def clamp(self, low: float, high: float) -> Pending:
        """Return the same with an activation function behind it that clips."""
        ...


@dataclass(frozen=True)
class Quantized:
    """Integers and what they stand for."""

    integers: np.ndarray
    params: Params

    def real(self) -> np.ndarray:
        """Return the real numbers, float32."""
        return rounding.dequantize(self.integers, self.params)

    def centred(self) -> np.ndarray:
        """Return the integers less their zero point, float32."""
        zero = self.params.spread(self.params.zero_point, self.integers.ndim)
        return self.integers.astype(np.float32) - zero.astype(np.float32)


@dataclass(frozen=True)
class Clamped:
    """Bounds of an activation function, as real numbers; they become integers in the scale of the result."""

    low: float = -np.inf
    high: float = np.inf

    def within(self, low: float, high: float) -> Clamped:
        """Return the bounds that clip at both."""
        return Clamped(max(self.low, low), max(self.low, low, min(self.high, high)))

    def integers(self, params: Params) -> tuple[int | None, int | None]:
        """Return the bounds in a scale; None where there is none."""
        return self._integer(self.low, params), self._integer(self.high, params)

    def _integer(self, bound: float, params: Params) -> int | None:
        if not np.isfinite(bound):
            return None
        return int(rounding.quantize(np.asarray(bound, np.float32), params))


@dataclass(frozen=True)
class Sum:
    """Sums of products: real = sum * input_scale * weight_scale, scales float32, per channel along `axis`."""

    sums: np.ndarray
    input_scale: np.ndarray
    weight_scale: np.ndarray
    axis: int
    bounds: Clamped = field(default_factory=Clamped)

    def real(self) -> np.ndarray:
        """Return the sums in float32."""
        scale = self._spread(self.input_scale.reshape(()) * self.weight_scale)
        return np.clip(self.sums.astype(np.float32) * scale, self.bounds.low, self.bounds.high)

    def clamp(self, low: float, high: float) -> Sum:
        """Clip the result."""
        return replace(self, bounds=self.bounds.within(low, high))

    def quantize(self, params: Params, rule: str) -> np.ndarray:
        """Scale and round by input scale * weight scale / output scale, computed as the engine does."""
        factor = self._spread(self._factor(params.scale.reshape(()), fixed=rule == FIXED_POINT))
        scaled = rounding.scaled(self.sums, factor, rule, once=self.axis == -1)
        return rounding.clipped(scaled, params, *self.bounds.integers(params))

    def _factor(self, wanted: np.ndarray, *, fixed: bool) -> np.ndarray:
        """TFLite computes in double, but multiplies the two scales of a FULLY_CONNECTED in float32 before."""
        given = self.input_scale.reshape(())
        if not fixed or (self.axis == -1 and self.weight_scale.size == 1):
            product = given * self.weight_scale
        else:
            product = given.astype(np.float64) * self.weight_scale
        return product.astype(np.float64 if fixed else np.float32) / wanted

    def _spread(self, scale: np.ndarray) -> np.ndarray:
        return scale.reshape(()) if scale.size == 1 else rounding.along(scale, self.axis, self.sums.ndim)


@dataclass(frozen=True)
class Combined:
    """An Add, Mul or global average over integers, computed when the scale of its result is known."""

    inputs: tuple[Quantized, ...]
    compute: Callable[
        [tuple[Quantized, ...], Params, str], np.ndarray
    ]  # not yet clipped, zero point not added
    compute_real: Callable[[], np.ndarray]
    bounds: Clamped = field(default_factory=Clamped)

    def real(self) -> np.ndarray:
        """Return the result in float32."""
        return np.clip(self.compute_real(), self.bounds.low, self.bounds.high)

    def clamp(self, low: float, high: float) -> Combined:
        """Clip the result."""
        return replace(self, bounds=self.bounds.within(low, high))

    def quantize(self, params: Params, rule: str) -> np.ndarray:
        """Compute and clip."""
        low, high = params.limits
        least, most = self.bounds.integers(params)
        low, high = max(low, low if least is None else least), min(high, high if most is None else most)
        return np.clip(self.compute(self.inputs, params, rule), low, max(low, high)).astype(params.dtype)
