"""Each fusion rule on the smallest graph that it fits: fewer operators, the same numbers, and a proof of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper

from farrier_contracts import targets
from farrier_converters import passes
from farrier_converters.fusion import Log
from farrier_converters.graph import run
from farrier_converters.search import plan


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _ints(*values):
    return np.array(values, np.int64)


def _f(value):
    return np.array(value, np.float32)


node = helper.make_node
PICTURE = {"x": ["N", 4, 6, 6]}
ROWS = {"x": ["N", 8]}
SEQUENCE = {"x": ["N", 5, 8]}
NORM = [_noise(4, seed=1), _noise(4, seed=2), _noise(4, seed=3), np.abs(_noise(4, seed=4)) + 0.1]
NORM_INPUTS = {"g": NORM[0], "b": NORM[1], "m": NORM[2], "v": NORM[3]}
LAYER_NORM = [
    node("ReduceMean", ["x"], ["mean"], axes=[-1]),
    node("Sub", ["x", "mean"], ["d"]),
    node("Pow", ["d", "two"], ["d2"]),
    node("ReduceMean", ["d2"], ["var"], axes=[-1]),
    node("Add", ["var", "eps"], ["ve"]),
    node("Sqrt", ["ve"], ["std"]),
    node("Div", ["d", "std"], ["n"]),
    node("Mul", ["n", "g"], ["ng"]),
    node("Add", ["ng", "b"], ["y"]),
]
LAYER_NORM_CONSTANTS = {
    "two": _f(2), "eps": _f(1e-5), "g": _noise(8, seed=1), "b": _noise(8, seed=2),
}  # fmt: skip
SHAPE = [
    node("Shape", ["x"], ["s"]),
    node("Gather", ["s", "zero"], ["n"]),
    node("Unsqueeze", ["n", "axes"], ["n1"]),
    node("Concat", ["n1", "rest"], ["to"], axis=0),
]
SHAPE_CONSTANTS = {"zero": np.array(0, np.int64), "axes": _ints(0)}

# name: (rule, nodes, inputs, constants, operator set, what is left)
CASES = {
    "identity": ("no-op", [node("Identity", ["x"], ["a"]), node("Relu", ["a"], ["y"])], ROWS, {}, 17, ["Relu"]),
    "identity before an output": (
        "no-op", [node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["y"])], ROWS, {}, 17, ["Relu"],
    ),
    "cast to the same type": (
        "no-op", [node("Cast", ["x"], ["a"], to=TensorProto.FLOAT), node("Relu", ["a"], ["y"])], ROWS, {}, 17, ["Relu"],
    ),
    "reshape to the same shape": (
        "no-op", [node("Reshape", ["x", "s"], ["a"]), node("Relu", ["a"], ["y"])], ROWS, {"s": _ints(-1, 8)}, 17,
        ["Relu"],
    ),
    "a slice of everything": (
        "no-op", [node("Slice", ["x", "0", "9", "1"], ["a"]), node("Relu", ["a"], ["y"])], ROWS,
        {"0": _ints(0), "9": _ints(1 << 40), "1": _ints(1)}, 17, ["Relu"],
    ),
    "times one": (
        "no-op", [node("Mul", ["x", "c"], ["a"]), node("Relu", ["a"], ["y"])], ROWS, {"c": _f([[1.0]])}, 17, ["Relu"],
    ),
    "a window of one": (
        "no-op", [node("MaxPool", ["x"], ["a"], kernel_shape=[1, 1]), node("Relu", ["a"], ["y"])], PICTURE, {}, 17,
        ["Relu"],
    ),
    "relu of relu": ("no-op", [node("Relu", ["x"], ["a"]), node("Relu", ["a"], ["y"])], ROWS, {}, 17, ["Relu"]),
    "a computed shape": (
        "reshape to a computed shape",
        [*SHAPE, node("Reshape", ["x", "to"], ["y"])], PICTURE, {**SHAPE_CONSTANTS, "rest": _ints(2, 72)}, 17,
        ["Reshape"],
    ),
    "a shape computed from another tensor": (
        "reshape to a computed shape",
        [*SHAPE, node("Exp", ["x"], ["e"]), node("Reshape", ["e", "to"], ["y"])], PICTURE,
        {**SHAPE_CONSTANTS, "rest": _ints(144)}, 17, ["Exp", "Reshape"],
    ),
    "twice the same": (
        "common subexpression",
        [node("Exp", ["x"], ["a"]), node("Exp", ["x"], ["b"]), node("Mul", ["a", "b"], ["y"])], ROWS, {}, 17,
        ["Exp", "Mul"],
    ),
    "transposes that cancel": (
        "transposes in a row",
        [
            node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]), node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]),
            node("Relu", ["b"], ["y"]),
        ], PICTURE, {}, 17, ["Relu"],
    ),
    "transposes that join": (
        "transposes in a row",
        [node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]), node("Transpose", ["a"], ["y"], perm=[0, 2, 1, 3])],
        PICTURE, {}, 17, ["Transpose"],
    ),
    "squeeze and unsqueeze": (
        "reshapes in a row",
        [node("Unsqueeze", ["x", "1"], ["a"]), node("Squeeze", ["a", "1"], ["b"]), node("Exp", ["b"], ["y"])],
        ROWS, {"1": _ints(1)}, 17, ["Exp"],
    ),
    "reshapes": (
        "reshapes in a row",
        [node("Reshape", ["x", "s"], ["a"]), node("Reshape", ["a", "t"], ["y"])], PICTURE,
        {"s": _ints(-1, 36), "t": _ints(-1, 144)}, 17, ["Reshape"],
    ),
    "casts": (
        "casts in a row",
        [
            node("Cast", ["x"], ["a"], to=TensorProto.DOUBLE), node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
            node("Relu", ["b"], ["y"]),
        ], ROWS, {}, 17, ["Relu"],
    ),
    "slices": (
        "slices in a row",
        [node("Slice", ["x", "1", "5", "2"], ["a"]), node("Slice", ["a", "1", "5", "3"], ["y"])], PICTURE,
        {"1": _ints(1), "5": _ints(5), "2": _ints(2), "3": _ints(3)}, 17, ["Slice"],
    ),
    "split and concat": (
        "concats in a row",
        [
            node("Split", ["x", "s"], ["a", "b"], axis=1), node("Concat", ["a", "b"], ["c"], axis=1),
            node("Relu", ["c"], ["y"]),
        ], PICTURE, {"s": _ints(1, 3)}, 17, ["Relu"],
    ),
    "concat of concat": (
        "concats in a row",
        [
            node("Exp", ["x"], ["a"]), node("Concat", ["x", "a"], ["b"], axis=1),
            node("Concat", ["a", "b", "x"], ["y"], axis=-3),
        ], PICTURE, {}, 17, ["Exp", "Concat"],
    ),
    "conv and batch norm": (
        "batch norm into the layer before",
        [node("Conv", ["x", "w"], ["a"]), node("BatchNormalization", ["a", "g", "b", "m", "v"], ["y"])], PICTURE,
        {"w": _noise(4, 4, 3, 3), **NORM_INPUTS}, 17, ["Conv"],
    ),
    "grouped transposed conv and batch norm": (
        "batch norm into the layer before",
        [
            node("ConvTranspose", ["x", "w"], ["a"], group=2, strides=[2, 2]),
            node("BatchNormalization", ["a", "g", "b", "m", "v"], ["y"]),
        ], PICTURE, {"w": _noise(4, 2, 3, 3), **NORM_INPUTS}, 17, ["ConvTranspose"],
    ),
    "batch norm and conv": (
        "scale or batch norm into the layer behind",
        [node("BatchNormalization", ["x", "g", "b", "m", "v"], ["a"]), node("Conv", ["a", "w"], ["y"])], PICTURE,
        {"w": _noise(2, 4, 3, 3), **NORM_INPUTS}, 17, ["Conv"],
    ),
    "matmul and bias": (
        "scale or bias into the layer before",
        [node("MatMul", ["x", "w"], ["a"]), node("Add", ["c", "a"], ["y"])], ROWS,
        {"w": _noise(8, 3), "c": _noise(3, seed=1)}, 17, ["Gemm"],
    ),
    "scales in a row": (
        "constants in a row",
        [node("Mul", ["x", "a"], ["p"]), node("Div", ["p", "b"], ["q"]), node("Exp", ["q"], ["y"])], ROWS,
        {"a": _noise(8), "b": _f(3)}, 17, ["Mul", "Exp"],
    ),
    "pad and average": (
        "pad into the pool",
        [node("Pad", ["x", "p"], ["a"]), node("AveragePool", ["a"], ["y"], kernel_shape=[3, 3], strides=[2, 2])],
        PICTURE, {"p": _ints(0, 0, 1, 0, 0, 0, 1, 2)}, 17, ["AveragePool"],
    ),
    "relu, pad and maximum": (
        "pad into the pool",
        [
            node("Relu", ["x"], ["r"]), node("Pad", ["r", "p"], ["a"]),
            node("MaxPool", ["a"], ["y"], kernel_shape=[3, 3]),
        ], PICTURE, {"p": _ints(0, 0, 1, 1, 0, 0, 1, 1)}, 17, ["Relu", "MaxPool"],
    ),
    "relu6 from relu and min": (
        "limits in a row",
        [node("Relu", ["x"], ["a"]), node("Min", ["a", "6"], ["y"])], ROWS, {"6": _f(6)}, 17, ["Clip"],
    ),
    "max with zero": ("limits in a row", [node("Max", ["0", "x"], ["y"])], ROWS, {"0": _f(0)}, 17, ["Relu"]),
    "clips that never meet": (
        "limits in a row",
        [node("Clip", ["x", "3", "4"], ["a"]), node("Clip", ["a", "-1", "1"], ["y"])], ROWS,
        {"3": _f(3), "4": _f(4), "-1": _f(-1), "1": _f(1)}, 17, ["Clip"],
    ),
    "leaky relu": (
        "leaky relu from its formula",
        [node("Mul", ["x", "a"], ["p"]), node("Max", ["x", "p"], ["y"])], ROWS, {"a": _f(0.1)}, 17, ["LeakyRelu"],
    ),
    "hard swish": (
        "hard swish from its formula",
        [
            node("Add", ["x", "3"], ["a"]), node("Clip", ["a", "0", "6"], ["c"]), node("Mul", ["x", "c"], ["p"]),
            node("Div", ["p", "6"], ["y"]),
        ], ROWS, {"3": _f(3), "0": _f(0), "6": _f(6)}, 17, ["HardSwish"],
    ),
    "hard swish in an old operator set": (
        "hard swish from its formula",
        [
            node("Add", ["x", "3"], ["a"]), node("Clip", ["a", "0", "6"], ["c"]), node("Mul", ["x", "c"], ["p"]),
            node("Div", ["p", "6"], ["y"]),
        ], ROWS, {"3": _f(3), "0": _f(0), "6": _f(6)}, 13, ["HardSigmoid", "Mul"],
    ),
    "hard swish from its gate": (
        "hard swish from its gate",
        [node("HardSigmoid", ["x"], ["g"], alpha=1 / 6, beta=0.5), node("Mul", ["g", "x"], ["y"])], ROWS, {}, 14,
        ["HardSwish"],
    ),
    "hard swish before a convolution": (
        "hard swish from its formula",
        [
            node("Add", ["x", "3"], ["a"]), node("Clip", ["a", "0", "6"], ["c"]), node("Mul", ["x", "c"], ["p"]),
            node("Div", ["p", "6"], ["q"]), node("Conv", ["q", "w"], ["y"]),
        ], PICTURE, {"3": _f(3), "0": _f(0), "6": _f(6), "w": _noise(2, 4, 1, 1)}, 17, ["HardSwish", "Conv"],
    ),
    "hard sigmoid": (
        "hard sigmoid from its formula",
        [
            node("Mul", ["x", "s"], ["a"]), node("Add", ["a", "h"], ["b"]), node("Clip", ["b", "0", "1"], ["y"]),
        ], ROWS, {"s": _f(1 / 6), "h": _f(0.5), "0": _f(0), "1": _f(1)}, 17, ["HardSigmoid"],
    ),
    "sigmoid": (
        "sigmoid from its formula",
        [
            node("Neg", ["x"], ["a"]), node("Exp", ["a"], ["e"]), node("Add", ["1", "e"], ["p"]),
            node("Div", ["1", "p"], ["y"]),
        ], ROWS, {"1": _f(1)}, 17, ["Sigmoid"],
    ),
    "gelu with erf": (
        "gelu from its formula",
        [
            node("Div", ["x", "r"], ["a"]), node("Erf", ["a"], ["e"]), node("Add", ["e", "1"], ["p"]),
            node("Mul", ["x", "p"], ["q"]), node("Mul", ["q", "h"], ["y"]),
        ], ROWS, {"r": _f(math.sqrt(2)), "1": _f(1), "h": _f(0.5)}, 20, ["Gelu"],
    ),
    "gelu with tanh": (
        "gelu from its formula",
        [
            node("Mul", ["x", "x"], ["x2"]), node("Mul", ["x2", "c"], ["a"]), node("Add", ["a", "1"], ["b"]),
            node("Mul", ["x", "b"], ["p"]), node("Mul", ["p", "k"], ["q"]), node("Tanh", ["q"], ["t"]),
            node("Add", ["t", "1"], ["u"]), node("Mul", ["x", "h"], ["hx"]), node("Mul", ["hx", "u"], ["y"]),
        ], ROWS, {"c": _f(0.044715), "k": _f(0.7978845608), "1": _f(1), "h": _f(0.5)}, 20, ["Gelu"],
    ),
    "layer norm": (
        "normalisation from its formula", LAYER_NORM, SEQUENCE, LAYER_NORM_CONSTANTS, 17, ["LayerNormalization"],
    ),
    "layer norm as keras writes it": (
        "difference from the mean taken off before",
        [
            node("ReduceMean", ["x"], ["m"], axes=[-1]), node("Sub", ["x", "m"], ["d"]), node("Mul", ["d", "d"], ["s"]),
            node("ReduceMean", ["s"], ["v"], axes=[-1]), node("Add", ["v", "eps"], ["ve"]),
            node("Sqrt", ["ve"], ["r"]), node("Reciprocal", ["r"], ["i"]), node("Mul", ["i", "g"], ["ig"]),
            node("Mul", ["x", "ig"], ["xs"]), node("Mul", ["m", "ig"], ["ms"]), node("Sub", ["b", "ms"], ["o"]),
            node("Add", ["xs", "o"], ["y"]),
        ], SEQUENCE, LAYER_NORM_CONSTANTS, 17, ["LayerNormalization"],
    ),
    "instance norm": (
        "normalisation from its formula",
        [
            node("ReduceMean", ["x"], ["m"], axes=[2, 3]), node("Sub", ["x", "m"], ["d"]),
            node("Mul", ["d", "d"], ["s"]),
            node("ReduceMean", ["s"], ["v"], axes=[2, 3]), node("Add", ["v", "eps"], ["ve"]),
            node("Sqrt", ["ve"], ["r"]),
            node("Reciprocal", ["r"], ["i"]), node("Mul", ["d", "i"], ["n"]), node("Mul", ["n", "g"], ["y"]),
        ], PICTURE, {"eps": _f(1e-3), "g": _noise(4, 1, 1)}, 17, ["InstanceNormalization"],
    ),
    "softmax": (
        "softmax from its formula",
        [
            node("ReduceMax", ["x"], ["m"], axes=[-1]), node("Sub", ["x", "m"], ["d"]), node("Exp", ["d"], ["e"]),
            node("ReduceSum", ["e", "last"], ["s"]), node("Div", ["e", "s"], ["y"]),
        ], SEQUENCE, {"last": _ints(-1)}, 17, ["Softmax"],
    ),
    "the scale of attention": (
        "number into the weights it scales",
        [
            node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "c"], ["q"]),
            node("Transpose", ["x"], ["k"], perm=[0, 2, 1]), node("MatMul", ["q", "k"], ["s"]),
            node("Mul", ["s", "n"], ["y"]),
        ], SEQUENCE, {"w": _noise(8, 8), "c": _noise(8, seed=1), "n": _f(0.35)}, 17,
        ["MatMul", "Add", "Transpose", "MatMul"],
    ),
    "transposes around": (
        "transposes around elementwise operators",
        [
            node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
            node("Mul", ["a", "c"], ["b"]), node("Exp", ["b"], ["d"]),
            node("Transpose", ["d"], ["y"], perm=[0, 3, 1, 2]),
        ], PICTURE, {"c": _noise(4)}, 17, ["Mul", "Exp"],
    ),
    "transposes of both operands": (
        "one transpose behind instead of several before",
        [
            node("Exp", ["x"], ["e"]), node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
            node("Transpose", ["e"], ["b"], perm=[0, 2, 3, 1]), node("Concat", ["a", "b"], ["y"], axis=3),
        ], PICTURE, {}, 17, ["Exp", "Concat", "Transpose"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule(make_model, apply, outputs, name):
    rule, nodes, inputs, constants, opset, left = CASES[name]
    model = make_model(nodes, inputs, ["y"], constants=constants, opset=opset)
    log = Log()
    fused = apply(model, "clean", "fuse", context=passes.Context(log=log))
    assert sorted(n.op_type for n in fused.proto.graph.node) == sorted(left)
    done = [application for application in log.applications if application.rule == rule]
    assert done
    assert all(application.proof.values > 0 and application.nodes for application in done)
    for rows in (1, 3):
        feeds = {"x": 2 * _noise(rows, *inputs["x"][1:], seed=rows)}
        assert run.same(outputs(fused, feeds), outputs(model, feeds), tolerance=1e-5)


def _without(nodes, **changed):
    """Return the nodes with constants renamed."""
    copies = []
    for original in nodes:
        made = helper.make_node(
            original.op_type, [changed.get(n, n) for n in original.input], list(original.output)
        )
        made.attribute.extend(original.attribute)
        copies.append(made)
    return copies


# What looks like the pattern of a rule, and is something else: nothing may change but what tidying does.
OTHERS = {
    "gelu with another factor": (
        _without(CASES["gelu with erf"][1], r="2"), ROWS, {"2": _f(2), "1": _f(1), "h": _f(0.5)}, 20, "Gelu",
    ),
    "gelu whose inside is read": (
        [*CASES["gelu with erf"][1][:-1], node("Mul", ["q", "h"], ["z"]), node("Add", ["z", "e"], ["y"])], ROWS,
        {"r": _f(math.sqrt(2)), "1": _f(1), "h": _f(0.5)}, 20, "Gelu",
    ),
    "gelu in an old operator set": (
        CASES["gelu with erf"][1], ROWS, {"r": _f(math.sqrt(2)), "1": _f(1), "h": _f(0.5)}, 19, "Gelu",
    ),
    "layer norm over two different axes": (
        [*LAYER_NORM[:3], node("ReduceMean", ["d2"], ["var"], axes=[1]), *LAYER_NORM[4:]], SEQUENCE,
        LAYER_NORM_CONSTANTS, 17, "LayerNormalization",
    ),
    "a mean that is not of what is squared": (
        [
            LAYER_NORM[0], node("Exp", ["x"], ["o"]), node("Sub", ["o", "mean"], ["d"]), *LAYER_NORM[2:],
        ], SEQUENCE, LAYER_NORM_CONSTANTS, 17, "LayerNormalization",
    ),
    "softmax over two axes": (
        [
            node("Exp", ["x"], ["e"]), node("ReduceSum", ["e", "axes"], ["s"]), node("Div", ["e", "s"], ["y"]),
        ], SEQUENCE, {"axes": _ints(1, 2)}, 17, "Softmax",
    ),
    "hard swish of another tensor": (
        [node("Exp", ["x"], ["o"]), *_without(CASES["hard swish"][1][:2]), node("Mul", ["o", "c"], ["y"])], ROWS,
        {"3": _f(3), "0": _f(0), "6": _f(6)}, 17, "HardSigmoid",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_it(make_model, apply, outputs, name):
    nodes, inputs, constants, opset, absent = OTHERS[name]
    model = make_model(nodes, inputs, ["y"], constants=constants, opset=opset)
    fused = apply(model, "clean", "fuse")
    assert absent not in {n.op_type for n in fused.proto.graph.node}
    feeds = {"x": _noise(2, *inputs["x"][1:])}
    assert run.same(outputs(fused, feeds), outputs(model, feeds), tolerance=1e-5)


def test_operators_that_are_too_new_for_what_runs_them_are_not_made(make_model, apply, outputs):
    model = make_model(LAYER_NORM, SEQUENCE, ["y"], constants=LAYER_NORM_CONSTANTS, opset=17)
    fused = apply(model, "clean", ("fuse", {"newest": 13}))
    assert "LayerNormalization" not in {n.op_type for n in fused.proto.graph.node}
    assert fused.proto.opset_import[0].version == 17
    steps = {step.name: step.options for step in plan(targets.get("jetson-orin"), ["fp16"])[0].steps}
    assert steps["fuse"] == {"newest": 13}


@pytest.mark.parametrize("opset", [11, 13, 16])
def test_a_graph_is_raised_for_a_rule_where_that_is_allowed(make_model, apply, outputs, opset):
    gelu = [n for n in _without(CASES["gelu with erf"][1], x="y0")]
    nodes = [*LAYER_NORM[:-1], node("Add", ["ng", "b"], ["y0"]), *gelu]
    constants = {**LAYER_NORM_CONSTANTS, "r": _f(math.sqrt(2)), "1": _f(1), "h": _f(0.5)}
    model = make_model(nodes, SEQUENCE, ["y"], constants=constants, opset=opset)
    assert len(apply(model, "clean", "fuse").proto.graph.node) == 14
    raised = apply(model, "clean", ("fuse", {"newest": 20}))
    assert [n.op_type for n in raised.proto.graph.node] == ["LayerNormalization", "Gelu"]
    assert raised.proto.opset_import[0].version == 20
    only = apply(model, "clean", ("fuse", {"newest": 17}))
    assert only.proto.opset_import[0].version == 17
    feeds = {"x": _noise(2, 5, 8)}
    assert run.same(outputs(raised, feeds), outputs(model, feeds), tolerance=1e-5)


def test_a_graph_is_not_raised_for_what_its_own_operators_can_do(make_model, apply):
    _, nodes, inputs, constants, _, left = CASES["instance norm"]
    model = make_model(nodes, inputs, ["y"], constants=constants, opset=13)
    fused = apply(model, "clean", ("fuse", {"newest": 20}))
    assert [n.op_type for n in fused.proto.graph.node] == left
    assert fused.proto.opset_import[0].version == 13
