"""Images of another size; tensorflow/lite/kernels/internal/reference/{resize_bilinear, resize_nearest_neighbor}.h."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..call import Call, KernelError, bounded, round_away
from ..window import image_sides

BITS = 10  # of a place between two pixels


def resize_bilinear(call: Call) -> np.ndarray:
    """RESIZE_BILINEAR: int8 in fixed point, uint8 and float32 in float32, where uint8 is rounded."""
    sides, sizes = _sizes(call)
    image = call.value(0)
    corners, half = bool(call.option("align_corners")), bool(call.option("half_pixel"))
    if image.dtype == np.int8:
        places = [_fixed_places(i, o, corners, half) for i, o in zip(sides, sizes, strict=True)]
        return _fixed_mix(image.astype(np.int64), *places)
    if image.dtype not in (np.uint8, np.float32):
        raise KernelError(f"RESIZE_BILINEAR of {image.dtype}")
    places = [_float_places(i, o, corners, half) for i, o in zip(sides, sizes, strict=True)]
    mixed = _float_mix(image.astype(np.float32), *places)
    return round_away(mixed).astype(np.uint8) if image.dtype == np.uint8 else mixed


Places = tuple[
    np.ndarray, np.ndarray, np.ndarray
]  # the pixels before and behind, and how far behind the first


def _fixed_places(size: int, wanted: int, corners: bool, half: bool) -> Places:
    steps, span = (wanted - 1, size - 1) if corners and wanted > 1 else (wanted, size)
    scale = ((span << BITS) + steps // 2) // steps
    places = np.arange(wanted, dtype=np.int64) * scale
    if half:
        places = places + scale // 2 - (1 << (BITS - 1))
    first = np.maximum(_cut(places), 0)
    second = np.minimum(_cut(places + (1 << BITS) - 1), size - 1)
    return first, second, places - (first << BITS)


def _cut(places: np.ndarray) -> np.ndarray:
    """Divide by 2^BITS towards zero."""
    return np.sign(places) * (np.abs(places) >> BITS)


def _fixed_mix(image: np.ndarray, rows: Places, columns: Places) -> np.ndarray:
    one = 1 << BITS
    top, bottom, down = rows
    left, right, along = columns
    down, along = down[:, None, None], along[:, None]
    upper, lower = image[:, top], image[:, bottom]
    total = upper[:, :, left] * (one - down) * (one - along)
    total += lower[:, :, left] * down * (one - along)
    total += upper[:, :, right] * (one - down) * along
    total += lower[:, :, right] * down * along
    half = 1 << (2 * BITS - 1)
    return (np.sign(total) * ((np.abs(total) + half) >> (2 * BITS))).astype(np.int8)


def _float_places(size: int, wanted: int, corners: bool, half: bool) -> Places:
    steps, span = (wanted - 1, size - 1) if corners and wanted > 1 else (wanted, size)
    scale = np.float32(span) / np.float32(steps)
    numbers = np.arange(wanted, dtype=np.float32)
    places = (numbers + np.float32(0.5)) * scale - np.float32(0.5) if half else numbers * scale
    first = np.maximum(np.floor(places).astype(np.int64), 0)
    second = np.minimum(np.ceil(places).astype(np.int64), size - 1)
    return first, second, places - first.astype(np.float32)


def _float_mix(image: np.ndarray, rows: Places, columns: Places) -> np.ndarray:
    one = np.float32(1)
    top, bottom, down = rows
    left, right, along = columns
    down, along = down[:, None, None], along[:, None]
    upper, lower = image[:, top], image[:, bottom]
    total = upper[:, :, left] * (one - down) * (one - along)
    total = total + lower[:, :, left] * down * (one - along)
    total = total + upper[:, :, right] * (one - down) * along
    return total + lower[:, :, right] * down * along


def resize_nearest_neighbor(call: Call) -> np.ndarray:
    """RESIZE_NEAREST_NEIGHBOR, of any type."""
    sides, sizes = _sizes(call)
    corners, half = bool(call.option("align_corners")), bool(call.option("half_pixel"))
    rows, columns = (_nearest(i, o, corners, half) for i, o in zip(sides, sizes, strict=True))
    return call.value(0)[:, rows][:, :, columns]


def _nearest(size: int, wanted: int, corners: bool, half: bool) -> np.ndarray:
    steps, span = (wanted - 1, size - 1) if corners and wanted > 1 else (wanted, size)
    scale = np.float32(span) / np.float32(steps)
    places = (np.arange(wanted, dtype=np.float32) + np.float32(0.5 if half else 0)) * scale
    whole = round_away(places) if corners else np.floor(places)
    return np.clip(whole.astype(np.int64), 0, size - 1)


def _sizes(call: Call) -> tuple[tuple[int, int], tuple[int, int]]:
    sides, wanted = image_sides(call, 0), call.integers(1)
    image = call.value(0)
    if len(wanted) != 2 or min(*wanted, *sides) < 1:
        raise KernelError(f"an image cannot get the size {wanted}")
    bounded((image.shape[0], *wanted, image.shape[3]))
    return sides, (wanted[0], wanted[1])


RESIZE: dict[str, Callable[[Call], np.ndarray]] = {
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest_neighbor,
}
