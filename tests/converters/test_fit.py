"""INT8 shaped for ONNX Runtime on x86: minimum cuts, cost table, wider channels, smaller files."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.graph.compact import palette
from farrier_converters.graph.compact.shrink import shrink
from farrier_converters.graph.edit import Graph
from farrier_converters.ledger import ledger
from farrier_converters.model import load
from farrier_converters.quantize import reasons, rules
from farrier_converters.quantize.speed.costs import Layer, float_ns, integer_ns
from farrier_converters.quantize.speed.cut import ENDLESS, SINK, SOURCE, Network
from farrier_converters.quantize.speed.widen import widen

VNNI = targets.get("x86-vnni")


def _noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _context(feeds, arithmetic=Arithmetic("u8")):
    return passes.Context(arithmetic=arithmetic, calibration=lambda: iter(feeds))


def _convolutions(widths, kernels, between="Relu", groups=None):
    nodes, constants, last = [], {}, "x"
    for i, kernel in enumerate(kernels):
        group = (groups or [1] * len(kernels))[i]
        constants[f"w{i}"] = _noise((widths[i + 1], widths[i] // group, kernel, kernel), i) / kernel
        constants[f"b{i}"] = _noise(widths[i + 1], i + 50)
        pads = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [last, f"w{i}", f"b{i}"], [f"c{i}"], pads=pads, group=group))
        nodes.append(helper.make_node(between, [f"c{i}"], [f"r{i}"]))
        last = f"r{i}"
    return nodes[:-1], constants, f"c{len(kernels) - 1}"


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(1, 6))
def test_the_cut_costs_least(data, count):
    costs = st.integers(0, 20)
    network = Network()
    members = [network.member() for _ in range(count)]
    edges = [(SOURCE, m, data.draw(costs)) for m in members] + [(m, SINK, data.draw(costs)) for m in members]
    pairs = [(a, b) for a in members for b in members if a != b]
    edges += [(*pair, data.draw(costs)) for pair in data.draw(st.lists(st.sampled_from(pairs or [(2, 1)])))]
    for edge in edges:
        network.connect(*edge)

    def cost(side):
        return sum(capacity for tail, head, capacity in edges if tail in side and head not in side)

    sides = [
        {SOURCE, *(m for m, on in zip(members, choice, strict=True) if on)}
        for choice in product([False, True], repeat=count)
    ]
    assert cost(network.source_side()) == min(cost(side) for side in sides)


def test_an_endless_border_is_never_cut():
    network = Network()
    one, two = network.member(), network.member()
    network.connect(SOURCE, one, 5)
    network.connect(one, two, ENDLESS)
    network.connect(two, SINK, 3)
    assert network.source_side() == {SOURCE, one, two}


def test_the_cost_table_knows_what_was_measured():
    small = Layer(16, 16, pixels=120 * 160, side=120, taps=9, group=16)
    wide = Layer(384, 384, pixels=14 * 14, side=14, taps=9, group=384)
    plain = Layer(64, 64, pixels=56 * 56, side=56, taps=9)
    stem = Layer(3, 16, pixels=120 * 160, side=120, taps=9, strided=True)
    assert integer_ns(small) > 2 * float_ns(small)
    assert float_ns(wide) > integer_ns(wide)
    assert float_ns(plain) > 3 * integer_ns(plain)
    assert integer_ns(stem.widened) < integer_ns(stem)
    large, narrow = replace(small, moved=2 * 16 * 120 * 160), Layer(8, 12, pixels=30 * 40, taps=9)
    assert float_ns(large) > 1.5 * float_ns(small)
    assert integer_ns(replace(narrow, fed=True).widened) < integer_ns(narrow.widened)


@settings(max_examples=20, deadline=None)
@given(
    widths=st.lists(st.integers(1, 20), min_size=3, max_size=4),
    kernels=st.lists(st.sampled_from([1, 3]), min_size=3, max_size=3),
    between=st.sampled_from(["Relu", "Sigmoid", "LeakyRelu"]),
)
def test_wider_channels_change_nothing(widths, kernels, between, make_model, outputs):
    kernels = kernels[: len(widths) - 1]
    nodes, constants, result = _convolutions(widths, kernels, between)
    model = make_model(nodes, {"x": ["N", widths[0], 5, 6]}, [result], constants=constants)
    graph = Graph(model)
    widen(graph, frozenset(node.output[0] for node in graph.nodes))
    wide = graph.build()
    feeds = {"x": _noise((2, widths[0], 5, 6))}
    assert run.same(outputs(wide, feeds), outputs(model, feeds), tolerance=1e-4)
    shapes = {t.name: t.dims for t in wide.proto.graph.initializer}
    for node in wide.proto.graph.node:
        if node.op_type == "Conv" and shapes[node.input[1]][2] > 1:
            assert shapes[node.input[1]][1] % 4 == 0
    assert [tuple(o.shape) for o in outputs(wide, feeds)] == [(2, widths[-1], 5, 6)]


def test_shared_tensors_and_outputs_keep_their_channels(make_model, outputs):
    nodes, constants, _ = _convolutions([3, 6, 6], [3, 3])
    nodes.append(helper.make_node("Add", ["r0", "c1"], ["y"]))
    model = make_model(nodes, {"x": ["N", 3, 5, 5]}, ["y", "r0"], constants=constants)
    graph = Graph(model)
    widen(graph, frozenset({"c0", "c1"}))
    feeds = {"x": _noise((2, 3, 5, 5))}
    found = outputs(graph.build(), feeds)
    assert run.same(found, outputs(model, feeds), tolerance=1e-4)


def test_pads_and_transposes_of_the_input_move_integers(make_model, apply, outputs, integer_kernels):
    nodes, constants, result = _convolutions([3, 96, 8], [3, 3])
    nodes.insert(0, helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2]))
    model = make_model(nodes, {"image": ["N", 96, 96, 3]}, [result], constants=constants)
    feeds = {"image": _noise((2, 96, 96, 3))}
    quantized = apply(model, ("int8", {"fit": True}), context=_context([feeds]))
    makers = {name: node for node in quantized.proto.graph.node for name in node.output}
    transpose = next(node for node in quantized.proto.graph.node if node.op_type == "Transpose")
    assert makers[transpose.input[0]].op_type == "DequantizeLinear"
    kernels = integer_kernels(quantized)
    assert kernels["QLinearConv"] == 2
    assert kernels["QuantizeLinear"] == 1
    assert kernels["Pad"] == 1
    expected = outputs(model, feeds)[0]
    assert np.abs(outputs(quantized, feeds)[0] - expected).mean() < 0.02 * np.abs(expected).max()


def test_what_is_slower_in_integers_stays_in_float(make_model, apply, outputs, integer_kernels):
    nodes, constants, result = _convolutions([3, 16, 16, 64, 64], [3, 3, 1, 3], groups=[1, 16, 1, 1])
    model = make_model(nodes, {"x": ["N", 3, 96, 96]}, [result], constants=constants)
    feeds = {"x": _noise((1, 3, 96, 96))}
    plain = apply(model, "int8", context=_context([feeds]))
    fitted = apply(model, ("int8", {"fit": True}), context=_context([feeds]))
    assert integer_kernels(plain)["QLinearConv"] == 4
    assert 1 <= integer_kernels(fitted)["QLinearConv"] < 4
    entries = ledger(fitted, VNNI)
    floats = [entry for entry in entries if entry.precision == "fp32"]
    assert {entry.reason for entry in floats} == {rules.SLOWER}
    assert [entry.precision for entry in entries if entry.op == "Conv"][-1] == "int8"
    expected = outputs(model, feeds)[0]
    assert np.abs(outputs(fitted, feeds)[0] - expected).mean() < 0.02 * np.abs(expected).max()


@pytest.fixture(scope="module")
def fitted_ultraface(shared_data, apply):
    model = load(shared_data / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx")
    feeds = [{"input": _noise((1, 3, 240, 320), seed) / 2} for seed in range(3)]
    return apply(model, "clean", "fuse", ("int8", {"fit": True}), context=_context(feeds)), feeds


def test_shrinking_keeps_every_bit_and_kernel(fitted_ultraface, outputs, integer_kernels):
    model, feeds = fitted_ultraface
    small = shrink(model)
    assert small.proto.ByteSize() < 0.9 * model.proto.ByteSize()
    assert integer_kernels(small) == integer_kernels(model)
    for left, right in zip(outputs(small, feeds[0]), outputs(model, feeds[0]), strict=True):
        np.testing.assert_array_equal(left, right)
    assert [(e.op, e.precision, e.reason) for e in ledger(small, VNNI)] == [
        (e.op, e.precision, e.reason) for e in ledger(model, VNNI)
    ]
    assert shrink(small).proto.SerializeToString(deterministic=True) == small.proto.SerializeToString(
        deterministic=True
    )


def test_shrinking_a_gemm_keeps_its_integer_kernel(resnet20, apply, cifar10, integer_kernels, outputs):
    images = {"images": cifar10[0][:32]}
    model = apply(resnet20, "clean", "fuse", "int8", context=_context([images]))
    small = shrink(model)
    assert integer_kernels(small) == integer_kernels(model)
    np.testing.assert_array_equal(outputs(small, images)[0], outputs(model, images)[0])
    assert shrink(resnet20) is resnet20


@given(name=st.text(max_size=12))
def test_reasons_are_read_back_from_a_few_bytes(name):
    for sentence in (rules.FLOAT_INPUT.format(name=name), rules.TAIL, "a reason of somebody else's"):
        node = onnx.NodeProto()
        reasons.set_reason(node, sentence)
        reasons.abbreviate(node)
        assert reasons.reason_of(node) == sentence


def test_shrunk_files_keep_what_operators_write_by_name(make_model, apply, outputs, integer_kernels):
    """The network's own names may be as short as those given; a bias of zeros is none."""
    constants = {
        "a": _noise((16, 8, 3, 3)) / 9,
        "c": np.zeros(16, np.float32),
        "d": _noise((16, 16, 3, 3)) / 9,
    }
    nodes = [
        helper.make_node("Conv", ["x", "a", "c"], ["b"], pads=[1] * 4, name="t"),
        helper.make_node("Relu", ["b"], ["e"]),
        helper.make_node("Conv", ["e", "d", "c"], ["f"], pads=[1] * 4),
    ]
    source = make_model(nodes, {"x": ["n", 8, 8, 8]}, ["f"], constants=constants)
    feeds = {"x": _noise((4, 8, 8, 8))}
    made = apply(source, "clean", "fuse", ("int8", {"bias_correction": False}), context=_context([feeds]))
    small = shrink(made)
    assert next(n.output[0] for n in small.proto.graph.node if n.op_type == "Conv") == "e"
    assert [len(n.input) for n in small.proto.graph.node if n.op_type == "Conv"] == [2, 2]
    assert integer_kernels(small) == integer_kernels(made)
    np.testing.assert_array_equal(outputs(small, feeds)[0], outputs(made, feeds)[0])
    assert shrink(small).proto == small.proto


def _attention(make_model, width):
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"]),
        helper.make_node("MatMul", ["x", "wk"], ["k"]),
        helper.make_node("MatMul", ["x", "wv"], ["v"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Mul", ["scores", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["weights"]),
        helper.make_node("MatMul", ["weights", "v"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "wo"], ["o"]),
        helper.make_node("Add", ["o", "x"], ["y"]),
    ]
    constants = {w: _noise((width, width), i) / width for i, w in enumerate(("wq", "wk", "wv", "wo"))}
    constants["scale"] = np.float32(width**-0.5)
    return make_model(nodes, {"x": ["n", 64, width]}, ["y"], constants=constants)


@pytest.mark.parametrize(("width", "floats"), [(16, 2), (256, 0)])
def test_attention_is_integer_where_it_is_wide_and_softmax_never(
    width, floats, make_model, apply, outputs, integer_kernels
):
    model, feeds = _attention(make_model, width), {"x": _noise((4, 64, width))}
    plain = apply(model, "clean", "int8", context=_context([feeds]))
    fitted = apply(model, "clean", ("int8", {"fit": True}), context=_context([feeds]))
    for made in (plain, fitted):
        kernels = integer_kernels(made)
        assert kernels["Softmax"] == 1  # ONNX Runtime's integer one is nine times as slow
        assert "QLinearSoftmax" not in kernels
        expected = outputs(model, feeds)[0]
        assert np.abs(outputs(made, feeds)[0] - expected).mean() < 0.02 * np.abs(expected).max()
    assert kernels.get("MatMul", 0) + kernels.get("FusedMatMul", 0) == floats


@settings(max_examples=20, deadline=None)
@given(
    different=st.integers(1, 300),
    kind=st.sampled_from([np.float32, np.int64, np.int32]),
    seed=st.integers(0, 99),
)
def test_tables_of_few_values_become_bytes_and_keep_their_bits(different, kind, seed, make_model, outputs):
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(different) * 1e6).astype(kind)
    values[0] = kind(-0.0)
    table = values[rng.integers(0, different, (40, 50))]
    node = helper.make_node("Add" if kind != np.float32 else "Mul", ["x", "t"], ["y"])
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model = make_model([node], {"x": [40, 50]}, ["y"], constants={"t": table}, dtype=dtype)
    graph = Graph(model)
    palette.pack(graph)
    small, feeds = graph.build(), {"x": np.ones((40, 50), kind)}
    assert outputs(small, feeds)[0].tobytes() == outputs(model, feeds)[0].tobytes()
    assert small.proto.ByteSize() <= model.proto.ByteSize()
    if np.unique(table).size < 200:
        assert small.proto.ByteSize() < 0.8 * model.proto.ByteSize()
