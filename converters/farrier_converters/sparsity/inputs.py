"""What layers multiply their weights with, from calibration data: the rows of inputs, and sums over them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from farrier_contracts.errors import InputError

from ..graph.edit import attribute, standard
from ..model import Model
from ..weights import moments
from ..weights.moments import Batches, Tap
from .layers import Layer


def observable(layer: Layer) -> bool:
    """Say whether the inputs of a layer can be read from the graph.

    Those of recurrent weights are states inside of the operator; a product of two constants, or of a stack of
    matrices, has no rows of its own; and tables are not multiplied with anything.
    """
    other = (
        layer.node.input[1 - layer.slot] if standard(layer.node, "Gemm", "MatMul") else layer.node.input[0]
    )
    stacked = standard(layer.node, "Gemm", "MatMul") and len(layer.view.shape) > 2
    hidden = standard(layer.node, "LSTM", "GRU", "RNN") and layer.slot == 2
    return not (layer.inner or stacked or hidden or standard(layer.node, "Gather")) and bool(other)


def norms(
    model: Model, layers: Collection[Layer], batches: Batches, heard: Callable[[float], None]
) -> dict[Layer, np.ndarray]:
    """Return the L2 norm of each input of each layer over all rows, float64 [groups, inputs * kernel].

    Raises InputError as `weights.moments.second_moments` does.
    """

    def squares(layer: Layer, value: np.ndarray) -> np.ndarray:
        rows = rows_of(layer, value)
        return _finite(np.einsum("gnc,gnc->gc", rows, rows, dtype=np.float64), layer)

    found = moments.sums(model, list(layers), batches, squares, source, heard=heard)
    return {layer: np.sqrt(value) for layer, value in found.items()}


def second_moments(
    model: Model, layers: Collection[Layer], batches: Batches, heard: Callable[[float], None]
) -> dict[Layer, np.ndarray]:
    """Return X^T X of the inputs of each layer, float64 [groups, inputs * kernel, inputs * kernel].

    Raises InputError as `weights.moments.second_moments` does.
    """

    def products(layer: Layer, value: np.ndarray) -> np.ndarray:
        rows = rows_of(layer, value)
        return _finite((rows.transpose(0, 2, 1) @ rows).astype(np.float64), layer)

    return moments.sums(model, list(layers), batches, products, source, heard=heard)


def source(layer: Layer) -> str:
    """Return the tensor that a layer multiplies its weights with."""
    return layer.node.input[1 - layer.slot if standard(layer.node, "Gemm", "MatMul") else 0]


def rows_of(layer: Layer, value: np.ndarray) -> np.ndarray:
    """Return the inputs that each output's weights are dotted with: float32 [groups, rows, inputs * kernel].

    Columns are in the order of the matrix view. Of a convolution, at most `moments.POSITIONS` windows of a batch.
    """
    view, columns = layer.view, layer.view.inputs * layer.view.kernel
    if standard(layer.node, "Conv"):
        flat = moments.windows(value, _tap(layer, len(view.taps)))
    elif standard(layer.node, "ConvTranspose"):
        flat = _transposed(layer, value)
    else:
        if standard(layer.node, "Gemm", "MatMul"):
            flag = bool(attribute(layer.node, "transA" if layer.slot else "transB", 0))
            if flag != (layer.slot == 0) and value.ndim > 1:  # the inputs are not on the last axis
                value = value.swapaxes(-1, -2)
        flat = value.reshape(-1, columns)
    apart = flat.reshape(len(flat), view.groups, columns).transpose(1, 0, 2)
    return np.ascontiguousarray(apart, np.float32)


def _tap(layer: Layer, rank: int) -> Tap:
    node = layer.node
    automatic = attribute(node, "auto_pad", b"NOTSET")
    windows = (
        layer.view.taps,
        tuple(attribute(node, "strides", [1] * rank)),
        tuple(attribute(node, "dilations", [1] * rank)),
        tuple(attribute(node, "pads", [0] * (2 * rank))),
    )
    name = automatic.decode() if isinstance(automatic, bytes) else automatic
    return Tap(node.input[0], layer.view.inputs * layer.view.kernel, windows, name)


def _transposed(layer: Layer, value: np.ndarray) -> np.ndarray:
    """A transposed convolution is one with its kernel mirrored, over inputs with zeros between them.

    All windows of the widened input are taken, also those that the operator's own `pads` would cut off at the border.
    """
    taps, node = layer.view.taps, layer.node
    rank = len(taps)
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    sizes = [(n - 1) * s + 1 for n, s in zip(value.shape[2:], strides, strict=True)]
    wide = np.zeros((*value.shape[:2], *sizes), np.float32)
    wide[(..., *(slice(None, None, s) for s in strides))] = value
    reach = [d * (k - 1) for k, d in zip(taps, dilations, strict=True)]
    windows = (tuple(taps), (1,) * rank, tuple(dilations), (*reach, *reach))
    flat = moments.windows(wide, Tap("", layer.view.inputs * layer.view.kernel, windows))
    kernels = flat.reshape(len(flat), value.shape[1], *taps)
    mirrored = kernels[(slice(None), slice(None), *(slice(None, None, -1) for _ in taps))]
    return mirrored.reshape(len(flat), -1)


def _finite(value: np.ndarray, layer: Layer) -> np.ndarray:
    if not np.isfinite(value).all():
        raise InputError(
            f"the calibration data makes the inputs of {layer.label!r} take values that are not finite"
        )
    return value
