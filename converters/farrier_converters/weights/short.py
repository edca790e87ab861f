"""Weights stored as bfloat16 or FP8 and widened when the engine loads them; FP8 activations as Q/DQ pairs."""

from __future__ import annotations

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from ..graph.edit import Graph, replace, standard
from . import floats
from .floats import Fp8
from .marks import mark
from .pools import Pool, Writer
from .sites import CONV, LINEAR, WEIGHTS, Site

BFLOAT16 = onnx.TensorProto.BFLOAT16
POOLED = 4096  # elements: smaller constants share one tensor, larger ones would only raise the peak of memory
BF16_OPSET = 13  # the first whose Cast knows bfloat16
FP8_OPSET = 19  # the first with 8-bit floats
OVERFLOW = "its constant {name} does not fit into bfloat16"


def to_bfloat16(graph: Graph, *, exclude: frozenset[str], min_elements: int) -> dict[str, str]:
    """Store float constants as bfloat16; return {name: reason} for those that cannot be.

    Constants that a node of `exclude` reads stay as they are. Names of tensors stay, so that subgraphs find them.
    """
    writer = Writer(graph)
    pool = Pool(writer, "b")
    fixed = set(graph.outputs)
    for node in graph.nodes:
        if exclude.intersection((node.name, node.output[0])):
            fixed.update(node.input)
    reasons = {}
    for name in [n for n in graph.initializers if n not in fixed]:
        tensor = graph.initializers[name]
        value = graph.constant(name) if tensor.data_type == tensor.FLOAT else None
        if value is None or value.size < min_elements:
            continue
        bits = floats.to_bfloat16(value)
        if np.isfinite(value).all() and not np.isfinite(floats.from_bfloat16(bits)).all():
            reasons[name] = OVERFLOW.format(name=name)
            continue
        del graph.initializers[name]
        if value.size < POOLED:
            _rename(graph, writer, pool.add(bits.reshape(-1)), name, value.shape)
        else:
            stored = writer.raw(f"{name}_b", BFLOAT16, value.shape, bits.astype("<u2").tobytes())
            writer.named("Cast", [stored], name, to=tensor.FLOAT)
    if pool.pieces:
        whole = pool.whole()
        pool.cut(writer.cast(writer.raw("b", BFLOAT16, whole.shape, whole.astype("<u2").tobytes())))
    graph.index()
    return reasons


def _rename(graph: Graph, writer: Writer, piece: str, name: str, shape: tuple[int, ...]) -> None:
    if len(shape) == 1:
        writer.named("Identity", [piece], name)
    else:
        writer.named("Reshape", [piece, writer.shape(shape)], name)


def mark_readers(graph: Graph, names: set[str], precision: str) -> list[onnx.NodeProto]:
    """Note the precision on the operators whose weights are among these tensors, and return them."""
    found = []
    for node in graph.nodes:
        positions = WEIGHTS.get(node.op_type, ()) if standard(node, *WEIGHTS) else ()
        sources = [node.input[p] for p in positions if p < len(node.input)]
        makers = [graph.producer.get(name) for name in sources]
        through = [maker.input[0] for maker in makers if maker is not None and standard(maker, "Transpose")]
        if names.intersection((*sources, *through)):
            mark(node, precision)
            found.append(node)
    return found


def fp8_weights(graph: Graph, sites: list[Site], kind: Fp8, *, dequantize: bool) -> None:
    """Store the sites' constants as FP8 with a float32 scale per row of the matrix.

    `dequantize` writes DequantizeLinear where the scales are those of one axis, which engines with FP8 arithmetic look
    for; else, and by default, Cast and Mul, which ONNX Runtime computes once, at load.
    """
    writer = Writer(graph)
    for name, site in {site.weight: site for site in sites}.items():
        value = graph.constant(name)
        if value is None or not np.isfinite(value).all():
            raise InputError(f"the weights {name!r} hold values that are not finite; the model is damaged")
        axis, rest = _axes(site, value.ndim)
        peak = np.abs(value).max(axis=rest, keepdims=True)
        scales = np.where(peak > 0, np.maximum(peak / kind.largest, 1e-30), 1).astype(np.float32)
        codes = floats.to_fp8(value / scales, kind)
        del graph.initializers[name]
        stored = writer.raw(f"{name}_q", kind.onnx_type, value.shape, codes.tobytes())
        if dequantize and axis is not None:
            line = graph.add_constant(f"{name}_s", scales.reshape(-1))
            zeros = writer.raw(f"{name}_z", kind.onnx_type, [scales.size], bytes(scales.size))
            writer.named("DequantizeLinear", [stored, line, zeros], name, axis=axis)
        else:
            writer.named("Mul", [writer.cast(stored), graph.add_constant(f"{name}_s", scales)], name)
    graph.index()


def _axes(site: Site, rank: int) -> tuple[int | None, tuple[int, ...]]:
    """Return the axis that has a scale per index (None for several), and the axes that share a scale."""
    if site.kind == LINEAR:
        axis = 1 if site.rows_last else 0
        return axis, (1 - axis,)
    if standard(site.node, "Conv", "Gather"):
        return 0, tuple(range(1, rank))
    return None, (rank - 1,)


def fp8_inputs(graph: Graph, sites: list[Site], peaks: dict[str, float], kind: Fp8) -> None:
    """Put Q/DQ pairs of FP8 before linear layers and convolutions; `peaks` are the inputs' largest magnitudes."""
    writer = Writer(graph)
    zero = writer.raw("fp8_zero", kind.onnx_type, [], b"\0")
    made: dict[str, str] = {}
    for node in list(graph.nodes):
        _keep_bounds(graph, writer, node)
    for site in [s for s in sites if s.kind in (LINEAR, CONV)]:
        source = site.source
        if source not in made:
            scale = np.array(max(peaks[source] / kind.largest, 1e-30), np.float32)
            held = graph.add_constant(f"{source}_s", scale)
            codes = writer.node("QuantizeLinear", [source, held, zero], f"{source}_q")
            made[source] = writer.node("DequantizeLinear", [codes, held, zero], f"{source}_d")
        replace(site.node.input, source, made[source])
    graph.index()


def _keep_bounds(graph: Graph, writer: Writer, maker: onnx.NodeProto) -> None:
    """Write Relu and Clip as Max and Min.

    ONNX Runtime (1.32) drops the former before an FP8 quantizer, and moves quantizers to get there: it takes the lowest
    code for 0, as it is with unsigned integers.
    """
    if not standard(maker, "Relu", "Clip"):
        return
    bounds = [graph.constant(name) if name else None for name in (*maker.input[1:], "", "")][:2]
    if maker.op_type == "Relu":
        bounds = [np.zeros((), np.float32), None]
    elif len(maker.input) > 1 and all(bound is None for bound in bounds):
        return  # bounds that are computed: nothing is dropped
    steps = [(op, value) for op, value in zip(("Max", "Min"), bounds, strict=True) if value is not None]
    result, source = maker.output[0], maker.input[0]
    for number, (op, value) in enumerate(steps):
        bound = writer.constant("bound", value.astype(np.float32))
        last = number == len(steps) - 1
        output = result if last else graph.fresh(f"{result}_bounded")
        if last:
            maker.op_type = op
            del maker.input[:], maker.attribute[:]
            maker.input.extend([source, bound])
        else:
            graph.add_node(op, [source, bound], output)
        source = output
