"""Resizing: TFLite's own where its grid is exactly the asked one, else one gather or product per axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ....tflite import layout
from ..builder import Builder, Held
from ..ends import channels_last
from ..errors import Code, UnsupportedError
from ..node import Handler, Node, axis_of

NATIVE = {  # coordinates of TFLite's bilinear: name -> options
    "asymmetric": {},
    "half_pixel": {"half_pixel": 1},
    "pytorch_half_pixel": {"half_pixel": 1},
    "align_corners": {"align_corners": 1},
}
NATIVE_NEAREST = {
    ("asymmetric", "floor"): {},
    ("half_pixel", "round_prefer_ceil"): {"half_pixel": 1},
    ("align_corners", "round_prefer_ceil"): {"align_corners": 1},
}


@dataclass(frozen=True)
class Grid:
    """Where the elements along one axis come from. `roi` is the part that tf_crop_and_resize looks at, 0..1."""

    size: int
    out: int
    scale: float
    mode: str
    roi: tuple[float, float] = (0.0, 1.0)

    @property
    def coordinates(self) -> np.ndarray:
        """Places in the input, one per element of the output (ONNX, operator Resize)."""
        x, size, out, scale = np.arange(self.out, dtype=np.float64), self.size, self.out, self.scale
        if self.mode == "asymmetric":
            return x / scale
        if self.mode == "align_corners":
            return x * (size - 1) / (out - 1) if out > 1 else x * 0
        if self.mode == "tf_crop_and_resize":
            start, end = self.roi
            if out == 1:
                return x * 0 + 0.5 * (start + end) * (size - 1)
            return start * (size - 1) + x * (end - start) * (size - 1) / (out - 1)
        half = (x + 0.5) / scale - 0.5
        if self.mode == "pytorch_half_pixel":
            return half if out > 1 else x * 0
        if self.mode == "half_pixel_symmetric":
            return half + size / 2 * (1 - out / (scale * size))
        if self.mode != "half_pixel":
            raise UnsupportedError(Code.ATTRIBUTE, f"coordinate mode {self.mode!r}")
        return half

    @property
    def plain(self) -> bool:
        """Say whether the scale is what the two sizes make of it, as TFLite computes it."""
        return math.isclose(self.scale * self.size, self.out, rel_tol=1e-6)

    @property
    def outside(self) -> np.ndarray:
        """Which elements tf_crop_and_resize fills, because they lie outside of the input."""
        x = self.coordinates
        return ((x < 0) | (x > self.size - 1)) & (self.mode == "tf_crop_and_resize")


def _resize(b: Builder, node: Node) -> None:
    x = node.input(0)
    if x.dtype not in ("float32", "int8"):
        raise UnsupportedError(Code.DTYPE, f"resizing {x.dtype}")
    grids = _grids(node)
    moving = _moving(grids)
    mode = node.attr("mode", "nearest")
    options = _native(node, moving, mode)
    order = channels_last(x.rank) if options is not None else x.native
    held = b.get(x, order)
    if options is not None:
        sizes = (
            [grids[axis].out for axis in (2, 3)] if grids.keys() >= {2, 3} else list(node.output.shape[2:])
        )
        shape = (held.shape[0], *sizes, held.shape[3])
        name = "RESIZE_NEAREST_NEIGHBOR" if mode == "nearest" else "RESIZE_BILINEAR"
        b.put(node.output, b.op(name, [held, b.integers(sizes)], shape, **options), order)
        return
    for axis, grid in moving.items():
        held = _along(b, held, order.index(axis), grid, node, mode)
    b.put(node.output, _extrapolated(b, held, order, moving, node), order)


def _moving(grids: dict[int, Grid]) -> dict[int, Grid]:
    """Return the axes on which something changes."""
    return {
        axis: grid
        for axis, grid in grids.items()
        if grid.size != grid.out or not grid.plain or grid.mode == "tf_crop_and_resize"
    }


def only_moves(node: Node) -> bool:
    """Say whether TFLite's own resizing or gathering does it, which integers have kernels for."""
    moving, mode = _moving(_grids(node)), node.attr("mode", "nearest")
    whole = not any(grid.outside.any() for grid in moving.values())
    return whole and (mode == "nearest" or _native(node, moving, mode) is not None)


def _grids(node: Node) -> dict[int, Grid]:
    """Resolve scales, sizes and region; before operator set 11 there are scales alone, and one grid."""
    x, old = node.input(0), node.opset < 11 or node.op == "Upsample"
    axes = [axis_of(a, x.rank) for a in node.attr("axes") or range(x.rank)]
    sizes = None if old or node.optional(3) is None else [int(v) for v in node.constant(3).ravel()]
    if sizes:
        factors = [size / x.shape[axis] for size, axis in zip(sizes, axes, strict=True)]
        policy = node.attr("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factors = [(min if policy == "not_larger" else max)(factors)] * len(axes)
        outs = (
            sizes
            if policy == "stretch"
            else [int(f * x.shape[a] + 0.5) for f, a in zip(factors, axes, strict=True)]
        )
    else:
        given = node.attributes.get("scales")
        factors = [float(v) for v in (node.constant(1 if old else 2).ravel() if given is None else given)]
        outs = [math.floor(f * x.shape[a]) for f, a in zip(factors, axes, strict=True)]
    mode = "asymmetric" if old else node.attr("coordinate_transformation_mode", "half_pixel")
    region = [0.0] * len(axes) + [1.0] * len(axes)
    if mode == "tf_crop_and_resize":
        region = [float(v) for v in node.constant(1).ravel()]
    if any(layout.free(x.shape[axis]) and factor != 1 for axis, factor in zip(axes, factors, strict=True)):
        raise layout.BatchError("the rows are resized")
    return {
        axis: Grid(x.shape[axis], out, factor, mode, (region[i], region[len(axes) + i]))
        for i, (axis, out, factor) in enumerate(zip(axes, outs, factors, strict=True))
        if not layout.free(x.shape[axis])
    }


def _native(node: Node, moving: dict[int, Grid], mode: str) -> dict[str, int] | None:
    """Return the options of TFLite's own operator where it is exactly this one."""
    if node.input(0).rank != 4 or not moving or not moving.keys() <= {2, 3}:
        return None
    if not all(grid.plain for grid in moving.values()) or node.attr("antialias", 0):
        return None
    if node.attr("exclude_outside", 0):
        return None
    name = next(iter(moving.values())).mode
    if name == "pytorch_half_pixel" and any(grid.out == 1 for grid in moving.values()):
        return None
    if mode == "nearest":
        rounding = (
            "floor"
            if node.opset < 11 or node.op == "Upsample"
            else node.attr("nearest_mode", "round_prefer_floor")
        )
        return NATIVE_NEAREST.get((name, rounding))
    return NATIVE.get(name) if mode == "linear" else None


def _along(b: Builder, x: Held, place: int, grid: Grid, node: Node, mode: str) -> Held:
    """Resize one axis as stored."""
    shape = [grid.out if p == place else size for p, size in enumerate(x.shape)]
    if mode == "nearest":
        old = node.opset < 11 or node.op == "Upsample"
        rounding = "floor" if old else node.attr("nearest_mode", "round_prefer_floor")
        places = np.clip(_rounded(grid.coordinates, rounding), 0, grid.size - 1)
        return b.op("GATHER", [x, b.integers(places)], shape, x.dtype, axis=place)
    matrix = b.constant(_matrix(grid, node, mode)[None])
    before, after = math.prod(x.shape[:place]), math.prod(x.shape[place + 1 :])
    rows = b.reshape(x, (before, grid.size, after))
    return b.reshape(b.op("BATCH_MATMUL", [matrix, rows], (before, grid.out, after)), shape)


def _rounded(x: np.ndarray, rounding: str) -> np.ndarray:
    rounded = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda v: np.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
    }[rounding](np.round(x, 9))  # what should be whole or half is not always, after a division
    return rounded.astype(np.int64)


def _matrix(grid: Grid, node: Node, mode: str) -> np.ndarray:
    """Return the weights of the inputs in each output: [out, size] float32."""
    shrink = min(grid.scale, 1.0) if node.attr("antialias", 0) else 1.0
    radius = 1 if mode == "linear" else 2
    first = math.floor(-radius / shrink) + 1
    taps = np.arange(first, 2 - first if radius == 1 else radius - first + 1)
    matrix = np.zeros((grid.out, grid.size))
    for row, x in enumerate(grid.coordinates):
        places = math.floor(x) + taps
        distance = np.abs((places - x) * shrink)
        if mode == "linear":
            share = np.clip(1 - distance, 0, 1)
        else:
            share = _cubic(distance, float(node.attr("cubic_coeff_a", -0.75)))
        inside = (places >= 0) & (places < grid.size)
        if node.attr("exclude_outside", 0):
            share = share * inside
        np.add.at(matrix[row], np.clip(places, 0, grid.size - 1), share / share.sum())
    return matrix.astype(np.float32)


def _cubic(d: np.ndarray, a: float) -> np.ndarray:
    """R. Keys, Cubic convolution interpolation for digital image processing, 1981."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _extrapolated(b: Builder, x: Held, order: layout.Order, grids: dict[int, Grid], node: Node) -> Held:
    outside = np.zeros((1,) * x.rank, bool)
    for axis, grid in grids.items():
        place = order.index(axis)
        outside = outside | grid.outside.reshape([grid.out if p == place else 1 for p in range(x.rank)])
    if not outside.any():
        return x
    fill = b.constant(float(node.attr("extrapolation_value", 0.0)), x.dtype)
    return b.op("SELECT_V2", [b.constant(outside), fill, x], x.shape, x.dtype)


RESAMPLE: dict[str, Handler] = {"Resize": _resize, "Upsample": _resize}
