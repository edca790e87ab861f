"""Shapes of tensors with free dimensions: inferred where inference can tell, else seen in a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import DYNAMIC, NUMPY_NAMES

from ...graph import run
from ...graph.edit import Graph
from ...model import Model

PROBES = ((2, 16, 64), (1, 16, 64), (1, 32, 224))  # rows, free sizes, free sides of pictures
FEW = 2  # rows of an input that is given
Kind = tuple[int, tuple[Any, ...]]  # element type; sizes, or the names of free ones


class Kinds:
    """Element types and shapes of some tensors, comparable also where dimensions are free."""

    def __init__(
        self, model: Model, graph: Graph, names: Sequence[str], feeds: Mapping[str, np.ndarray] | None
    ) -> None:
        self._inferred = _inferred(graph)
        self._seen: dict[str, Kind] = {}
        if any(self._open(name) for name in names):
            self._seen = _seen(model, list(dict.fromkeys(names)), feeds)

    def get(self, name: str) -> Kind | None:
        """Return what is known of a tensor."""
        return self._seen.get(name) or self._inferred.get(name)

    def same(self, left: str, right: str) -> bool:
        """Say whether two tensors have the same type and shape, as far as one run shows it."""
        return self._equal(self.get(left), self.get(right))

    def inferred_same(self, left: str, right: str) -> bool:
        """Say whether inference alone shows that two tensors have the same type and shape."""
        return self._equal(self._inferred.get(left), self._inferred.get(right))

    def _open(self, name: str) -> bool:
        kind = self._inferred.get(name)
        return kind is None or not all(isinstance(size, int) for size in kind[1])

    @staticmethod
    def _equal(left: Kind | None, right: Kind | None) -> bool:
        return left is not None and None not in left[1] and left == right


def _inferred(graph: Graph) -> dict[str, Kind]:
    proto = graph.without_weights()
    with suppress(onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        proto = onnx.shape_inference.infer_shapes(proto)
    found: dict[str, Kind] = {}
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        tensor = value.type.tensor_type
        if value.type.HasField("tensor_type") and tensor.HasField("shape"):
            sizes = tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim
            )
            found[value.name] = (tensor.elem_type, sizes)
    return found


def _seen(model: Model, names: list[str], feeds: Mapping[str, np.ndarray] | None) -> dict[str, Kind]:
    part = run.up_to(model.proto, names)
    for candidate in _probes(model) if feeds is None else _cut(model, feeds):
        with suppress(InputError):
            values = run.once(part, dict(candidate))
            types = (onnx.helper.np_dtype_to_tensor_dtype(np.asarray(v).dtype) for v in values)
            return {
                n: (t, np.asarray(v).shape)
                for n, t, v in zip(dict.fromkeys(names), types, values, strict=True)
            }
    return {}


def _cut(model: Model, feeds: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Yield the first rows of the inputs, which say as much in less memory; all of them where these do not run."""
    free = {spec.name for spec in model.inputs if spec.shape and spec.shape[0] == DYNAMIC}
    yield {name: value[:FEW] if name in free else value for name, value in feeds.items()}
    yield dict(feeds)


def _probes(model: Model) -> Iterator[dict[str, np.ndarray]]:
    """Yield inputs whose free sizes are larger than one, so that halved ones show."""
    for rows, free, side in PROBES:
        feeds = {}
        for spec in model.inputs:
            if spec.datatype not in NUMPY_NAMES:
                return
            sizes = (rows, free, *(side if len(spec.shape) == 4 else free for _ in spec.shape[2:]))
            shape = [n if s == DYNAMIC else s for n, s in zip(sizes, spec.shape, strict=False)]
            dtype = np.dtype(NUMPY_NAMES[spec.datatype])
            feeds[spec.name] = np.ones(shape, dtype) if dtype.kind != "f" else _noise(shape).astype(dtype)
        yield feeds


def _noise(shape: list[int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)
