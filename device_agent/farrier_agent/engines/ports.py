"""How a file holds a model's inputs and outputs: each tensor's index, axis order and affine quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from farrier_contracts.errors import BundleError
from farrier_contracts.tensors import DYNAMIC, NUMPY_NAMES, TensorSpec

AGAIN = "build the bundle again"
Detail = Mapping[str, Any]  # LiteRT's description of one tensor


@dataclass(frozen=True)
class Port:
    """One input or output. With a `layout`, the file's axis `i` is the model's axis `layout[i]`.

    Where `dtype`, the file's, is not the model's, the file's integers mean (q - zero_point) * scale.
    """

    spec: TensorSpec
    index: int
    dtype: np.dtype
    scale: float
    zero_point: int
    layout: Optional[Tuple[int, ...]] = None

    @property
    def _converts(self) -> bool:
        return self.dtype != _dtype(self.spec)

    def stored(self, array: np.ndarray) -> np.ndarray:
        """Return a model's array as the file holds it; rounds half to even and saturates."""
        if self.layout:
            array = array.transpose(self.layout)
        if not self._converts:
            return array
        limits = np.iinfo(self.dtype)
        quanta = np.rint(array / np.float32(self.scale)) + self.zero_point
        return np.clip(quanta, limits.min, limits.max).astype(self.dtype)

    def given(self, array: np.ndarray) -> np.ndarray:
        """Return a file's array as the model has it, C-contiguous."""
        if self._converts:
            real = (array.astype(np.float32) - self.zero_point) * np.float32(self.scale)
            array = real.astype(NUMPY_NAMES[self.spec.datatype], copy=False)
        if self.layout:
            array = np.ascontiguousarray(array.transpose(np.argsort(self.layout)))
        return array


@dataclass(frozen=True)
class Held:
    """What an artifact's options say of its file's ends: `layouts` by name, and the `quantized` ones."""

    layouts: Mapping[str, Tuple[int, ...]]
    quantized: Tuple[str, ...]

    @staticmethod
    def read(options: Mapping[str, Any], specs: Sequence[TensorSpec]) -> Held:
        """Check the options against the manifest's tensors; raises BundleError."""
        layouts, quantized = options.get("layouts", {}), options.get("quantized", [])
        ranks = {spec.name: len(spec.shape) for spec in specs}
        if not isinstance(layouts, Mapping) or not isinstance(quantized, list):
            raise BundleError(f"the artifact's options layouts and quantized are malformed: {AGAIN}")
        for name, layout in layouts.items():
            is_order = isinstance(layout, list) and all(type(axis) is int for axis in layout)
            if name not in ranks or not is_order or sorted(layout) != list(range(ranks[name])):
                raise BundleError(f"the artifact's layout of {name!r:.80} is no order of its axes: {AGAIN}")
        for name in quantized:
            if name not in list(ranks):
                raise BundleError(f"the artifact quantizes {name!r:.80}, which is no tensor of it: {AGAIN}")
        return Held({name: tuple(layout) for name, layout in layouts.items()}, tuple(quantized))

    def shape(self, spec: TensorSpec) -> Tuple[int, ...]:
        """Return a tensor's shape in the file."""
        return tuple(spec.shape[axis] for axis in self.layouts.get(spec.name, range(len(spec.shape))))


def match(kind: str, specs: Sequence[TensorSpec], details: Sequence[Detail], held: Held) -> List[Port]:
    """Pair the manifest's tensors with the file's: by name, else by dtype and shape, else by what is left.

    A file reports the shapes of some outputs only after its first run, but the last axis is right before.
    Raises BundleError where they do not fit.
    """
    left = list(details)
    found: Dict[str, Detail] = {}
    for fits in (_same_name, _same_shape, _same_last_axis, _anything):
        for spec in specs:
            matching = [detail for detail in left if fits(spec, detail, held.shape(spec))]
            if spec.name not in found and len(matching) == 1:
                found[spec.name] = matching[0]
                left.remove(matching[0])
    for spec in specs:
        if spec.name not in found:
            raise BundleError(f"the model has no {kind} like the manifest's {spec.name!r}: {AGAIN}")
    if kind == "input" and left:
        raise BundleError(f"the model has an input {left[0]['name']!r} that the manifest does not declare")
    return [_port(kind, spec, found[spec.name], held) for spec in specs]


def _same_name(spec: TensorSpec, detail: Detail, want: Tuple[int, ...]) -> bool:
    plain = detail["name"].partition(":")[0]
    return spec.name in (detail["name"], plain, plain.replace("serving_default_", "", 1))


def _same_shape(spec: TensorSpec, detail: Detail, want: Tuple[int, ...]) -> bool:
    shape = tuple(int(n) for n in detail["shape"])
    return len(shape) == len(want) and all(w in (DYNAMIC, have) for w, have in zip(want, shape))


def _same_last_axis(spec: TensorSpec, detail: Detail, want: Tuple[int, ...]) -> bool:
    return bool(want) and len(detail["shape"]) > 0 and want[-1] == int(detail["shape"][-1])


def _anything(spec: TensorSpec, detail: Detail, want: Tuple[int, ...]) -> bool:
    return True


def _port(kind: str, spec: TensorSpec, detail: Detail, held: Held) -> Port:
    scale, zero_point = detail.get("quantization") or (0.0, 0)
    dtype = np.dtype(detail["dtype"])
    converts = dtype != _dtype(spec)
    quantizable = dtype.kind in "iu" and spec.datatype in ("FP32", "FP64") and scale
    if (converts or spec.name in held.quantized) and not quantizable:
        raise BundleError(
            f"{kind} {spec.name!r} is {dtype} in the model but {spec.datatype} in the manifest: {AGAIN}"
        )
    return Port(spec, int(detail["index"]), dtype, float(scale), int(zero_point), held.layouts.get(spec.name))


def _dtype(spec: TensorSpec) -> np.dtype:
    return np.dtype(NUMPY_NAMES.get(spec.datatype, "object"))  # BYTES is in no file
