"""Weights fitted again after pruning, so that layers give what they gave before: without labels, and without gradients.

Layer by layer in the order of the graph, least squares on calibration rows finds the weights and the bias with which
the pruned layer, on what the pruned network feeds it, comes nearest to the dense layer's result: He et al., "Channel
Pruning for Accelerating Very Deep Neural Networks", arXiv 1707.06168, section 3.1, with a ridge towards the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from farrier_contracts.errors import InputError

from ...graph import run
from ...graph.edit import Graph, attribute, standard
from ...model import Model
from ...weights.moments import Tap, tap_of, windows
from ...weights.sites import CONV, LINEAR, Site

Rows = Callable[[], Iterator[Mapping[str, np.ndarray]]]
Kept = Callable[[str, int, int], np.ndarray]  # tensor, axis, size in the dense model -> which of them stay


@dataclass(frozen=True)
class RebuildSettings:
    """`ridge` pulls towards the weights at hand, in shares of an input's mean square; `most_columns` bounds memory.

    A layer is left as it is where its fit explains less than `least_gain` of the error more than it did before.
    """

    ridge: float = 1e-3
    most_columns: int = 4608  # inputs times kernel positions: 512 x 9
    least_gain: float = 1e-4


def rebuild(
    dense: Model,
    pruned: Model,
    kept: Kept,
    rows: Rows,
    *,
    settings: RebuildSettings = RebuildSettings(),
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> Model:
    """Return the pruned model with its convolutions and dense layers fitted to the dense model's results.

    Layers match by the tensor that they make. Left alone are layers in groups, computed weights, and all before the
    first that lost something. Raises InputError for rows that do not fit the model.
    """
    graph = Graph(pruned)
    originals = {node.output[0]: node for node in Graph(dense).nodes}
    chosen = [node for node in graph.ordered() if _fits(node, graph, originals, settings)]
    changed = False
    for number, node in enumerate(chosen):
        progress("fitting what is left", number / len(chosen))
        changed = changed or _differs(node, originals[node.output[0]], graph, Graph(dense))
        if changed:
            _refit(graph, node, dense, _stays(node, originals, dense, kept), rows, settings)
    graph.index()
    return graph.build()


def _fits(
    node: onnx.NodeProto, graph: Graph, originals: Mapping[str, onnx.NodeProto], settings: RebuildSettings
) -> bool:
    if not standard(node, "Conv", "Gemm", "MatMul") or node.output[0] not in originals:
        return False
    weight = graph.initializers.get(node.input[1])
    if weight is None or weight.data_type != onnx.TensorProto.FLOAT or len(graph.readers[node.input[1]]) > 1:
        return False
    if originals[node.output[0]].op_type != node.op_type or attribute(node, "group", 1) != 1:
        return False
    if node.op_type == "Gemm" and (
        attribute(node, "transA", 0)
        or attribute(node, "alpha", 1.0) != 1
        or attribute(node, "beta", 1.0) != 1
    ):
        return False
    if node.op_type != "Conv" and len(weight.dims) != 2:
        return False
    return _matrix(node, graph).shape[1] <= settings.most_columns


def _differs(node: onnx.NodeProto, original: onnx.NodeProto, graph: Graph, dense: Graph) -> bool:
    first, second = graph.constant(node.input[1]), dense.constant(original.input[1])
    return first is None or second is None or first.shape != second.shape


def _matrix(node: onnx.NodeProto, graph: Graph) -> np.ndarray:
    """Return the weights as [outputs, columns], a view where that can be."""
    value = numpy_helper.to_array(graph.initializers[node.input[1]])
    if node.op_type == "Conv":
        return value.reshape(len(value), -1)
    turned = node.op_type == "Gemm" and attribute(node, "transB", 0)
    return value if turned else value.T


def _stays(
    node: onnx.NodeProto, originals: Mapping[str, onnx.NodeProto], dense: Model, kept: Kept
) -> np.ndarray:
    """Return which of the dense layer's outputs the pruned one has."""
    original = originals[node.output[0]]
    shape = next(t.dims for t in Graph(dense).initializers.values() if t.name == original.input[1])
    turned = node.op_type == "Conv" or bool(node.op_type == "Gemm" and attribute(node, "transB", 0))
    axis = 0 if turned else 1
    return kept(original.input[1], axis, shape[axis])


def _refit(
    graph: Graph,
    node: onnx.NodeProto,
    dense: Model,
    stays: np.ndarray,
    rows: Rows,
    settings: RebuildSettings,
) -> None:
    weights = _matrix(node, graph).astype(np.float64)
    kind = CONV if node.op_type == "Conv" else LINEAR
    kernel = list(graph.initializers[node.input[1]].dims)[2:]
    tap = tap_of(Site(node, 1, node.input[1], kind), weights.shape[1], kernel)
    bias = _bias(graph, node, len(weights))
    if bias is None:
        return
    gram, cross, energy = _moments(graph.build(), dense, node, tap, stays, rows)
    offset = node.op_type != "MatMul"
    if not offset:  # no place for a bias
        gram, cross = gram[:-1, :-1], cross[:-1]
    start = np.concatenate([weights, bias[:, None]], axis=1) if offset else weights
    size = float(np.trace(gram)) / max(len(gram), 1)
    if not np.isfinite(size) or size <= 0:
        return
    ridge = settings.ridge * size * np.eye(len(gram))
    fitted = start + np.linalg.solve(gram + ridge, cross - gram @ start.T).T
    if (
        _error(gram, cross, energy, fitted)
        > _error(gram, cross, energy, start) - settings.least_gain * energy
    ):
        return
    _store(graph, node, fitted[:, : weights.shape[1]], fitted[:, -1] if offset else None)


def _error(gram: np.ndarray, cross: np.ndarray, energy: float, weights: np.ndarray) -> float:
    """Return the sum of squared differences from the wanted results."""
    return float(energy - 2 * np.sum(weights.T * cross) + np.sum((weights @ gram) * weights))


def _bias(graph: Graph, node: onnx.NodeProto, count: int) -> np.ndarray | None:
    """Return the bias at hand; None where it is computed, or of a shape of its own."""
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(count)
    value = graph.constant(node.input[2])
    shared = len(graph.readers.get(node.input[2], [])) > 1
    return None if value is None or value.size != count or shared else value.reshape(-1).astype(np.float64)


def _moments(
    pruned: Model, dense: Model, node: onnx.NodeProto, tap: Tap, stays: np.ndarray, rows: Rows
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return X^T X, X^T Y and the sum of Y^2: X what the layer reads, with a column of ones, Y what it should make."""
    own = _reader(pruned, tap.tensor)
    wanted = _reader(dense, node.output[0])
    gram = np.zeros((tap.columns + 1, tap.columns + 1))
    cross = np.zeros((tap.columns + 1, int(stays.sum())))
    energy = 0.0
    for feeds in rows():
        value, result = own(feeds), wanted(feeds)
        if tap.windows:
            inputs = windows(value, tap)
            outputs = np.moveaxis(result, 1, -1).reshape(-1, result.shape[1])
            outputs = outputs[:: max(1, len(outputs) // len(inputs))][: len(inputs)]
        else:
            inputs = value.reshape(-1, tap.columns)
            outputs = result.reshape(len(inputs), -1)
        x = np.concatenate([inputs, np.ones((len(inputs), 1), np.float32)], axis=1)
        y = outputs[:, stays]
        gram += (x.T @ x).astype(np.float64)
        cross += (x.T @ y).astype(np.float64)
        energy += float(np.square(y, dtype=np.float64).sum())
    return gram, cross, energy


def _reader(model: Model, tensor: str) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    if tensor in {spec.name for spec in model.inputs}:
        return lambda feeds: np.asarray(feeds[tensor])
    session = run.session(run.up_to(model.proto, [tensor]))
    needed = {spec.name for spec in session.get_inputs()}

    def read(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            return np.asarray(session.run([tensor], {k: v for k, v in feeds.items() if k in needed})[0])
        except run.runtime_errors() as error:
            raise InputError(f"the calibration data does not fit the model: {run.brief(error)}") from None

    return read


def _store(graph: Graph, node: onnx.NodeProto, weights: np.ndarray, bias: np.ndarray | None) -> None:
    name = node.input[1]
    shape = tuple(graph.initializers[name].dims)
    turned = node.op_type == "Conv" or bool(node.op_type == "Gemm" and attribute(node, "transB", 0))
    value = np.ascontiguousarray((weights if turned else weights.T).reshape(shape), np.float32)
    graph.initializers[name] = numpy_helper.from_array(value, name)
    if bias is None:
        return
    if len(node.input) > 2 and node.input[2]:
        old = node.input[2]
        shape = tuple(graph.initializers[old].dims)
        graph.initializers[old] = numpy_helper.from_array(bias.astype(np.float32).reshape(shape), old)
    else:
        del node.input[2:]
        node.input.append(graph.add_constant(f"{node.output[0]}/bias", bias.astype(np.float32)))
