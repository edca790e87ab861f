"""Padding, and resizing by explicit interpolation along each axis, in every coordinate mode of the standard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ._node import Function, Node, ints
from .linear import pad_ends

KEPT = 256  # ways of resizing an axis
MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(node: Node) -> Function:
    return partial(
        _pad,
        mode=node.get("mode", "constant"),
        fixed=node.get("pads"),
        filler=node.get("value", 0.0),
    )


def _pad(
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str,
    fixed: list[int] | None,
    filler: float,
) -> Tensor:
    amounts = ints(pads if pads is not None else fixed)
    half = len(amounts) // 2
    chosen = ints(axes) if axes is not None else list(range(half))
    begins, ends = [0] * x.ndim, [0] * x.ndim
    for position, axis in enumerate(chosen):
        begins[axis], ends[axis] = amounts[position], amounts[position + half]
    if mode == "constant":
        return pad_ends(x, begins, ends, filler if value is None else value.item())
    for axis in range(x.ndim):
        if begins[axis] or ends[axis]:
            rows = x.movedim(axis, -1)
            flat = rows.reshape(1, -1, rows.shape[-1])
            flat = F.pad(flat, (begins[axis], ends[axis]), mode=MODES[mode])
            x = flat.reshape(*rows.shape[:-1], -1).movedim(-1, axis)
    return x


@dataclass(frozen=True)
class Sampling:
    """How a result's coordinate becomes a source's, and how values between samples are made."""

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75

    def positions(self, size: int, result: int, scale: float) -> np.ndarray:
        """Return the source coordinate of each of `result` positions."""
        index = np.arange(result, dtype=np.float64)
        if self.coordinates == "asymmetric":
            return index / scale
        if self.coordinates == "align_corners":
            return index * (size - 1) / (size * scale - 1) if result > 1 else index * 0
        if self.coordinates == "pytorch_half_pixel" and result == 1:
            return index * 0
        return (index + 0.5) / scale - 0.5

    def taps(self, positions: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (source index, weight) for every sample that goes into a result."""
        if self.mode == "nearest":
            return [(self._round(positions), np.ones_like(positions))]
        floor = np.floor(positions)
        share = positions - floor
        if self.mode == "linear":
            return [(floor, 1 - share), (floor + 1, share)]
        return [(floor + k, _cubic(np.abs(share - k), self.cubic)) for k in (-1, 0, 1, 2)]

    def _round(self, positions: np.ndarray) -> np.ndarray:
        if self.rounding == "floor":
            return np.floor(positions)
        if self.rounding == "ceil":
            return np.ceil(positions)
        if self.rounding == "round_prefer_ceil":
            return np.floor(positions + 0.5)
        return np.ceil(positions - 0.5)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, far)


def resize(node: Node) -> Function:
    if node.get("antialias", 0) or node.get("exclude_outside", 0):
        raise node.refuse("it filters against aliasing or leaves out what lies outside")
    old = node.opset < 11
    coordinates = "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel")
    if coordinates not in ("asymmetric", "align_corners", "half_pixel", "pytorch_half_pixel"):
        raise node.refuse(f"its coordinates are of the kind {coordinates}")
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.refuse("it keeps the aspect ratio")
    sampling = Sampling(
        node.get("mode", "nearest"),
        coordinates,
        "floor" if old else node.get("nearest_mode", "round_prefer_floor"),
        node.get("cubic_coeff_a", -0.75),
    )
    return partial(_resize, sampling=sampling, axes=node.get("axes"), old=old, fixed=node.get("scales"))


def _resize(
    x: Tensor,
    *given: Tensor | None,
    sampling: Sampling,
    axes: list[int] | None,
    old: bool,
    fixed: list[float] | None,
) -> Tensor:
    inputs = (*((None, *given) if old else given), None, None, None)[:3]
    chosen = list(range(x.ndim)) if axes is None else list(axes)
    scales = inputs[1].tolist() if inputs[1] is not None and inputs[1].numel() else list(fixed or ())
    sizes = ints(inputs[2]) if inputs[2] is not None and inputs[2].numel() else None
    for number, axis in enumerate(chosen):
        size = x.shape[axis]
        scale = sizes[number] / size if sizes else scales[number]
        result = sizes[number] if sizes else int(np.floor(size * scale))
        if result != size or scale != 1:
            x = _along(x, axis, result, scale, sampling)
    return x


def _along(x: Tensor, axis: int, result: int, scale: float, sampling: Sampling) -> Tensor:
    total: Tensor | None = None
    for rows, shares in _samples(sampling, x.shape[axis], result, scale, x.device):
        picked = x.index_select(axis, rows)
        if sampling.mode != "nearest":
            picked = picked * shares.to(x.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        total = picked if total is None else total + picked
    return x if total is None else total


@lru_cache(maxsize=KEPT)
def _samples(
    sampling: Sampling, size: int, result: int, scale: float, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Return (source index, weight) for every sample of a result, on the device: made once for all batches."""
    found = sampling.taps(sampling.positions(size, result, scale))
    return [
        (
            torch.from_numpy(np.clip(index, 0, size - 1).astype(np.int64)).to(device),
            torch.from_numpy(weight).to(device),
        )
        for index, weight in found
    ]


OPS = {"Pad": pad, "Resize": resize, "Upsample": resize}
