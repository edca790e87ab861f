"""INT8 without calibration data: weight-only and dynamic, in graphs and their subgraphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from farrier_contracts import targets
from farrier_contracts.errors import InputError
from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.ledger import ledger
from farrier_converters.model import from_proto, load, save
from farrier_converters.quantize import rules
from farrier_converters.quantize.uncalibrated.integers import best_axis, quantize

VNNI = targets.get("x86-vnni")
CONTEXT = passes.Context(arithmetic=Arithmetic("u8"))


def _noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _close(found, expected, share=0.02):
    pairs = zip(found, expected, strict=True)
    return all(np.square(f - e).mean() <= share**2 * np.square(e).mean() for f, e in pairs)


@given(values=hnp.arrays(np.float32, (5, 33), elements=st.floats(-1e3, 1e3, width=32)))
def test_integers_are_within_half_a_step(values):
    for kept in ((), (0,), (1,), best_axis(values)):
        integers, scale = quantize(values, kept)
        assert np.abs(integers.astype(int)).max(initial=0) <= 127
        assert (np.abs(integers * scale - values) <= scale * 0.5001 + 1e-12).all()


def test_the_axis_with_rows_of_their_own_is_found():
    values = _noise((8, 64)) * np.logspace(-3, 0, 8, dtype=np.float32)[:, None]
    assert best_axis(values) == (0,)


@pytest.fixture(scope="module")
def transformer():
    """One block with 2 heads over an embedding of 50 tokens, in the operators that exporters write."""
    width, heads = 32, 2
    half, order = width // heads, ([0, 2, 1, 3], [0, 2, 3, 1])
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["x"], name="embed"),
        helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"], axis=-1),
    ]
    for part in "qkv":
        nodes += [
            helper.make_node("MatMul", ["n", f"w{part}"], [f"{part}0"], name=part),
            helper.make_node("Reshape", [f"{part}0", "split"], [f"{part}1"]),
            helper.make_node("Transpose", [f"{part}1"], [f"{part}2"], perm=order[part == "k"]),
        ]
    nodes += [
        helper.make_node("MatMul", ["q2", "k2"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v2"], ["a0"], name="mix"),
        helper.make_node("Transpose", ["a0"], ["a1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["a1", "join"], ["a2"]),
        helper.make_node("MatMul", ["a2", "wo"], ["a3"], name="out"),
        helper.make_node("Add", ["x", "a3"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["f0"], name="up"),
        helper.make_node("Relu", ["f0"], ["f1"]),
        helper.make_node("MatMul", ["f1", "w2"], ["f2"], name="down"),
        helper.make_node("Add", ["r", "f2"], ["y"]),
    ]
    constants = {
        "table": _noise((50, width)),
        "g": np.ones(width, np.float32),
        "b": np.zeros(width, np.float32),
        "split": np.array([0, 0, heads, half]),
        "join": np.array([0, 0, width]),
        "w1": _noise((width, 128), 5) / 6,
        "w2": _noise((128, width), 6) / 11,
    } | {f"w{part}": _noise((width, width), i) / 6 for i, part in enumerate("qkvo")}
    graph = helper.make_graph(
        nodes,
        "transformer",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "length", width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return from_proto(proto, "transformer"), {"tokens": np.random.default_rng(1).integers(0, 50, (2, 9))}


def test_weight_only_transformer(transformer, apply, outputs, integer_kernels):
    model, feeds = transformer
    small = apply(model, "int8-weights")
    assert small.proto.ByteSize() < model.proto.ByteSize() / 2.5
    assert _close(outputs(small, feeds), outputs(model, feeds))
    kernels = integer_kernels(small)
    assert kernels == integer_kernels(model)
    packed = apply(model, ("int8-weights", {"packed": True}))
    assert _close(outputs(packed, feeds), outputs(model, feeds))
    assert integer_kernels(packed)["MatMulNBits"] >= 5
    entries = {entry.name: entry.reason for entry in ledger(small, VNNI)}
    assert entries["embed"] == entries["q"] == rules.WEIGHT_ONLY
    assert entries["scores"] == rules.NO_WEIGHTS


def test_dynamic_transformer(transformer, apply, outputs, integer_kernels):
    model, feeds = transformer
    dynamic = apply(model, ("int8-dynamic", {"smallest": 1024, "exclude": ("down",)}), context=CONTEXT)
    assert _close(outputs(dynamic, feeds), outputs(model, feeds), 0.03)
    kernels = integer_kernels(dynamic)
    integer = kernels.get("DynamicQuantizeMatMul", 0) + kernels.get("MatMulIntegerToFloat", 0)
    assert integer == 5
    assert kernels["MatMul"] == 3
    assert kernels.get("DynamicQuantizeLinear", 0) == 1
    reasons = {entry.name: entry.reason for entry in ledger(dynamic, VNNI)}
    assert reasons["down"] == rules.EXCLUDED
    assert reasons["scores"] == rules.NOT_CONSTANT
    precisions = {entry.name: entry.precision for entry in ledger(dynamic, VNNI)}
    assert precisions["q"] == precisions["up"] == "int8"


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("transposed", [0, 1])
def test_dynamic_and_weight_only_gemm(make_model, apply, outputs, biased, transposed):
    weight = _noise((48, 40)) / 7
    constants = {"w": weight.T.copy() if transposed else weight}
    if biased:
        constants["b"] = _noise(40, 3)
    nodes = [helper.make_node("Gemm", ["x", *constants], ["y"], transB=transposed)]
    model = make_model(nodes, {"x": ["N", 48]}, ["y"], constants=constants)
    feeds = {"x": _noise((3, 48))}
    for step in (("int8-dynamic", {"smallest": 1000}), "int8-weights", ("int8-weights", {"packed": True})):
        small = apply(model, step, context=CONTEXT)
        assert small.proto.ByteSize() < model.proto.ByteSize() / 2
        assert _close(outputs(small, feeds), outputs(model, feeds), 0.03)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_recurrent_layers(make_model, apply, outputs, op, direction):
    ways, gates = (2 if direction == "bidirectional" else 1), (4 if op == "LSTM" else 3)
    constants = {
        "w": _noise((ways, gates * 24, 16)) / 4,
        "r": _noise((ways, gates * 24, 24), 1) / 5,
        "b": _noise((ways, 2 * gates * 24), 2) / 5,
    }
    nodes = [helper.make_node(op, ["x", "w", "r", "b"], ["y"], hidden_size=24, direction=direction)]
    model = make_model(nodes, {"x": [7, "N", 16]}, ["y"], constants=constants)
    feeds = {"x": _noise((7, 2, 16))}
    small = apply(model, "int8-weights")
    assert small.proto.ByteSize() < model.proto.ByteSize() / 2.5
    assert _close(outputs(small, feeds), outputs(model, feeds), 0.03)
    dynamic = apply(model, ("int8-dynamic", {"smallest": 256}), context=CONTEXT)
    assert _close(outputs(dynamic, feeds), outputs(model, feeds), 0.06)
    entry = ledger(dynamic, VNNI)[0]
    if op == "LSTM":
        assert (entry.op, entry.precision) == ("DynamicQuantizeLSTM", "int8")
    else:
        assert entry.reason == rules.NOT_DYNAMIC.format(op="GRU")


def test_convolutions_are_unpacked_once(make_model, apply, outputs, integer_kernels):
    constants = {
        "w": _noise((16, 8, 3, 3)),
        "t": _noise((16, 8, 2, 2), 1),
        "prior": _noise((1, 8, 64, 64), 2),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["a", "t"], ["b"], strides=[2, 2]),
        helper.make_node("Mul", ["b", "prior"], ["y"]),
    ]
    model = make_model(nodes, {"x": ["N", 8, 32, 32]}, ["y"], constants=constants)
    feeds = {"x": _noise((1, 8, 32, 32))}
    small = apply(model, ("int8-weights", {"smallest": 256}))
    assert _close(outputs(small, feeds), outputs(model, feeds))
    kernels = integer_kernels(small)
    assert "Cast" not in kernels
    assert kernels["Mul"] == 1
    kept = {t.name for t in small.proto.graph.initializer if t.data_type == TensorProto.FLOAT}
    assert "prior" in kept


@pytest.fixture(scope="module")
def silero(shared_data):
    return load(shared_data / "silero_vad/src/silero_vad/data/silero_vad_16k_op15.onnx")


def _voice(seed):
    state = _noise((2, 1, 128), seed + 9) / 10
    return {"input": _noise((1, 576), seed) / 20, "state": state, "sr": np.array(16000, np.int64)}


def test_silero_weights_in_eight_bits(silero, apply, outputs, tmp_path):
    small = apply(silero, "int8-weights")
    assert small.proto.ByteSize() < silero.proto.ByteSize() / 3.2
    for seed in range(3):
        expected, found = outputs(silero, _voice(seed)), outputs(small, _voice(seed))
        assert abs(found[0] - expected[0]).max() < 0.01
        assert abs(found[1] - expected[1]).max() < 0.1
    save(small, tmp_path / "small.onnx")
    assert run.same(
        outputs(load(tmp_path / "small.onnx"), _voice(5)), outputs(small, _voice(5)), tolerance=1e-6
    )


def test_a_product_in_a_branch(apply, outputs):
    """The branch multiplies by a constant of the outer graph, and by one of its own."""
    inner = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "outer"], ["i0"]),
            helper.make_node("MatMul", ["i0", "inner"], ["i1"]),
        ],
        "then",
        [],
        [helper.make_tensor_value_info("i1", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(_noise((32, 32), 3), "inner")],
    )
    other = helper.make_graph(
        [helper.make_node("MatMul", ["x", "outer"], ["e0"])],
        "else",
        [],
        [helper.make_tensor_value_info("e0", TensorProto.FLOAT, ["n", 32])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=other)],
        "branches",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(_noise((32, 32), 4), "outer")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = from_proto(proto, "branches")
    for step in (("int8-dynamic", {"smallest": 1024}), "int8-weights"):
        small = apply(model, step, context=CONTEXT)
        onnx.checker.check_model(small.proto)
        assert small.proto.ByteSize() < model.proto.ByteSize() * 0.75
        for flag in (True, False):
            feeds = {"x": _noise((3, 32)), "flag": np.array(flag)}
            assert _close(outputs(small, feeds), outputs(model, feeds), 0.03)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 5), inner=st.integers(32, 70), outer=st.integers(32, 70), seed=st.integers(0, 99))
def test_any_product_stays_close(rows, inner, outer, seed, make_model, apply, outputs):
    constants = {"w": _noise((inner, outer), seed)}
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", inner]}, ["y"], constants=constants
    )
    feeds = {"x": _noise((rows, inner), seed + 1)}
    expected = outputs(model, feeds)
    for step in (("int8-dynamic", {"smallest": 1024}), "int8-weights"):
        assert _close(outputs(apply(model, step, context=CONTEXT), feeds), expected, 0.04)


@pytest.mark.parametrize("step", [("int8-dynamic", {"smallest": 256}), ("int8-weights", {"smallest": 256})])
def test_damaged_weights_are_refused(make_model, apply, step):
    weight = _noise((32, 32))
    weight[3, 3] = np.nan
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = make_model(nodes, {"x": ["N", 32]}, ["y"], constants={"w": weight})
    with pytest.raises(InputError, match="'w' hold values that are not finite"):
        apply(model, step, context=CONTEXT)
