"""Run the old and the new form of a place side by side on random inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper

from ..graph import run
from ..graph.edit import standard
from ..graph.types import infer
from .place import both, place_of
from .record import Proof, Rewrite
from .site import Site
from .trial import UnknownShapeError, trials

TOLERANCE = 1e-5  # of a distance, relative to the largest result
HALF_TOLERANCE = 2e-3  # the same for results of 16 bits
MAX_ELEMENTS = 1 << 24  # of all tensors of a trial together
SPREAD = 2.0  # standard deviation of the inputs, so that activation functions see both of their ends
# Operators whose result may be of any size, whatever the size of what they read.
GROWING = (
    "Expand",
    "Tile",
    "Resize",
    "Upsample",
    "ConstantOfShape",
    "Range",
    "Pad",
    "OneHot",
    "ConvTranspose",
)


class UnprovenError(Exception):
    """The new form computes something else, or cannot be run; says which."""


def prove(site: Site, rewrite: Rewrite, results: Sequence[str], *, exact: bool) -> Proof:
    """Compare what both forms make of `results`; raises UnprovenError.

    The smallest sizes with which the engine runs both are enough.
    """
    place = place_of(site, rewrite)
    why = "the engine does not run it"
    try:
        for trial in trials(site, rewrite, place):
            proto = both(site, rewrite, results, trial.place, trial.shapes)
            if not _affordable(proto):
                why = "its tensors are too large to try"
                continue
            feeds = {name: _noise(site, name, shape) for name, shape in trial.shapes.items()}
            try:
                found = run.session(proto, optimize=False).run(None, feeds)
            except run.runtime_errors() as error:
                why = f"the engine does not run it: {run.brief(error)}"
                continue
            arrays = [np.asarray(value) for value in found]
            return _compare(arrays[: len(results)], arrays[len(results) :], exact=exact)
    except UnknownShapeError as error:
        why = str(error)
    raise UnprovenError(why)


def _affordable(proto: onnx.ModelProto) -> bool:
    """Say whether all tensors of a trial fit in memory; what is asked for may be of any size."""
    types = infer(proto)
    total = 0
    for node in proto.graph.node:
        for name in node.output:
            shape = types[name].shape if name in types else None
            if shape is None or None in shape:
                if standard(node, *GROWING):
                    return False
                continue
            total += math.prod(size or 0 for size in shape)
    total += sum(math.prod(d.dim_value for d in v.type.tensor_type.shape.dim) for v in proto.graph.input)
    return total <= MAX_ELEMENTS


def _noise(site: Site, name: str, shape: Iterable[int]) -> np.ndarray:
    dtype = helper.tensor_dtype_to_np_dtype(site.types[name].dtype)
    rng = np.random.default_rng(len(name))
    if dtype.kind == "O":
        return np.asarray(rng.choice(np.array(["", "a", "b"], object), tuple(shape)))
    if dtype.kind in "iub":
        return np.asarray(rng.integers(0, 2, tuple(shape))).astype(dtype)
    if dtype.kind != "f":
        raise UnprovenError(f"there is no noise of type {dtype}")
    return np.asarray(SPREAD * rng.standard_normal(tuple(shape), np.float32)).astype(dtype)


def _compare(before: list[np.ndarray], after: list[np.ndarray], *, exact: bool) -> Proof:
    furthest = relative = 0.0
    values = 0
    for old, new in zip(before, after, strict=True):
        if np.shape(old) != np.shape(new) or old.dtype != new.dtype:
            raise UnprovenError(
                f"it makes {new.dtype}{list(np.shape(new))} of {old.dtype}{list(np.shape(old))}"
            )
        values += old.size
        if exact or old.dtype.kind != "f":
            if not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
                raise UnprovenError("it gives other values")
            continue
        with np.errstate(invalid="ignore"):
            gaps = np.abs(old.astype(np.float64) - new.astype(np.float64))
            same = (old == new) | (np.isnan(old) & np.isnan(new))
        gap = float(np.where(same, 0.0, gaps).max(initial=0.0))
        finite = np.abs(old[np.isfinite(old)].astype(np.float64)).max(initial=0.0)
        share = gap / max(float(finite), 1e-30) if gap else 0.0
        if not share <= _tolerance(old.dtype):
            raise UnprovenError(f"it gives values that differ by {share:.1g} of the largest")
        furthest, relative = max(furthest, gap), max(relative, share)
    return Proof(furthest, relative, values)


def _tolerance(dtype: np.dtype) -> float:
    return TOLERANCE if dtype.itemsize > 2 else HALF_TOLERANCE
