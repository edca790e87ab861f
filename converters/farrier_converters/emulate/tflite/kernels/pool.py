"""Pools; tensorflow/lite/kernels/internal/reference/{integer_ops/pooling, pooling}.h."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..call import BYTES, Call, KernelError, bounded
from ..window import Window, image_sides, padded, window, windows


def average_pool_2d(call: Call) -> np.ndarray:
    """AVERAGE_POOL_2D: the mean of what lies inside the image, halves away from zero. Zero points play no part."""
    image, how = _image(call)
    seen = windows(padded(image, how), how)
    sums = seen.sum(axis=(3, 4), dtype=np.int64)
    inside = windows(padded(np.ones((1, *image.shape[1:3], 1), np.int64), how), how)
    counts = inside.sum(axis=(3, 4))
    means = np.sign(sums) * ((np.abs(sums) + counts // 2) // counts)
    return np.clip(means, *call.activation_range(call.option("activation"))).astype(call.output.dtype)


def max_pool_2d(call: Call) -> np.ndarray:
    """MAX_POOL_2D."""
    image, how = _image(call)
    seen = windows(padded(image, how, int(np.iinfo(call.output.dtype).min)), how)
    most = seen.max(axis=(3, 4))
    return np.clip(most, *call.activation_range(call.option("activation"))).astype(call.output.dtype)


def _image(call: Call) -> tuple[np.ndarray, Window]:
    if call.output.dtype not in BYTES:
        raise KernelError(f"{call.operator.name} of {call.output.dtype}")
    sides = image_sides(call, 0)
    kernel = (call.option("filter_h"), call.option("filter_w"))
    how = window(call, sides, kernel, dilated=False)
    image = call.value(0).astype(np.int32)
    bounded((image.shape[0], *how.sizes, image.shape[3]))
    return image, how


POOL: dict[str, Callable[[Call], np.ndarray]] = {
    "AVERAGE_POOL_2D": average_pool_2d,
    "MAX_POOL_2D": max_pool_2d,
}
