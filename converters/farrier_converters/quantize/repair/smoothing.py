"""SmoothQuant: channels of activations that reach far hand a part of their range to the weights that read them.

Source: Xiao, Lin, Seznec, Wu, Demouth, Han 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for
Large Language Models", arXiv 2211.10438.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from ...graph import run
from ...graph.edit import Graph, attribute, replace, standard
from ...model import Model

FACTOR_LIMITS = (1e-3, 1e3)
Batches = Callable[[], Iterator[dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Site:
    """A float32 tensor [..., channels], and the linear layers of constant weights that read it."""

    name: str
    readers: tuple[onnx.NodeProto, ...]
    channels: int


def sites(graph: Graph) -> list[Site]:
    """Return the tensors that MatMul or Gemm multiply by a constant float32 matrix, in graph order."""
    found = []
    for name, readers in graph.readers.items():
        linear = tuple(node for node in readers if _linear(graph, node, name))
        channels = {_matrix(graph, node).shape[_input_axis(node)] for node in linear}
        if len(channels) == 1 and name not in graph.initializers:
            found.append(Site(name, linear, channels.pop()))
    return found


def peaks(model: Model, channels: Mapping[str, int], batches: Batches) -> dict[str, np.ndarray]:
    """Return the largest magnitude in each channel of these tensors, float32 [channels], over all batches.

    The graph itself reduces each tensor, so that no more than that leaves the runtime. Raises InputError for data that
    the model cannot run on, for no data, and for values that are not finite.
    """
    probe = Graph(model)
    asked = {_reduced(probe, name, count): name for name, count in channels.items()}
    probe.outputs.extend(asked)  # keeps them alive
    session = run.session(run.up_to(probe.build().proto, list(asked)), threads=run.THREADS)
    found = {name: np.zeros(count, np.float32) for name, count in channels.items()}
    batch = None
    for batch in batches():
        try:
            values = session.run(list(asked), batch)
        except run.runtime_errors() as error:
            raise InputError(f"the calibration data does not fit the model: {run.brief(error)}") from None
        for name, value in zip(asked.values(), map(np.asarray, values), strict=True):
            if not np.isfinite(value).all():
                raise InputError(
                    f"tensor {name!r} is not finite on the calibration data; check data and model"
                )
            found[name] = np.maximum(found[name], value)
    if batch is None:
        raise InputError("the calibration data holds no samples")
    return found


def factors(graph: Graph, site: Site, peak: np.ndarray, strength: float) -> np.ndarray:
    """Return what each channel of a tensor is divided by: peak^strength / weights^(1 - strength), float32.

    All readers share one factor, by the largest weight among them; channels that are always zero, or that nobody
    looks at, keep theirs.
    """
    weight = np.max([np.abs(_along(graph, node)).max(axis=1) for node in site.readers], axis=0)
    live = (peak > 0) & (weight > 0)
    reach, against = (np.where(live, values, 1).astype(np.float64) for values in (peak, weight))
    return np.clip(reach**strength / against ** (1 - strength), *FACTOR_LIMITS).astype(np.float32)


def smooth(graph: Graph, site: Site, factor: np.ndarray, *, explicit: bool) -> bool:
    """Divide a tensor by `factor` and multiply the weights behind it; returns False where nothing can divide.

    The division goes into the constants of what makes the tensor. With `explicit`, it is a Mul of its own where that
    cannot be. The smoothed tensor has a new name. Index the graph afterwards.
    """
    if (divided := _divided_maker(graph, site, factor)) is not None:
        name = divided
    elif explicit:
        name = graph.fresh(f"{site.name}_smooth")
        inverse = graph.add_constant(f"{site.name}_smoothing", 1 / factor)
        graph.add_node("Mul", [site.name, inverse], name)
    else:
        return False
    for node in site.readers:
        axis = _input_axis(node)
        scaled = _matrix(graph, node) * factor.reshape([-1 if a == axis else 1 for a in range(2)])
        node.input[0] = name
        node.input[1] = graph.add_constant(f"{node.input[1]}_smooth", scaled)
    return True


def _divided_maker(graph: Graph, site: Site, factor: np.ndarray) -> str | None:
    """Divide the scale and the shift of what makes a tensor; returns its new name, None where that is not possible."""
    maker = graph.producer.get(site.name)
    if maker is None or maker.output[0] != site.name or graph.kept(site.name):
        return None
    if len(graph.readers[site.name]) != len(site.readers):
        return None  # somebody else wants it as it is
    constants = _scale_and_shift(graph, maker, factor.size)
    if constants is None:
        return None
    for node, position in constants:
        value = graph.constant(node.input[position])
        assert value is not None
        node.input[position] = graph.add_constant(f"{node.input[position]}_smooth", value / factor)
    name = graph.fresh(f"{site.name}_smooth")
    replace(maker.output, site.name, name)
    return name


def _scale_and_shift(
    graph: Graph, maker: onnx.NodeProto, channels: int
) -> list[tuple[onnx.NodeProto, int]] | None:
    """Return the constants, as node and input, that a tensor is proportional to if all of them are scaled.

    They are those of a LayerNormalization, or of the Mul and Add at the end of one that is written out.
    """
    if standard(maker, "LayerNormalization"):
        positions = [p for p in (1, 2) if p < len(maker.input) and maker.input[p]]
        fits = all(_per_channel(graph, maker.input[p], channels, exactly=True) for p in positions)
        return [(maker, p) for p in positions] if fits else None
    found: list[tuple[onnx.NodeProto, int]] = []
    if standard(maker, "Add"):
        position = _constant_operand(graph, maker, channels)
        before = None if position is None else graph.producer.get(maker.input[1 - position])
        if position is None or before is None or graph.only_reader(before.output[0]) is not maker:
            return None
        found.append((maker, position))
        maker = before
    if not standard(maker, "Mul") or (position := _constant_operand(graph, maker, channels)) is None:
        return None
    return [*found, (maker, position)]


def _constant_operand(graph: Graph, node: onnx.NodeProto, channels: int) -> int | None:
    return next((p for p in (0, 1) if _per_channel(graph, node.input[p], channels)), None)


def _per_channel(graph: Graph, name: str, channels: int, *, exactly: bool = False) -> bool:
    """Say whether a name is that of float32 constants, one per channel along the last axis (or one for all)."""
    value = graph.constant(name)
    sizes = (channels,) if exactly else (1, channels)
    return value is not None and value.dtype == np.float32 and (value.shape or (1,))[-1] in sizes


def _linear(graph: Graph, node: onnx.NodeProto, name: str) -> bool:
    """Say whether a node multiplies this tensor, and nothing else of it, by a constant matrix."""
    if not standard(node, "MatMul", "Gemm") or attribute(node, "transA", 0) or node.input[0] != name:
        return False
    weight = graph.constant(node.input[1])
    known = weight is not None and weight.dtype == np.float32 and weight.ndim == 2 and weight.size > 0
    return known and list(node.input).count(name) == 1


def _matrix(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    value = graph.constant(node.input[1])
    assert value is not None
    return value


def _input_axis(node: onnx.NodeProto) -> int:
    return 1 if node.op_type == "Gemm" and attribute(node, "transB", 0) else 0


def _along(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    """Return a layer's weights as [channels that it reads, results]."""
    matrix = _matrix(graph, node)
    return matrix.T if _input_axis(node) else matrix


def _reduced(graph: Graph, name: str, channels: int) -> str:
    """Add what finds the largest magnitude in each channel of a tensor; returns its name."""
    magnitude, rows, peak = (graph.fresh(f"{name}_{part}") for part in ("magnitude", "rows", "peak"))
    graph.add_node("Abs", [name], magnitude)
    shape = graph.add_constant(f"{name}_rows_shape", np.array([-1, channels]))
    graph.add_node("Reshape", [magnitude, shape], rows)
    if graph.opset < 18:
        graph.add_node("ReduceMax", [rows], peak, axes=[0], keepdims=0)
    else:
        graph.add_node(
            "ReduceMax", [rows, graph.add_constant(f"{name}_axis", np.array([0]))], peak, keepdims=0
        )
    return peak
