"""Bits side by side: codes into bytes, in the orders that engines read. No graph, no I/O."""

from __future__ import annotations

import numpy as np


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack codes [..., n] of 2, 4 or 8 bits into bytes [..., ceil(n * bits / 8)], the first in the lowest bits."""
    per_byte = 8 // bits
    fill = -codes.shape[-1] % per_byte
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, fill)])
    parts = padded.reshape(*codes.shape[:-1], -1, per_byte)
    packed = np.zeros(parts.shape[:-1], np.uint8)
    for position in range(per_byte):
        packed |= parts[..., position] << np.uint8(bits * position)
    return packed


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Undo `pack`: bytes [..., m] -> codes [..., count]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count]


def pack_threes(codes: np.ndarray) -> np.ndarray:
    """Pack 3-bit codes into 3 planes of bytes [3, ceil(n / 8)], n = codes.size.

    Two codes make six bits, code 2i below code 2i + 1. With the six-bit values in four rows of equal length, byte k
    of the planes holds rows 0, 1, 2 in its low six bits and two bits of row 3 in its high ones: a handful of
    operations on whole planes undoes it, and yields the 4-bit codes that kernels read.
    """
    flat = np.pad(codes.reshape(-1), (0, -codes.size % 8))
    sixes = (flat[0::2] | (flat[1::2] << np.uint8(3))).reshape(4, -1)
    shifts = np.array([[0], [2], [4]], np.uint8)
    return sixes[:3] | (((sixes[3:] >> shifts) & np.uint8(3)) << np.uint8(6))


def unpack_threes(planes: np.ndarray, count: int) -> np.ndarray:
    """Undo `pack_threes`: planes [3, m] -> codes [count]."""
    high = planes >> np.uint8(6)
    last = high[0] | (high[1] << np.uint8(2)) | (high[2] << np.uint8(4))
    sixes = np.concatenate([(planes & np.uint8(63)).reshape(-1), last])
    return np.stack([sixes & np.uint8(7), sixes >> np.uint8(3)], -1).reshape(-1)[:count]
