"""Quantizers on inputs, as TensorRT fuses them: the rules as properties, and real networks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from farrier_contracts.targets import ARITHMETICS, get
from farrier_converters import passes
from farrier_converters.emulate import Emulator
from farrier_converters.graph import run
from farrier_converters.graph.edit import Graph, standard
from farrier_converters.ledger import ledger
from farrier_converters.model import load

TENSORRT = ARITHMETICS["tensorrt"]
KINDS = ("conv", "relu", "add", "maxpool", "avgpool", "concat", "sigmoid", "pad", "transposed")


def _context(*feeds):
    return passes.Context(arithmetic=TENSORRT, calibration=lambda: iter(feeds))


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _pairs(graph):
    """The tensors with a quantizer in the activations, each with its dequantized form."""
    return {
        n.input[0]: graph.readers[n.output[0]][0].output[0]
        for n in graph.nodes
        if standard(n, "QuantizeLinear")
    }


def _maker(graph, name):
    node = graph.producer.get(name)
    return "" if node is None else node.op_type


@st.composite
def networks(draw):
    """Nodes over tensors [1, 4, 8, 8], each reading earlier ones; the last are the outputs."""
    nodes, constants, names = [], {}, ["x"]
    for number in range(draw(st.integers(2, 12))):
        kind, out = draw(st.sampled_from(KINDS)), f"t{number}"
        first = draw(st.sampled_from(names[-3:]))
        second = draw(st.sampled_from(names))
        if kind in ("conv", "transposed"):
            constants[f"w{number}"] = _noise(4, 4, 3, 3, seed=number) / 5
            constants[f"b{number}"] = _noise(4, seed=number)
            op = "Conv" if kind == "conv" else "ConvTranspose"
            inputs = [first, f"w{number}", f"b{number}"]
            nodes.append(helper.make_node(op, inputs, [out], pads=[1, 1, 1, 1]))
        elif kind == "concat":
            nodes.append(helper.make_node("Concat", [first, second], [f"{out}_wide"], axis=1))
            constants[f"w{number}"] = _noise(4, 8, 1, 1, seed=number) / 3
            nodes.append(helper.make_node("Conv", [f"{out}_wide", f"w{number}"], [out]))
        elif kind in ("maxpool", "avgpool"):
            op = {"maxpool": "MaxPool", "avgpool": "AveragePool"}[kind]
            nodes.append(helper.make_node(op, [first], [out], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        elif kind == "pad":
            constants[f"by{number}"] = np.array([0, 0, 1, 1, 0, 0, -1, -1])
            nodes.append(helper.make_node("Pad", [first, f"by{number}"], [out]))
        elif kind == "add":
            nodes.append(helper.make_node("Add", [first, second], [out]))
        else:
            nodes.append(helper.make_node({"relu": "Relu", "sigmoid": "Sigmoid"}[kind], [first], [out]))
        names.append(out)
    return nodes, constants, names[-1:]


@settings(max_examples=60, deadline=None)
@given(net=networks())
def test_the_rules_hold_in_any_network(net, make_model, apply):
    nodes, constants, results = net
    model = make_model(nodes, {"x": [1, 4, 8, 8]}, results, constants=constants)
    x = _noise(1, 4, 8, 8, seed=9)
    quantized = apply(model, ("int8", {"even": False, "method": "minmax"}), context=_context({"x": x}))
    before, graph = Graph(model), Graph(quantized)
    pairs = _pairs(graph)
    for node in graph.nodes:
        if standard(node, "QuantizeLinear", "DequantizeLinear"):
            assert not graph.constant(node.input[2]).any()  # symmetric
            assert graph.constant(node.input[0]) is not None or graph.constant(node.input[1]).ndim == 0
        if standard(node, "Conv", "ConvTranspose"):  # integers: both operands are dequantized
            assert {_maker(graph, name) for name in node.input[:2]} == {"DequantizeLinear"}
        if standard(node, "Add"):  # a convolution's own sum is not torn from it
            quantizes = [_maker(graph, name) == "DequantizeLinear" for name in node.input]
            fused = [_maker(graph, n) == "Conv" and before.only_reader(n) is not None for n in node.input]
            assert not any(q and f for q, f in zip(quantizes, fused, strict=True)) or any(
                f and not q for q, f in zip(quantizes, fused, strict=True)
            )
        if standard(node, "Relu"):  # nothing stands before an activation function
            assert _maker(graph, node.input[0]) not in ("QuantizeLinear", "DequantizeLinear")
    assert len(pairs) == sum(standard(n, "QuantizeLinear") for n in graph.nodes)  # one pair per tensor
    got, want = run.once(quantized.proto, {"x": x})[0], run.once(model.proto, {"x": x})[0]
    assert np.square(got - want).mean() <= 0.02 * np.square(want).mean() + 1e-6


@settings(max_examples=30, deadline=None)
@given(net=networks())
def test_an_average_or_a_sum_has_integers_on_both_sides_or_on_none(net, make_model, apply):
    nodes, constants, results = net
    model = make_model(nodes, {"x": [1, 4, 8, 8]}, results, constants=constants)
    context = _context({"x": _noise(1, 4, 8, 8)})
    graph = Graph(apply(model, ("int8", {"even": False, "method": "minmax"}), context=context))

    def ends(name):
        """Whether everything that reads a tensor, moved about or through a Relu, is a quantizer."""
        readers = graph.readers.get(name, [])
        return (
            bool(readers)
            and not graph.kept(name)
            and all(
                standard(r, "QuantizeLinear")
                or (standard(r, "MaxPool", "Concat", "Relu", "Pad") and ends(r.output[0]))
                for r in readers
            )
        )

    for node in graph.nodes:
        if standard(node, "AveragePool", "Add"):
            makers = [_maker(graph, name) for name in node.input]
            whole = all(maker == "DequantizeLinear" for maker in makers)
            assert ends(node.output[0]) or not whole


def test_concatenated_tensors_share_one_scale(make_model, apply):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["x", "big"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["p"], kernel_shape=[1, 1]),
        helper.make_node("Concat", ["a", "p"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "v"], ["y"]),
        helper.make_node("Conv", ["a", "w2"], ["z"]),
    ]
    constants = {
        "w": _noise(4, 4, 1, 1),
        "big": 30 * _noise(4, 4, 1, 1, seed=1),
        "v": _noise(2, 8, 1, 1, seed=2),
        "w2": _noise(2, 4, 1, 1, seed=3),
    }
    model = make_model(nodes, {"x": [1, 4, 6, 6]}, ["y", "z"], constants=constants)
    graph = Graph(apply(model, ("int8", {"even": False}), context=_context({"x": _noise(1, 4, 6, 6)})))
    scales = {n.input[0]: n.input[1] for n in graph.nodes if standard(n, "QuantizeLinear")}
    assert set(scales) == {"x", "c", "a"}
    assert scales["c"] == scales["a"] != scales["x"]


def test_a_residual_block_has_one_pair_on_the_way_around(make_model, apply):
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node("Add", ["c2", "r0"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["mean"]),
        helper.make_node("Conv", ["mean", "w3"], ["y"]),
    ]
    constants = {f"w{i}": _noise(8, 8, 1, 1, seed=i) for i in range(4)}
    model = make_model(nodes, {"x": [1, 8, 6, 6]}, ["y"], constants=constants)
    quantized = apply(model, "int8", context=_context({"x": _noise(1, 8, 6, 6)}))
    graph = Graph(quantized)
    pairs = _pairs(graph)
    assert set(pairs) == {"x", "r0", "r1", "r2", "mean"}
    [add] = [n for n in graph.nodes if standard(n, "Add")]
    assert list(add.input) == ["c2", pairs["r0"]]
    assert {e.precision for e in ledger(quantized, get("null"))} == {"int8"}


def test_what_stays_in_float_says_why(make_model, apply):
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"]),
        helper.make_node("Sigmoid", ["c0"], ["s"]),
        helper.make_node("Mul", ["c0", "s"], ["m"]),
        helper.make_node("AveragePool", ["m"], ["p"], kernel_shape=[2, 2]),
    ]
    model = make_model(nodes, {"x": [1, 8, 6, 6]}, ["p"], constants={"w0": _noise(8, 8, 1, 1)})
    quantized = apply(model, "int8", context=_context({"x": _noise(1, 8, 6, 6)}))
    reasons = {e.op: e.reason for e in ledger(quantized, get("null"))}
    assert reasons["Conv"] is None
    assert "Sigmoid" in reasons["Sigmoid"]
    assert "not read as integers alone" in reasons["AveragePool"]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_scales_along_its_output_channels(make_model, apply, groups):
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2], group=groups)
    weights = _noise(4, 6 // groups, 2, 2)
    constants = {"w": weights, "b": _noise(6)}
    model = make_model([node], {"x": [1, 4, 5, 5]}, ["y"], constants=constants)
    x = _noise(1, 4, 5, 5)
    quantized = apply(model, ("int8", {"even": False}), context=_context({"x": x}))
    graph = Graph(quantized)
    stored = [
        n for n in graph.nodes if standard(n, "DequantizeLinear") and graph.constant(n.input[0]) is not None
    ]
    if groups == 2:
        assert not stored
        return
    assert [graph.constant(n.input[1]).shape for n in stored] == [(6,), (6,)]
    got, want = run.once(quantized.proto, {"x": x})[0], run.once(model.proto, {"x": x})[0]
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_resnet20_keeps_its_accuracy_in_tensorrts_arithmetic(resnet20, cifar10, apply):
    pictures, labels = cifar10
    feeds = [{"images": pictures[i : i + 32]} for i in range(0, 128, 32)]
    plain = apply(resnet20, "clean", "fuse")
    quantized = apply(plain, "int8", context=_context(*feeds))
    ops = [node.op_type for node in quantized.proto.graph.node]
    # one for each of 19 convolutions and the Gemm, the average, and what two padded shortcuts add
    assert ops.count("QuantizeLinear") == 19 + 1 + 1 + 2
    rows = {"images": pictures[512:768]}
    right = [
        (run.once(model.proto, rows)[0].argmax(1) == labels[512:768]).mean() for model in (plain, quantized)
    ]
    assert right[1] >= right[0] - 0.015
    few = {"images": pictures[512:576]}
    [emulated] = Emulator(quantized, TENSORRT).run(few).values()
    computed = run.once(quantized.proto, few)[0]
    assert (emulated.argmax(1) == computed.argmax(1)).mean() > 0.98
    assert np.abs(emulated - computed).max() < 0.05 * np.abs(computed).max()


def test_ultraface_finds_the_same_faces(shared_data, apply):
    from PIL import Image

    [path] = (shared_data / "ultraface").rglob("version-RFB-320_without_postprocessing.onnx")
    [photograph] = (shared_data / "coral").rglob("grace_hopper.bmp")
    image = np.asarray(Image.open(photograph).convert("RGB").resize((320, 240)), np.float32)
    x = ((image - 127) / 128).transpose(2, 0, 1)[None]
    plain = apply(load(path), "clean", "fuse")
    quantized = apply(plain, "int8", context=_context({"input": x}))
    floats = [e for e in ledger(quantized, get("null")) if e.op == "Conv" and e.precision != "int8"]
    assert not floats
    scores = [run.once(model.proto, {"input": x})[0][0, :, 1] for model in (plain, quantized)]
    assert set(np.flatnonzero(scores[0] > 0.8)) <= set(np.flatnonzero(scores[1] > 0.5))
    assert np.abs(scores[0] - scores[1]).mean() < 0.01


def test_what_came_quantized_is_left_alone(resnet20, cifar10, apply):
    context = _context({"images": cifar10[0][:16]})
    once = apply(resnet20, "clean", "fuse", "int8", context=context)
    again = apply(once, "int8", context=context)
    count = {"QuantizeLinear", "DequantizeLinear"}
    assert sum(n.op_type in count for n in again.proto.graph.node) == sum(
        n.op_type in count for n in once.proto.graph.node
    )
    onnx.checker.check_model(once.proto)
