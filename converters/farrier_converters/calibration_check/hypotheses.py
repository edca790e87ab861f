"""What may have gone wrong with prepared inputs, each as the transformation that would mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

CHANNELS, LAYOUT, SCALE, MEAN = "channel order", "layout", "scale", "mean"
# named only as candidates: what the model itself says decides
MEANS = np.array([0.485, 0.456, 0.406])
DEVIATIONS = np.array([0.229, 0.224, 0.225])
FACTORS = (255.0, 128.0, 32.0, 8.0)


@dataclass(frozen=True)
class Hypothesis:
    """A fault and its remedy: `mend` takes rows and returns them as they should have been."""

    kind: str
    text: str
    mend: Callable[[np.ndarray], np.ndarray]


def _shuffle(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), -1)
    return np.random.default_rng(0).permuted(flat, axis=1).reshape(rows.shape)


SHUFFLED = Hypothesis("noise", "give real inputs", _shuffle)  # what noise would not mind


def hypotheses(shape: tuple[int, ...], mean: float, deviation: float) -> Iterator[Hypothesis]:
    """Yield what may be wrong with rows of this shape (row axis first), mean and standard deviation."""
    axis = channel_axis(shape)
    if axis is not None and shape[axis] == 3:
        yield Hypothesis(
            CHANNELS, "swap the first and the last channel (RGB and BGR)", lambda x: np.flip(x, axis)
        )
    yield from _layouts(shape, axis)
    for factor in FACTORS:
        yield Hypothesis(SCALE, f"divide by {factor:g}", lambda x, f=factor: x / f)
        yield Hypothesis(SCALE, f"multiply by {factor:g}", lambda x, f=factor: x * f)
    if deviation > 0:
        yield Hypothesis(MEAN, f"subtract the mean {mean:.3g}", lambda x: x - mean)
        yield Hypothesis(MEAN, "add one standard deviation", lambda x: x + deviation)
        yield Hypothesis(MEAN, "subtract one standard deviation", lambda x: x - deviation)
    yield Hypothesis(MEAN, "map 0..1 to -1..1", lambda x: 2 * x - 1)
    yield Hypothesis(MEAN, "map -1..1 to 0..1", lambda x: (x + 1) / 2)
    yield Hypothesis(MEAN, "map 0..255 to -1..1", lambda x: x / 127.5 - 1)
    yield Hypothesis(MEAN, "map -1..1 to 0..255", lambda x: (x + 1) * 127.5)
    if axis is not None and shape[axis] == 3:
        m, s = (v.reshape([3 if a == axis else 1 for a in range(len(shape))]) for v in (MEANS, DEVIATIONS))
        yield Hypothesis(MEAN, "normalise 0..1 by the ImageNet mean and deviation", lambda x: (x - m) / s)
        yield Hypothesis(
            MEAN, "normalise 0..255 by the ImageNet mean and deviation", lambda x: (x / 255 - m) / s
        )
        yield Hypothesis(MEAN, "undo a normalisation by the ImageNet mean and deviation", lambda x: x * s + m)
        yield Hypothesis(MEAN, "undo a normalisation, to 0..255", lambda x: (x * s + m) * 255)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis of an image's channels: 1, or the last; None for anything but images."""
    if len(shape) != 4:
        return None
    return 1 if shape[1] <= 4 or shape[1] < shape[-1] else 3 if shape[-1] <= 4 else 1


def _layouts(shape: tuple[int, ...], axis: int | None) -> Iterator[Hypothesis]:
    if axis is None or shape[axis] == 1:
        return
    if axis == 1:
        channels, height, width = shape[1:]
        yield Hypothesis(
            LAYOUT,
            "give rows as channels, height, width (they look like height, width, channels)",
            lambda x: x.reshape(len(x), height, width, channels).transpose(0, 3, 1, 2),
        )
    else:
        height, width, channels = shape[1:]
        yield Hypothesis(
            LAYOUT,
            "give rows as height, width, channels (they look like channels, height, width)",
            lambda x: x.reshape(len(x), channels, height, width).transpose(0, 2, 3, 1),
        )
