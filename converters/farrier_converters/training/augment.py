"""Changes to pictures that keep what they show, for whole batches at once: crop, mirror, cut out, mix.

Each is data: a frozen dataclass that is called with the inputs of a batch (arrays by name) and a random generator, and
returns new ones. Inputs of four axes are pictures, [rows, channels, height, width] unless `layout` is "nhwc"; others
pass unchanged. They are for labels that do not depend on where things are: classes, not boxes or masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from .data import Augment, Inputs
from .labels import check

LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True)
class RandomCrop:
    """Pad each side by `padding` pixels of value `fill`, and cut the old size out at a random place."""

    padding: int = 4  # pixels
    fill: float = 0.0
    layout: str = "nchw"

    def __call__(self, inputs: Inputs, rng: np.random.Generator) -> Inputs:
        """Return the batch with each picture shifted by up to `padding`."""
        return _pictures(inputs, self.layout, lambda x: self._crop(x, rng))

    def _crop(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rows, channels, height, width = x.shape
        pad = self.padding
        padded = np.full((rows, channels, height + 2 * pad, width + 2 * pad), self.fill, x.dtype)
        padded[:, :, pad : pad + height, pad : pad + width] = x
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))  # type: ignore[call-overload]
        down, right = rng.integers(0, 2 * pad + 1, (2, rows))
        return windows[np.arange(rows), :, down, right]


@dataclass(frozen=True)
class Mirror:
    """Turn this share of the pictures left to right."""

    share: float = 0.5
    layout: str = "nchw"

    def __call__(self, inputs: Inputs, rng: np.random.Generator) -> Inputs:
        """Return the batch with some pictures mirrored."""
        return _pictures(inputs, self.layout, lambda x: self._mirror(x, rng))

    def _mirror(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.random(len(x)) < self.share
        found = x.copy()
        found[chosen] = x[chosen][..., ::-1]
        return found


@dataclass(frozen=True)
class Cutout:
    """Fill a square of `side` pixels at a random place, which may reach over the edge.

    Source: DeVries & Taylor, "Improved regularization of convolutional neural networks with cutout", arXiv 1708.04552.
    """

    side: int = 8  # pixels
    fill: float = 0.0
    layout: str = "nchw"

    def __call__(self, inputs: Inputs, rng: np.random.Generator) -> Inputs:
        """Return the batch with a square missing in each picture."""
        return _pictures(inputs, self.layout, lambda x: self._cut(x, rng))

    def _cut(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rows, _, height, width = x.shape
        inside = []
        for size in (height, width):
            first = rng.integers(0, size, (rows, 1)) - self.side // 2
            at = np.arange(size)[None]
            inside.append((at >= first) & (at < first + self.side))
        square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return np.where(square, np.asarray(self.fill, x.dtype), x)


@dataclass(frozen=True)
class Chain:
    """One change after another."""

    parts: tuple[Augment, ...]

    def __call__(self, inputs: Inputs, rng: np.random.Generator) -> Inputs:
        """Return what the last one makes."""
        for part in self.parts:
            inputs = part(inputs, rng)
        return inputs


@dataclass(frozen=True)
class Mixup:
    """Blend each row with another one of the batch, float inputs and labels alike; labels become shares of classes.

    The share is drawn from Beta(`alpha`, `alpha`) once per batch. For `Rows.mix`. Source: Zhang et al., "mixup: Beyond
    empirical risk minimization", arXiv 1710.09412.
    """

    classes: int
    alpha: float = 0.2

    def __post_init__(self) -> None:
        """Raise UsageError for numbers that mean nothing."""
        if self.classes < 2 or not self.alpha > 0:
            raise UsageError("mixing needs at least two classes, and an alpha above zero")

    def __call__(
        self, inputs: Inputs, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[Inputs, np.ndarray]:
        """Return mixed inputs, and labels float32 [rows, classes] whose rows sum to 1."""
        if labels.dtype.kind not in "iu" or labels.size != len(labels):
            raise InputError("mixing rows needs one whole number per row as the label, its class")
        check(labels.reshape(-1), (len(labels), self.classes))
        share = np.float32(rng.beta(self.alpha, self.alpha))
        other = rng.permutation(len(labels))
        hot = np.eye(self.classes, dtype=np.float32)[labels.reshape(-1)]
        mixed = {
            name: share * x + (1 - share) * x[other] if x.dtype.kind == "f" else x
            for name, x in inputs.items()
        }
        return mixed, share * hot + (1 - share) * hot[other]


NAMED: dict[str, Callable[[int], Augment]] = {  # each with its number of pixels, 0 where none was given
    "crop": lambda pixels: RandomCrop(pixels or RandomCrop.padding),
    "mirror": lambda _pixels: Mirror(),
    "cutout": lambda pixels: Cutout(pixels or Cutout.side),
}


def named(words: Sequence[str]) -> Augment:
    """Return the changes of these names in a row: "crop", "crop:4" (pixels), "mirror", "cutout:8".

    Raises UsageError for a name or number that is none.
    """
    parts = []
    for word in words:
        name, _, pixels = word.partition(":")
        if name not in NAMED or not (pixels.isdigit() or not pixels):
            raise UsageError(
                f"unknown augmentation {word!r}; choose from: {', '.join(NAMED)}, as in 'crop:4'"
            )
        parts.append(NAMED[name](int(pixels or 0)))
    return Chain(tuple(parts))


def _pictures(inputs: Inputs, layout: str, change: Callable[[np.ndarray], np.ndarray]) -> Inputs:
    """Apply a change to every input of four axes, with channels on axis 1 meanwhile."""
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}; choose one of: {', '.join(LAYOUTS)}")
    found = {}
    for name, x in inputs.items():
        if x.ndim != 4:
            found[name] = x
        elif layout == "nhwc":
            found[name] = np.moveaxis(change(np.moveaxis(x, 3, 1)), 1, 3)
        else:
            found[name] = change(x)
    return found
