"""Conv, Gemm and MatMul over integers: exact sums from float32 kernels, and what 16-bit pairs take from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import saturation
from .saturation import Saturation

EXACT_LIMIT = 1 << 24  # integers up to here are exact in float32
DIGIT = 16  # numbers too large for that are split into digits of this base

Multiply = Callable[[np.ndarray, np.ndarray], np.ndarray]


def exact_sums(
    values: np.ndarray, weights: np.ndarray, multiply: Multiply, *, reduced: tuple[int, ...]
) -> np.ndarray:
    """Return multiply(values, weights) without rounding: float32 where that is exact, int64 otherwise.

    `multiply` is a bilinear float32 kernel; `reduced` are the axes of the weights that it sums over (an order of
    summation cannot matter as long as every partial sum is an integer below 2^24).
    """
    reach = int(np.abs(values).max(initial=0))
    if reach * _norm(weights, reduced) < EXACT_LIMIT:
        return multiply(values, weights)
    total = np.zeros((), np.int64)
    for left_power, left in _digits(values):
        for power, right in _digits(weights):
            total = total + multiply(left, right).astype(np.int64) * (left_power * power)
    return total


def _digits(values: np.ndarray) -> list[tuple[int, np.ndarray]]:
    high = np.floor((values.astype(np.float32) + DIGIT // 2) / DIGIT)
    return [(DIGIT, high), (1, values - DIGIT * high)]


def _norm(weights: np.ndarray, reduced: tuple[int, ...]) -> int:
    """Return the largest sum of absolute weights over one output."""
    return int(np.abs(weights).sum(axis=reduced, dtype=np.float64).max(initial=0))


@dataclass(frozen=True)
class Window:
    """How a convolution walks over its input; one number per spatial axis, pads begin first."""

    group: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @staticmethod
    def of(attributes: Mapping[str, Any], spatial: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
        """Read a Conv's attributes for an input of this spatial shape; ONNX operator Conv."""
        rank = len(kernel)
        strides = tuple(attributes.get("strides", (1,) * rank))
        dilations = tuple(attributes.get("dilations", (1,) * rank))
        pads = tuple(attributes.get("pads", (0,) * 2 * rank))
        auto = attributes.get("auto_pad", b"NOTSET").decode()
        if auto.startswith("SAME"):
            totals = [
                max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
                for size, s, k, d in zip(spatial, strides, kernel, dilations, strict=True)
            ]
            less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
            pads = (*less, *more) if auto == "SAME_UPPER" else (*more, *less)
        elif auto == "VALID":
            pads = (0,) * 2 * rank
        return Window(int(attributes.get("group", 1)), strides, dilations, pads[:rank], pads[rank:])


def conv_excess(
    values: np.ndarray, weights: np.ndarray, window: Window, *, fill: int, sums: np.ndarray
) -> tuple[np.ndarray, Saturation]:
    """Take from exact sums [n, outputs, *spatial] what 16-bit pairs lose, and count.

    `values` are the u8 activations [n, channels, *spatial], `fill` their zero point, which pads them; `weights` int8
    [outputs, channels of a group, *kernel]. Depthwise kernels widen before they multiply, and lose nothing.
    """
    outputs, channels = weights.shape[:2]
    kernel = weights.shape[2:]
    if channels == 1 and outputs == window.group:
        return sums, Saturation()
    flat = np.moveaxis(weights, 1, -1).reshape(outputs, -1)
    total = sums.size * (-(-flat.shape[1] // 2))
    if not saturation.doubtful(flat).any():
        return sums, Saturation(total)
    pads = [(0, 0), (0, 0), *zip(window.begins, window.ends, strict=True)]
    padded = np.pad(values, pads, constant_values=fill)
    largest = padded.max(axis=tuple(i for i in range(padded.ndim) if i != 1), initial=0)
    places = sums.shape[2:]
    lost = sums.astype(np.int64)
    count, per_group = 0, outputs // window.group
    for group in range(window.group):
        rows = slice(group * per_group, (group + 1) * per_group)

        def plane(k: int, first: int = group * channels) -> np.ndarray:
            position = np.unravel_index(k // channels, kernel)
            cuts = [
                slice(p * d, p * d + (size - 1) * s + 1, s)
                for p, d, s, size in zip(position, window.dilations, window.strides, places, strict=True)
            ]
            return padded[(slice(None), first + k % channels, *cuts)]

        part = lost[:, rows]
        met = np.tile(largest[group * channels : (group + 1) * channels], math.prod(kernel))
        for which, wrong, found in saturation.excess(flat[rows], met, plane):
            part[:, which] -= np.moveaxis(wrong, 0, 1)
            count += found
    return lost, Saturation(total, count)


def matmul_excess(
    values: np.ndarray, weights: np.ndarray, *, sums: np.ndarray
) -> tuple[np.ndarray, Saturation]:
    """Take from exact sums [..., outputs] of u8 [..., k] by int8 [k, outputs] what 16-bit pairs lose, and count."""
    flat = weights.T
    total = sums.size * (-(-flat.shape[1] // 2))
    if not saturation.doubtful(flat).any():
        return sums, Saturation(total)
    lost, count = sums.astype(np.int64), 0
    largest = values.max(axis=tuple(range(values.ndim - 1)), initial=0)
    for which, wrong, found in saturation.excess(flat, largest, lambda k: values[..., k]):
        lost[..., which] -= np.moveaxis(wrong, 0, -1)
        count += found
    return lost, Saturation(total, count)
