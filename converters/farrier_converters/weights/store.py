"""Write quantized weights into a graph: packed for the kernels that read few bits, or widened when the engine loads.

ONNX Runtime computes whatever hangs on constants alone when it opens a model. So weights without a kernel of their
own are stored in few bits, with the nodes that widen them: the file is small, arithmetic and speed stay float's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..graph.edit import Graph, replace
from ..model import Model
from . import packing
from .grid import Quantized
from .marks import mark
from .pools import FLOAT, Pool, Writer
from .scales import HalfScales, LogScales, ScaleForm
from .sites import LINEAR, TABLE, Bank, Site, restored, whole_blocks

MICROSOFT = "com.microsoft"
INT4, UINT4, INT8, INT32 = (
    onnx.TensorProto.INT4,
    onnx.TensorProto.UINT4,
    onnx.TensorProto.INT8,
    onnx.TensorProto.INT32,
)
WIDE_OPSET = 21  # the first whose Cast knows 4-bit integers
ACCURATE, INT8_ACTIVATIONS = 0, 4  # levels of MatMulNBits
PADDING_PAYS = (
    512  # bytes of filling in a matrix's last blocks; the nodes that add it at load cost half as much
)


@dataclass(frozen=True)
class _Rows:
    """What kernels read of a matrix: names of constants, `bits` those of the kernel."""

    data: str
    scales: str  # [rows * blocks]
    zeros: str
    bits: int
    shape: tuple[int, int, int]  # rows, blocks, bytes per block


class Store:
    """Replaces weights by their stored form, in one graph; `finish` writes what is stored together."""

    def __init__(self, graph: Graph, *, precision: str = "", int8_activations: bool = False) -> None:
        self.graph = graph
        self.writer = Writer(graph)
        self.precision = precision
        self.level = INT8_ACTIVATIONS if int8_activations else ACCURATE
        self.scales: dict[ScaleForm, Pool] = {}
        self.wide: dict[tuple[object, ...], _WidePool] = {}
        self.read: dict[tuple[object, ...], str] = {}

    def write(self, bank: Bank, quantized: Quantized) -> None:
        """Store a matrix once and let all its uses read it."""
        codebook = quantized.grid.codebook is not None
        if codebook:
            for site in bank.sites:
                self._bnb4(site, quantized) if _fits_bnb4(site, quantized) else self._widen(site, quantized)
        elif kernel_reads(bank):
            rows = self._rows(bank.sites[0].weight, quantized)
            for site in bank.sites:
                (self._linear if site.kind == LINEAR else self._table)(site, rows, quantized)
        else:
            for site in bank.sites:
                self._widen(site, quantized)
        for site in bank.sites:
            mark(site.node, self.precision or _name(quantized.grid.bits))

    def finish(self) -> None:
        """Write the pools."""
        for pool in self.wide.values():
            pool.finish()
        for form, pool in self.scales.items():
            pool.cut(_scales_at_load(self.writer, form, pool.whole()))

    def _scale_names(self, q: Quantized) -> str:
        form = q.grid.scale_form
        if form not in self.scales:
            self.scales[form] = Pool(self.writer, "s")
        return self.scales[form].add(q.scales.reshape(-1))

    def _rows(self, name: str, q: Quantized) -> _Rows:
        bits = 4 if q.grid.bits == 3 else q.grid.bits
        rows, blocks, size = q.codes.shape
        shape = (rows, blocks, size * bits // 8)
        if q.grid.bits == 3:
            data = self._threes(name, q.codes, shape)
        else:
            data = self._blocks(name, packing.pack(q.codes, bits), -(-q.columns * bits // 8))
        zeros = ""
        if q.zeros is not None:
            zeros = self.graph.add_constant(f"{name}_z", packing.pack(q.zeros, bits))
        elif q.grid.bits == 3:  # the middle of 3 bits is not that of 4
            line = self.writer.constant(
                "zeros", packing.pack(np.full((1, blocks), q.grid.zero, np.uint8), bits)
            )
            zeros = self.writer.node("Expand", [line, self.writer.shape([rows, 1])], f"{name}_z")
        return _Rows(data, self._scale_names(q), zeros, bits, shape)

    def _blocks(self, name: str, data: np.ndarray, used: int) -> str:
        """Store packed blocks [rows, blocks, bytes]; filling beyond the bytes used is added at load if it is much."""
        rows, blocks, width = data.shape
        filling = blocks * width - used
        if rows * filling < PADDING_PAYS:
            return self.graph.add_constant(f"{name}_q", data)
        tight = self.graph.add_constant(f"{name}_q", data.reshape(rows, -1)[:, :used])
        fill = self.writer.constant("fill", np.array(data[0, -1, -1]))
        pads = self.writer.shape([0, 0, 0, filling])
        padded = self.writer.node("Pad", [tight, pads, fill], f"{name}_p")
        return self.writer.node("Reshape", [padded, self.writer.shape(data.shape)], f"{name}_p")

    def _threes(self, name: str, codes: np.ndarray, shape: tuple[int, int, int]) -> str:
        """Store 3-bit codes in 3 bits, and spread them to 4 when the engine loads them (`packing.pack_threes`)."""
        w = self.writer

        def node(op: str, *inputs: str, **attributes: Any) -> str:
            return w.node(op, inputs, f"{name}_u", **attributes)

        def byte(value: int) -> str:
            return w.constant("byte", np.array(value, np.uint8))

        planes = self.graph.add_constant(f"{name}_q", packing.pack_threes(codes))
        first = node("BitwiseAnd", planes, byte(63))
        shifts = w.constant("shifts", np.array([[0], [2], [4]], np.uint8))
        spread = node(
            "BitShift", node("BitShift", planes, byte(6), direction="RIGHT"), shifts, direction="LEFT"
        )
        parts = [self.graph.fresh(f"{name}_u") for _ in range(3)]
        w.split(spread, parts, [1, 1, 1])
        last = node("BitwiseOr", node("BitwiseOr", parts[0], parts[1]), parts[2])
        sixes = node("Concat", first, last, axis=0)
        upper = node("BitShift", node("BitwiseAnd", sixes, byte(56)), byte(1), direction="LEFT")
        return node("Reshape", node("BitwiseOr", node("BitwiseAnd", sixes, byte(7)), upper), w.shape(shape))

    def _linear(self, site: Site, rows: _Rows, q: Quantized) -> None:
        inputs = [site.node.input[0], rows.data, rows.scales, *([rows.zeros] if rows.zeros else [])]
        attributes = {
            "K": q.columns,
            "N": rows.shape[0],
            "bits": rows.bits,
            "block_size": q.codes.shape[-1],
            "accuracy_level": self.level,
        }
        become(site.node, "MatMulNBits", inputs, **attributes)

    def _table(self, site: Site, rows: _Rows, q: Quantized) -> None:
        count, blocks, width = rows.shape
        data = self._once(rows.data, [count, blocks * width])
        scales = self._once(rows.scales, [count, blocks])
        inputs = [data, site.node.input[1], scales, *([rows.zeros] if rows.zeros else [])]
        attributes = {
            "bits": rows.bits,
            "block_size": q.codes.shape[-1],
            "gather_axis": 0,
            "quantize_axis": 1,
        }
        become(site.node, "GatherBlockQuantized", inputs, **attributes)

    def _once(self, source: str, shape: list[int]) -> str:
        key = ("reshaped", source)
        if key not in self.read:
            self.read[key] = self.writer.node("Reshape", [source, self.writer.shape(shape)], f"{source}_r")
        return self.read[key]

    def _bnb4(self, site: Site, q: Quantized) -> None:
        data, scales = ("codes", id(q)), ("scales", id(q))
        if data not in self.read:
            swapped = q.codes.reshape(-1, 2)[:, ::-1]  # this kernel reads the high half of a byte first
            self.read[data] = self.graph.add_constant(
                f"{site.weight}_q", packing.pack(swapped, 4).reshape(-1)
            )
            self.read[scales] = self._scale_names(q)
        inputs = [site.node.input[0], self.read[data], self.read[scales]]
        attributes = {"K": q.columns, "N": len(q.codes), "block_size": q.codes.shape[-1], "quant_type": 1}
        become(site.node, "MatMulBnb4", inputs, **attributes)

    def _widen(self, site: Site, q: Quantized) -> None:
        """Let a node read the widened form of its weights."""
        key = ("wide", site.weight, id(q))
        if key not in self.read:
            size = q.codes.shape[-1]
            kind = (size, q.grid.bits, q.grid.codebook is not None, q.zeros is not None)
            if kind not in self.wide:
                self.wide[kind] = _WidePool(self, q)
            shape = list(self.graph.initializers[site.weight].dims)
            target = list(reversed(shape)) if site.kind == LINEAR and site.rows_last else shape
            piece = self.wide[kind].add(q)
            wide = self.writer.node("Reshape", [piece, self.writer.shape(target)], f"{site.weight}_w")
            if site.kind == LINEAR:
                wide = self.writer.node("Transpose", [wide], f"{site.weight}_w", perm=[1, 0])
            self.read[key] = wide
        replace(site.node.input, site.node.input[site.position], self.read[key])


class _WidePool:
    """Blocks of one size, [blocks, size], that become float when the engine loads them."""

    def __init__(self, store: Store, first: Quantized) -> None:
        self.store = store
        self.grid = first.grid
        self.codes = Pool(store.writer, "w")
        self.zeros: list[np.ndarray] = []
        self.scales: list[Quantized] = []

    def add(self, q: Quantized) -> str:
        """Take a matrix; return the name of its blocks [blocks, size] float32."""
        self.scales.append(q)
        if q.zeros is not None:
            self.zeros.append(q.zeros.reshape(-1, 1))
        return self.codes.add(q.codes.reshape(-1, q.codes.shape[-1]))

    def finish(self) -> None:
        """Write codes, scales and the nodes that make float32 of them."""
        w, codes = self.store.writer, self.codes.whole()
        wide = self._levels(codes)
        parts = [self.store._scale_names(q) for q in self.scales]
        joined = parts[0] if len(parts) == 1 else w.node("Concat", parts, "s", axis=0)
        column = w.node("Reshape", [joined, w.shape([len(codes), 1])], "s")
        self.codes.cut(w.node("Mul", [wide, column], "w"))

    def _levels(self, codes: np.ndarray) -> str:
        w = self.store.writer
        if self.grid.codebook is not None:
            packed = w.raw("w_q", UINT4, codes.shape, packing.pack(codes.reshape(-1), 4).tobytes())
            return w.node("Gather", [w.constant("codebook", self.grid.codebook), w.cast(packed, INT32)], "w")
        middle = 1 << (self.grid.bits - 1)
        signed = (codes.astype(np.int16) - middle).astype(np.int8)
        if self.grid.bits == 8:
            wide = w.cast(w.raw("w_q", INT8, codes.shape, signed.tobytes()))
        else:
            fours = packing.pack((signed.view(np.uint8) & np.uint8(15)).reshape(-1), 4)
            wide = w.cast(w.raw("w_q", INT4, codes.shape, fours.tobytes()))
        if not self.zeros:
            return wide
        points = (np.concatenate(self.zeros).astype(np.int16) - middle).astype(np.int8)
        return w.node("Sub", [wide, w.cast(w.graph.add_constant("w_z", points))], "w")


def _scales_at_load(writer: Writer, form: ScaleForm, scales: np.ndarray) -> str:
    """Store scales [n] and return the name of their float32 form."""
    graph = writer.graph
    if isinstance(form, HalfScales):
        return writer.cast(graph.add_constant("s_h", scales.astype(np.float16)))
    if not isinstance(form, LogScales):
        return graph.add_constant("s_f", scales)
    codes = writer.cast(graph.add_constant("s_q", form.codes(scales)))
    step = writer.constant("s_c", np.array(form.step, np.float32))
    offset = writer.constant("s_c", np.array(form.lowest - form.step, np.float32))
    power = writer.node(
        "Add", [writer.node("Mul", [writer.node("Abs", [codes], "s"), step], "s"), offset], "s"
    )
    return writer.node("Mul", [writer.node("Sign", [codes], "s"), writer.node("Exp", [power], "s")], "s")


def _name(bits: int) -> str:
    """Name a precision; "int8" is that of integer arithmetic."""
    return "int8-weights" if bits == 8 else f"int{bits}"


def kernel_reads(bank: Bank) -> bool:
    """Say whether kernels read this bank's integer codes as they are stored."""
    return bank.kinds <= {LINEAR, TABLE} and (LINEAR in bank.kinds or whole_blocks(bank.shape[1]))


def _fits_bnb4(site: Site, q: Quantized) -> bool:
    size = q.codes.shape[-1]
    return site.kind == LINEAR and whole_blocks(size) and size & (size - 1) == 0


def become(node: onnx.NodeProto, op: str, inputs: list[str], **attributes: int) -> None:
    """Make a node one of ONNX Runtime's own operators, with the same name and result."""
    node.op_type, node.domain = op, MICROSOFT
    del node.input[:]
    node.input.extend(inputs)
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())


def with_domain(model: Model) -> Model:
    """Import ONNX Runtime's own operators where a graph uses them."""
    proto = model.proto
    uses = any(node.domain == MICROSOFT for node in proto.graph.node)
    if uses and not any(entry.domain == MICROSOFT for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


def put_back(graph: Graph, bank: Bank, matrix: np.ndarray) -> None:
    """Let the graph compute in float with what a bank's codes stand for, until they are stored."""
    for name in dict.fromkeys(site.weight for site in bank.sites):
        site = next(s for s in bank.sites if s.weight == name)
        shape = tuple(graph.initializers[name].dims)
        value = np.ascontiguousarray(restored(matrix, site, shape), np.float32)
        tensor = onnx.TensorProto(name=name, data_type=FLOAT, dims=shape, raw_data=value.tobytes())
        graph.initializers[name] = tensor
