"""Models that are hard to quantize: handled, or refused with one sentence; nothing stays in float silently."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier_contracts import targets
from farrier_contracts.errors import InputError
from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.ledger import ledger
from farrier_converters.model import from_proto
from farrier_converters.quantize import rules

VNNI = targets.get("x86-vnni")
STEPS = {
    "int8": ("clean", "fuse", "int8", "shrink"),
    "fitted": ("clean", "fuse", ("int8", {"fit": True}), "shrink"),
    "balanced": ("clean", "fuse", "equalize", "centre", "smooth", "int8", "shrink"),
    "weights": (("int8-weights", {"smallest": 64}), "shrink"),
    "packed": (("int8-weights", {"smallest": 64, "packed": True}), "shrink"),
    "dynamic": (("int8-dynamic", {"smallest": 64}), "shrink"),
}
FLOAT, BYTE = TensorProto.FLOAT, TensorProto.UINT8


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _model(nodes, inputs, constants, *, opset=17, dtype=FLOAT):
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 19 else 10)
    proto = onnx.shape_inference.infer_shapes(proto)
    del proto.graph.value_info[:]
    return from_proto(proto, "case")


def _conv(source, weight, result, **more):
    return helper.make_node("Conv", [source, weight], [result], **more)


IMAGE = {"x": (FLOAT, ["n", 3, 16, 16])}
WEIGHTS = {"w": _noise(8, 3, 3, 3), "w2": _noise(8, 8, 3, 3, seed=1)}
PICTURE = {"x": _noise(2, 3, 16, 16)}


def _branches():
    one = helper.make_graph(
        [_conv("x", "inner", "t")], "then", [], [helper.make_tensor_value_info("t", FLOAT, None)]
    )
    two = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", FLOAT, None)],
    )
    nodes = [
        helper.make_node("If", ["flag"], ["i"], then_branch=one, else_branch=two, name="branch"),
        _conv("i", "w", "y"),
    ]
    constants = {"w": WEIGHTS["w"], "inner": _noise(3, 3, 1, 1)}
    return _model(nodes, IMAGE | {"flag": (TensorProto.BOOL, [])}, constants), PICTURE | {
        "flag": np.array(True)
    }


def _loop():
    scalar = {"i": (TensorProto.INT64, []), "go": (TensorProto.BOOL, []), "state": (FLOAT, ["n", 64])}
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, *kind) for name, kind in scalar.items()],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, ["n", 64]),
        ],
    )
    node = helper.make_node("Loop", ["count", "", "x"], ["y"], body=body, name="repeat")
    model = _model([node], {"x": (FLOAT, ["n", 64])}, {"w": _noise(64, 64) / 8, "count": np.array(3)})
    return model, {"x": _noise(2, 64)}


def _scan():
    row = [FLOAT, [1, 64]]
    body = helper.make_graph(
        [helper.make_node("Gemm", ["row", "w"], ["o"]), helper.make_node("Add", ["before", "o"], ["after"])],
        "body",
        [helper.make_tensor_value_info("before", *row), helper.make_tensor_value_info("row", *row)],
        [helper.make_tensor_value_info("after", *row), helper.make_tensor_value_info("o", *row)],
    )
    node = helper.make_node("Scan", ["start", "x"], ["last", "y"], body=body, num_scan_inputs=1, name="scan")
    constants = {"w": _noise(64, 64) / 8, "start": np.zeros((1, 64), np.float32)}
    return _model([node], {"x": (FLOAT, [5, 1, 64])}, constants), {"x": _noise(5, 1, 64)}


def _two_convolutions(x=IMAGE["x"], opset=17):
    nodes = [
        _conv("x", "w", "a", name="c1"),
        helper.make_node("Relu", ["a"], ["b"]),
        _conv("b", "w2", "y", name="c2"),
    ]
    return _model(nodes, {"x": x}, WEIGHTS, opset=opset)


def _bytes_in():
    nodes = [helper.make_node("Cast", ["i"], ["x"], to=FLOAT), _conv("x", "w", "y")]
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 16, 16)).astype(np.uint8)
    return _model(nodes, {"i": (BYTE, ["n", 3, 16, 16])}, {"w": WEIGHTS["w"]}), {"i": pixels}


def _integer_convolution():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "w", "z"], ["a"]),
        helper.make_node("Cast", ["a"], ["b"], to=FLOAT),
        helper.make_node("Mul", ["b", "s"], ["c"]),
        _conv("c", "w2", "y"),
    ]
    weights = (WEIGHTS["w"] * 20).astype(np.int8)
    return _model(nodes, IMAGE, {"w": weights, "w2": WEIGHTS["w2"] / 20}), PICTURE


def _integer_operators():
    names = ["q", "s", "z", "w", "s", "wz", "s", "z"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", names, ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["c"]),
        _conv("c", "w2", "y"),
    ]
    constants = {"s": np.float32(0.1), "z": np.uint8(128), "wz": np.int8(0), "w2": WEIGHTS["w2"]}
    return _model(nodes, IMAGE, constants | {"w": (WEIGHTS["w"] * 20).astype(np.int8)}), PICTURE


def _half():
    weights = {"w": WEIGHTS["w"].astype(np.float16)}
    model = _model(
        [_conv("x", "w", "y")],
        {"x": (TensorProto.FLOAT16, IMAGE["x"][1])},
        weights,
        dtype=TensorProto.FLOAT16,
    )
    return model, {"x": PICTURE["x"].astype(np.float16)}


def _foreign():
    node = helper.make_node("FusedConv", ["x", "w"], ["y"], activation="Relu", domain="com.microsoft")
    return _model([node], IMAGE, {"w": WEIGHTS["w"]}), PICTURE


CASES = {
    "branches": _branches,
    "loop": _loop,
    "scan": _scan,
    "bytes in": _bytes_in,
    "free sizes": lambda: (_two_convolutions((FLOAT, ["n", 3, "h", "w"])), PICTURE),
    "no shape": lambda: (_two_convolutions((FLOAT, None)), PICTURE),
    "integer convolution": _integer_convolution,
    "integer operators": _integer_operators,
    "half": _half,
    "operator of the engine's own": _foreign,
}


@pytest.mark.parametrize("way", STEPS)
@pytest.mark.parametrize("case", CASES)
def test_handled(case, way, apply, outputs):
    model, feeds = CASES[case]()
    context = passes.Context(arithmetic=Arithmetic("u8"), calibration=lambda: iter([feeds]))
    quantized = apply(model, *STEPS[way], context=context)
    for expected, found in zip(outputs(model, feeds), outputs(quantized, feeds), strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        error = np.abs(found.astype(np.float32) - expected).mean()
        assert error <= 0.05 * np.abs(expected.astype(np.float32)).mean()
    entries = ledger(quantized, VNNI)
    assert all(entry.reason for entry in entries if entry.precision == "fp32")
    if way == "int8" and case not in ("loop", "scan", "half", "operator of the engine's own"):
        assert any(entry.precision == "int8" and entry.op == "Conv" for entry in entries)


@pytest.mark.parametrize("case", ["loop", "scan"])
@pytest.mark.parametrize("way", ["weights", "dynamic"])
def test_what_a_loop_multiplies_by_is_quantized(case, way, apply):
    model, feeds = CASES[case]()
    context = passes.Context(arithmetic=Arithmetic("u8"), calibration=lambda: iter([feeds]))
    quantized = apply(model, *STEPS[way], context=context)
    assert quantized.proto.ByteSize() < model.proto.ByteSize() / 2
    inner = [entry for entry in ledger(quantized, VNNI) if entry.op in ("MatMul", "Gemm", "MatMulInteger")]
    assert len(inner) == 1
    assert "body/" in inner[0].name
    assert inner[0].reason == rules.WEIGHT_ONLY if way == "weights" else inner[0].precision == "int8"


def test_what_is_quantized_stays_so_and_the_rest_follows(apply, outputs, integer_kernels):
    model = _two_convolutions()
    context = passes.Context(arithmetic=Arithmetic("u8"), calibration=lambda: iter([PICTURE]))
    first = apply(model, ("int8", {"exclude": ("c2",)}), context=context)
    assert [entry.precision for entry in ledger(first, VNNI) if entry.op == "Conv"] == ["int8", "fp32"]
    again = apply(first, "clean", "fuse", "int8", context=context)
    assert [entry.precision for entry in ledger(again, VNNI) if entry.op == "Conv"] == ["int8", "int8"]
    assert integer_kernels(again)["QLinearConv"] == 2
    third = apply(again, "clean", "fuse", "int8", context=context)
    assert run.same(outputs(third, PICTURE), outputs(again, PICTURE), tolerance=1e-6)
    assert [entry.reason for entry in ledger(third, VNNI)] == [None] * len(ledger(third, VNNI))


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_every_operator_set(opset, apply, outputs):
    nodes = [
        _conv("x", "w", "a"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["p"], kernel_shape=[2, 2]),
        _conv("p", "w2", "c"),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"]),
    ]
    constants = WEIGHTS | {"w3": _noise(8, 4), "b3": _noise(4)}
    try:
        model = _model(nodes, {"x": (FLOAT, [2, 3, 16, 16])}, constants, opset=opset)
        expected = outputs(model, PICTURE)
    except InputError:
        pytest.skip("ONNX Runtime does not run this operator set")
    context = passes.Context(arithmetic=Arithmetic("u8"), calibration=lambda: iter([PICTURE]))
    quantized = apply(model, "clean", "fuse", "int8", context=context)
    assert {e.precision for e in ledger(quantized, VNNI)} == {"int8"}
    assert np.abs(outputs(quantized, PICTURE)[0] - expected[0]).max() < 0.1 * np.abs(expected[0]).max()


@pytest.mark.parametrize("way", STEPS)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_damaged_weights_are_one_sentence(way, value, apply):
    weight = _noise(16, 16)
    weight[3, 5] = value
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = _model(nodes, {"x": (FLOAT, ["n", 16])}, {"w": weight})
    context = passes.Context(arithmetic=Arithmetic("u8"), calibration=lambda: iter([{"x": _noise(2, 16)}]))
    with pytest.raises(InputError, match="not finite") as error:
        apply(model, *STEPS[way], context=context)
    assert "\n" not in str(error.value)


def test_a_layer_that_makes_no_finite_values_can_be_excluded(make_model, apply):
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.standard_normal((16, 16)).astype(np.float32) for i in range(3)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Reciprocal", ["r"], ["q"]),  # 1 / 0
        helper.make_node("MatMul", ["q", "w1"], ["b"], name="wild"),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "w2"], ["y"], name="last"),
    ]
    model = make_model(nodes, {"x": ["N", 16]}, ["y"], constants=weights)
    rows = rng.standard_normal((32, 16)).astype(np.float32)
    context = passes.Context(calibration=lambda: iter([{"x": rows}]))
    with pytest.raises(InputError, match="not finite"):
        apply(model, ("int8", {}), context=context)
    found = apply(model, ("int8", {"exclude": ("wild", "last")}), context=context)
    assert sum(node.op_type == "QuantizeLinear" for node in found.proto.graph.node) == 1
