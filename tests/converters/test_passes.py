"""Clean, fuse and fp16: fewer nodes, the same answers."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from farrier_contracts.errors import UsageError
from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.graph.upgrade import CannotUpgradeError, upgrade
from farrier_converters.model import load, opset

ULTRAFACE = ["version-RFB-320.onnx", "version-RFB-320_without_postprocessing.onnx"]


def _ops(model):
    return Counter(node.op_type for node in model.proto.graph.node)


def _noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_every_pass_of_the_table_loads():
    for name in passes.PASSES:
        found = passes.get(name)
        assert found.name == name
        assert found.options()
    with pytest.raises(UsageError, match="null, clean, fuse"):
        passes.get("absent")


@pytest.mark.parametrize("name", ULTRAFACE)
def test_ultraface_stays_equal(shared_data, apply, outputs, name):
    model = load(shared_data / "ultraface" / "models" / "onnx" / name)
    before = model.proto.SerializeToString(deterministic=True)
    clean = apply(model, "clean")
    fused = apply(clean, "fuse")
    assert _ops(fused)["BatchNormalization"] == 0
    assert not {"Constant", "Shape", "Gather", "Unsqueeze"} & set(_ops(clean))
    assert len(clean.proto.graph.input) == 1
    feeds = {"input": _noise((1, 3, 240, 320))}
    expected = outputs(model, feeds)
    assert run.same(outputs(clean, feeds), expected, tolerance=1e-4)
    assert run.same(outputs(fused, feeds), expected, tolerance=1e-4)
    assert model.proto.SerializeToString(deterministic=True) == before


def test_resnet20_loses_its_batch_norms(resnet20, apply, outputs):
    fused = apply(resnet20, "clean", "fuse")
    assert _ops(resnet20)["BatchNormalization"] == 19
    assert _ops(fused)["BatchNormalization"] == 0
    for batch in (1, 3):
        feeds = {"images": _noise((batch, 3, 32, 32))}
        assert run.same(outputs(fused, feeds), outputs(resnet20, feeds), tolerance=1e-4)


@pytest.mark.parametrize("steps", [("clean",), ("clean", "fuse"), ("clean", "fuse", "fp16")])
def test_silero_keeps_its_answers(shared_data, apply, outputs, steps):
    model = load(shared_data / "silero_vad/src/silero_vad/data/silero_vad_16k_op15.onnx")
    changed = apply(model, *steps)
    assert _ops(changed)["If"] == _ops(model)["If"] == 3
    feeds = {
        "input": _noise((2, 576)) / 10,
        "state": _noise((2, 2, 128), seed=1) / 10,
        "sr": np.array(16000, np.int64),
    }
    tolerance = 1e-2 if "fp16" in steps else 1e-5
    assert run.same(outputs(changed, feeds), outputs(model, feeds), tolerance=tolerance)


def test_fp16_of_resnet20(resnet20, cifar10, apply, outputs):
    images, labels = cifar10
    images, labels = images[512:], labels[512:]
    half = apply(resnet20, "clean", "fuse", "fp16")
    expected = outputs(resnet20, {"images": images})[0].argmax(1)
    found = outputs(half, {"images": images})[0]
    assert found.dtype == np.float32
    assert abs((found.argmax(1) == labels).mean() - (expected == labels).mean()) <= 0.002
    assert half.proto.ByteSize() < resnet20.proto.ByteSize() * 0.55
    assert {t.data_type for t in half.proto.graph.initializer if len(t.dims) > 1} == {TensorProto.FLOAT16}


def test_fp16_keeps_what_would_overflow(make_model, apply, outputs):
    nodes = [
        helper.make_node("Mul", ["x", "huge"], ["a"]),
        helper.make_node("Add", ["a", "tiny"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Clip", ["c", "", "bound"], ["y"]),
    ]
    constants = {
        "huge": np.array([1e6], np.float32),
        "tiny": np.array([1e-9], np.float32),
        "bound": np.array(3e38, np.float32),
    }
    model = make_model(nodes, {"x": [2]}, ["y"], constants=constants)
    feeds = {"x": np.array([1e-3, 0.0], np.float32)}
    half = apply(model, "fp16")
    assert run.same(outputs(half, feeds), outputs(model, feeds), tolerance=1e-3)
    by_name = {node.op_type: node for node in half.proto.graph.node}
    assert "does not fit" in by_name["Mul"].metadata_props[0].value
    assert "become zero" in by_name["Add"].metadata_props[0].value
    assert not by_name["Clip"].metadata_props


def test_lstm_and_loop_stay_whole(make_model, apply, outputs):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("Add", ["carried", "outer"], ["more"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["sequence"], hidden_size=4),
        helper.make_node("Squeeze", ["sequence", "one"], ["flat"]),
        helper.make_node("MatMul", ["flat", "v"], ["outer"]),
        helper.make_node("Loop", ["three", "", "outer"], ["y"], body=body),
    ]
    constants = {
        "w": _noise((1, 16, 3)),
        "r": _noise((1, 16, 4), 1),
        "v": _noise((4, 4), 2),
        "one": np.array([1], np.int64),
        "three": np.array(3, np.int64),
    }
    model = make_model(nodes, {"x": [5, "N", 3]}, ["y"], constants=constants)
    feeds = {"x": _noise((5, 2, 3))}
    expected = outputs(model, feeds)[0]
    context = passes.Context(calibration=lambda: iter([feeds]))
    for steps, tolerance in ((("clean", "fuse"), 1e-5), (("clean", "fp16"), 1e-2), (("clean", "int8"), 0.05)):
        changed = apply(model, *steps, context=context)
        assert {"LSTM", "Loop"} <= set(_ops(changed))
        found = outputs(changed, feeds)[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_random_operators_are_not_folded(make_model, apply):
    nodes = [
        helper.make_node("RandomNormal", [], ["r"], shape=[3]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    assert _ops(apply(make_model(nodes, {"x": [3]}, ["y"]), "clean"))["RandomNormal"] == 1


def test_folding_does_not_blow_up(make_model, apply):
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["big"]),
        helper.make_node("Add", ["x", "big"], ["y"]),
    ]
    constants = {"one": np.ones(1, np.float32), "shape": np.array([1 << 22], np.int64)}
    model = make_model(nodes, {"x": [1 << 22]}, ["y"], constants=constants)
    assert apply(model, "clean").proto.ByteSize() < 1000
    assert _ops(apply(model, ("clean", {"fold_bytes": 1 << 25}))) == {"Add": 1}


def test_captured_names_survive(make_model, apply, outputs):
    inner = [helper.make_node("Add", ["kept", "w"], ["out"])]
    branch = helper.make_graph(
        inner, "b", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    )
    nodes = [
        helper.make_node("Identity", ["x"], ["kept"]),
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["condition"]),
        helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch),
    ]
    constants = {"w": np.ones(3, np.float32), "zero": np.zeros((), np.float32), "w2": np.ones(3, np.float32)}
    model = make_model(nodes, {"x": [3]}, ["y"], constants=constants)
    feeds = {"x": _noise((3,))}
    for steps in (("clean",), ("clean", "fuse"), ("clean", "fp16")):
        assert run.same(outputs(apply(model, *steps), feeds), outputs(model, feeds), tolerance=1e-3)


def test_dropout_and_duplicates_go(make_model, apply, outputs):
    nodes = [
        helper.make_node("Dropout", ["x"], ["a"]),
        helper.make_node("Mul", ["a", "w1"], ["b"]),
        helper.make_node("Add", ["b", "w2"], ["y"]),
    ]
    same = {"w1": np.full(3, 2, np.float32), "w2": np.full(3, 2, np.float32)}
    model = make_model(nodes, {"x": [3]}, ["y"], constants=same)
    clean = apply(model, "clean")
    assert _ops(clean) == {"Mul": 1, "Add": 1}
    assert len(clean.proto.graph.initializer) == 1
    feeds = {"x": _noise((3,))}
    assert run.same(outputs(clean, feeds), outputs(model, feeds), tolerance=0)


def test_pad_and_mean_become_part_of_others(make_model, apply, outputs):
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["c"], pads=[0, 1, 0, 0]),
        helper.make_node("ReduceMean", ["c"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "v"], ["n"]),
        helper.make_node("Add", ["n", "b"], ["y"]),
    ]
    constants = {
        "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1], np.int64),
        "w": _noise((4, 3, 3, 3)),
        "v": _noise((4, 5)),
        "b": _noise((5,)),
    }
    model = make_model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], constants=constants)
    fused = apply(model, "clean", "fuse")
    assert _ops(fused) == {"Conv": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    feeds = {"x": _noise((2, 3, 8, 8))}
    assert run.same(outputs(fused, feeds), outputs(model, feeds), tolerance=1e-4)


def test_shared_weights_are_fused_apart(make_model, apply, outputs):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Mul", ["a", "s"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    constants = {"w": _noise((3, 3, 1, 1)), "s": _noise((3, 1, 1), seed=2)}
    model = make_model(nodes, {"x": [1, 3, 4, 4]}, ["y"], constants=constants)
    fused = apply(model, "fuse")
    assert _ops(fused) == {"Conv": 2}
    feeds = {"x": _noise((1, 3, 4, 4))}
    assert run.same(outputs(fused, feeds), outputs(model, feeds), tolerance=1e-4)


def test_upgrade_proves_itself(shared_data):
    model = load(shared_data / "ultraface" / "models" / "onnx" / ULTRAFACE[0])
    assert opset(upgrade(model, 13).proto) == 13


def test_upgrade_refuses_what_it_cannot_prove(make_model):
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"])]
    constants = {"i": np.array([0, 5], np.int64)}
    with pytest.raises(CannotUpgradeError, match="no data to compare"):
        upgrade(make_model(nodes, {"x": ["N"]}, ["y"], constants=constants, opset=11), 13)


def test_folding_does_not_run_away(make_model, apply):
    """Whatever a hostile file asks for, folding neither computes nor infers more than its limit."""
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["big"]),
        helper.make_node("Add", ["x", "big"], ["y"]),
    ]
    constants = {"one": np.ones(1, np.float32), "shape": np.array([1 << 40], np.int64)}
    model = make_model(nodes, {"x": [1]}, ["y"], constants=constants)
    assert _ops(apply(model, "clean")) == {"Expand": 1, "Add": 1}


@st.composite
def _chains(draw):
    """A chain of convolutions with batch norms, scales, shifts, paddings and activations in between."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes, constants, name = [], {}, "x"
    channels = 3

    def constant(value):
        key = f"c{len(constants)}"
        constants[key] = np.asarray(value, np.float32)
        return key

    for index, op in enumerate(draw(st.lists(st.sampled_from(CHAIN_OPS), min_size=1, max_size=8))):
        result = f"t{index}"
        if op == "Conv":
            width = draw(st.integers(1, 5))
            inputs = [name, constant(rng.normal(size=(width, channels, 3, 3)))]
            channels = width
            if draw(st.booleans()):
                inputs.append(constant(rng.normal(size=width)))
            nodes.append(helper.make_node(op, inputs, [result], pads=[1, 1, 1, 1]))
        elif op == "BatchNormalization":
            fields = [rng.normal(size=channels) for _ in range(3)] + [rng.uniform(0.1, 2, channels)]
            nodes.append(helper.make_node(op, [name, *map(constant, fields)], [result]))
        elif op in ("Mul", "Add", "Sub", "Div"):
            shape = draw(st.sampled_from([(), (1,), (channels, 1, 1), (1, channels, 1, 1), (6,)]))
            operands = [name, constant(rng.uniform(0.5, 2, shape))]
            if op != "Div" and draw(st.booleans()):
                operands.reverse()
            nodes.append(helper.make_node(op, operands, [result]))
        elif op == "Pad":
            pads = np.array([0, 0, 1, 0, 0, 0, 1, 0], np.int64)
            constants[f"p{index}"] = pads
            nodes.append(helper.make_node(op, [name, f"p{index}"], [result]))
            nodes.append(helper.make_node("MaxPool", [result], [f"{result}_m"], kernel_shape=[3, 1]))
            result = f"{result}_m"
        else:
            nodes.append(helper.make_node(op, [name], [result]))
        name = result
    return nodes, constants, name


CHAIN_OPS = ["Conv", "Conv", "BatchNormalization", "Mul", "Add", "Sub", "Div", "Pad", "Relu", "Identity"]


@settings(max_examples=60, deadline=None)
@given(chain=_chains())
def test_any_chain_stays_equal(chain, apply, outputs, make_model):
    nodes, constants, result = chain
    model = make_model(nodes, {"x": ["N", 3, 6, 6]}, [result], constants=constants)
    feeds = {"x": _noise((2, 3, 6, 6))}
    expected = outputs(model, feeds)[0]
    scale = 1 + float(np.nanmax(np.abs(expected)))
    for steps in (("clean",), ("clean", "fuse")):
        found = outputs(apply(model, *steps), feeds)[0]
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    ops=st.lists(st.sampled_from(["Mul", "Div", "Add", "Sub"]), min_size=1, max_size=4),
    single=st.booleans(),
    groups=st.sampled_from([1, 2, 4]),
    padding=st.sampled_from([{}, {"pads": [0, 1, 1, 0]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "VALID"}]),
    biased=st.booleans(),
)
def test_scales_and_shifts_before_a_convolution_become_its_weights(
    seed, ops, single, groups, padding, biased, apply, outputs, make_model
):
    rng = np.random.default_rng(seed)
    shape = (1,) if single else (4, 1, 1)
    constants = {f"c{i}": rng.uniform(0.5, 2, shape).astype(np.float32) for i in range(len(ops))}
    constants["w"] = rng.normal(size=(8, 4 // groups, 3, 3)).astype(np.float32)
    constants["b"] = rng.normal(size=8).astype(np.float32)
    nodes = [helper.make_node(op, [f"t{i}", f"c{i}"], [f"t{i + 1}"]) for i, op in enumerate(ops)]
    inputs = [f"t{len(ops)}", "w", "b"][: 2 + biased]
    nodes.append(helper.make_node("Conv", inputs, ["y"], group=groups, **padding))
    model = make_model(nodes, {"t0": ["N", 4, 6, 6]}, ["y"], constants=constants)
    fused = apply(model, "fuse")
    pads = "pads" in padding or padding.get("auto_pad") == "SAME_UPPER"
    stays = max((i + 1 for i, op in enumerate(ops) if op in ("Add", "Sub")), default=0) if pads else 0
    inverses = {"Sub": "Add", "Div": "Mul"}
    left = [op for op, _ in itertools.groupby(inverses.get(op, op) for op in ops[:stays])]
    assert [n.op_type for n in fused.proto.graph.node] == [*left, "Conv"]
    feeds = {"t0": _noise((2, 4, 6, 6))}
    assert run.same(outputs(fused, feeds), outputs(model, feeds), tolerance=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_standardized_input_becomes_part_of_a_gemm(make_model, apply, outputs, transposed):
    weight = _noise((5, 3))
    constants = {
        "mean": np.array([100, -3, 0.5], np.float32),
        "std": np.array([30, 2, 0.1], np.float32),
        "w": weight if transposed else weight.T.copy(),
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["a"]),
        helper.make_node("Div", ["a", "std"], ["b"]),
        helper.make_node("Gemm", ["b", "w"], ["y"], transB=int(transposed)),
    ]
    model = make_model(nodes, {"x": ["N", 3]}, ["y"], constants=constants)
    fused = apply(model, "fuse")
    assert _ops(fused) == {"Gemm": 1}
    feeds = {"x": _noise((4, 3)) * constants["std"] + constants["mean"]}
    assert run.same(outputs(fused, feeds), outputs(model, feeds), tolerance=1e-4)


@pytest.mark.parametrize(
    ("shape", "constant"),
    [
        ([2, 1, 4, 4], np.ones((3, 1, 1), np.float32)),  # makes three channels of one
        ([2, 3, 4, 4], np.ones((1, 3, 4, 4), np.float32)),  # differs from pixel to pixel
        ([2, 3, 4, 4], np.full(1, 1e8, np.float32)),  # takes the digits of float32
    ],
)
def test_what_is_no_scale_per_channel_stays_before_a_convolution(make_model, apply, shape, constant):
    nodes = [helper.make_node("Add", ["x", "c"], ["a"]), helper.make_node("Conv", ["a", "w"], ["y"])]
    model = make_model(nodes, {"x": shape}, ["y"], constants={"c": constant, "w": _noise((2, 3, 1, 1))})
    assert _ops(apply(model, "fuse")) == {"Add": 1, "Conv": 1}
