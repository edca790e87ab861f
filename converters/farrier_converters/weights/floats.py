"""Short floats: bfloat16 and the two kinds of FP8 as bits, rounded to nearest even. No graph, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx


@dataclass(frozen=True)
class Fp8:
    """A kind of 8-bit float (OCP 8-bit Floating Point Specification, 2023); `largest` is its largest number."""

    name: str
    onnx_type: int
    exponent_bits: int
    largest: float


E4M3 = Fp8("e4m3", onnx.TensorProto.FLOAT8E4M3FN, 4, 448.0)
E5M2 = Fp8("e5m2", onnx.TensorProto.FLOAT8E5M2, 5, 57344.0)


@lru_cache(maxsize=2)
def fp8_levels(kind: Fp8) -> np.ndarray:
    """Return the non-negative finite numbers of a kind, float32, ascending: the index is the code."""
    fraction_bits = 7 - kind.exponent_bits
    codes = np.arange(128)
    exponent, fraction = codes >> fraction_bits, codes & ((1 << fraction_bits) - 1)
    bias = (1 << (kind.exponent_bits - 1)) - 1
    share = fraction / (1 << fraction_bits)
    value = np.where(exponent > 0, (1 + share) * 2.0 ** (exponent - bias), share * 2.0 ** (1 - bias))
    return value[value <= kind.largest].astype(np.float32)


def to_fp8(values: np.ndarray, kind: Fp8) -> np.ndarray:
    """Return the codes uint8 of the nearest numbers, ties to the even code; what is larger saturates."""
    levels = fp8_levels(kind)
    edges = (levels[1:].astype(np.float64) + levels[:-1]) / 2
    magnitude = np.abs(values).astype(np.float64)
    low = np.searchsorted(edges, magnitude, side="left")  # a tie stays below its edge
    tie = (low < len(edges)) & (magnitude == edges[np.minimum(low, len(edges) - 1)])
    codes = (low + (tie & (low % 2 == 1))).astype(np.uint8)
    return codes | (np.signbit(values).astype(np.uint8) << np.uint8(7))


def from_fp8(codes: np.ndarray, kind: Fp8) -> np.ndarray:
    """Return the float32 numbers of finite codes."""
    magnitude = fp8_levels(kind)[codes & 127]
    return np.where(codes & 128, -magnitude, magnitude)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return the bits uint16 of finite float32 numbers in bfloat16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    even = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    return ((bits + even) >> np.uint32(16)).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 numbers of bfloat16 bits."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
