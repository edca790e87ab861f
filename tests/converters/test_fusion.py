"""Fusion as a whole: proofs that fail, shapes of any size, graphs made up at random, and what exporters write."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from farrier_converters import passes
from farrier_converters.fusion import Log, Rewrite, Rule, rewrite
from farrier_converters.graph import run
from farrier_converters.graph.edit import Graph

node = helper.make_node


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _ops(model):
    return [n.op_type for n in model.proto.graph.node]


def _as(op, **attributes):
    """Return a rule that puts another operator in the place of a Relu, which is wrong for most of them."""

    def find(site, relu):
        return Rewrite((relu,), (site.node(op, relu.input, relu.output, **attributes),))

    return Rule("wrong", ("Relu",), find)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (_as("Elu"), "values that differ by"),
        (_as("Cast", to=TensorProto.INT64), "makes int64"),
        (_as("ReduceMax"), r"makes float32\[1, 1\]"),
        (_as("Expand"), "too large to try"),
        (_as("Reshape"), "the engine does not run it"),
        (_as("LeakyRelu", alpha=1e-3), "values that differ by"),
        (Rule("inexact", ("Relu",), _as("LeakyRelu", alpha=1e-7).find, exact=True), "other values"),
    ],
)
def test_a_rule_that_is_wrong_is_refused_and_reported(make_model, outputs, rule, reason):
    model = make_model([node("Relu", ["x"], ["y"], name="it")], {"x": ["N", 8]}, ["y"])
    graph = Graph(model)
    log = rewrite(graph, [rule])
    assert not log.applications
    (refusal,) = log.refusals
    assert refusal.nodes == ("it",)
    assert re.search(reason, refusal.reason), refusal.reason
    assert graph.build().proto.graph.node == model.proto.graph.node


def test_what_a_rule_gained_is_counted(make_model, apply):
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], name="conv"),
        node("BatchNormalization", ["a", "g", "g", "g", "g"], ["y"], name="norm"),
    ]
    constants = {"w": _noise(5, 3, 3, 3), "g": np.ones(5, np.float32)}
    model = make_model(nodes, {"x": [2, 3, 8, 8]}, ["y"], constants=constants)
    log = Log()
    apply(model, "clean", "fuse", context=passes.Context(log=log))
    (done,) = log.applications
    assert done.nodes == ("conv", "norm")
    assert (done.gain.nodes, done.gain.operations, done.gain.bytes) == (1, 2 * 5 * 64, 4 * 2 * 5 * 64)
    assert 0 < done.proof.max_rel < 1e-5


@pytest.mark.parametrize("rows", [1_000_003, 1])
def test_any_number_of_rows_can_be_proved(make_model, apply, rows):
    """Some compilers put a large prime in the place of a free batch, and shapes hold its multiples."""
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("BatchNormalization", ["a", "g", "g", "g", "g"], ["b"]),
        node("Reshape", ["b", "s"], ["c"]),
        node("MatMul", ["c", "v"], ["d"]),
        node("Add", ["d", "g"], ["e"]),
        node("Reshape", ["e", "t"], ["y"]),
    ]
    constants = {
        "w": _noise(5, 3, 1, 1), "g": np.ones(5, np.float32), "v": _noise(5, 5),
        "s": np.array([rows * 64, 5], np.int64), "t": np.array([rows, 64, 5], np.int64),
    }  # fmt: skip
    model = make_model(nodes, {"x": [rows, 3, 8, 8]}, ["y"], constants=constants)
    log = Log()
    fused = apply(model, "clean", "fuse", context=passes.Context(log=log))
    assert _ops(fused) == ["Conv", "Reshape", "Gemm", "Reshape"]
    assert not log.refusals


def test_a_place_too_large_to_try_is_left_alone(make_model, apply):
    nodes = [
        node("Expand", ["x", "shape"], ["a"]),
        node("Expand", ["x", "shape"], ["b"]),
        node("Add", ["a", "b"], ["y"]),
    ]
    model = make_model(nodes, {"x": [1]}, ["y"], constants={"shape": np.array([1 << 40], np.int64)})
    log = Log()
    assert _ops(apply(model, "clean", context=passes.Context(log=log))) == ["Expand", "Expand", "Add"]
    assert "too large" in log.refusals[0].reason


def test_what_a_subgraph_reads_keeps_its_name(make_model, apply, outputs):
    inner = helper.make_graph(
        [node("Add", ["kept", "kept"], ["out"])],
        "b",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0]),
        node("Transpose", ["t"], ["kept"], perm=[1, 0]),
        node("ReduceMax", ["kept"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["condition"]),
        node("If", ["condition"], ["y"], then_branch=inner, else_branch=inner),
    ]
    model = make_model(nodes, {"x": [3, 4]}, ["y"], constants={"zero": np.zeros((), np.float32)})
    feeds = {"x": _noise(3, 4)}
    assert run.same(outputs(apply(model, "clean", "fuse"), feeds), outputs(model, feeds), tolerance=0)


MOVES = [
    "Transpose",
    "Reshape",
    "Flatten",
    "Unsqueeze",
    "Squeeze",
    "Slice",
    "Cast",
    "Concat",
    "Split",
    "Identity",
]
VALUES = ["Relu", "Exp", "Mul", "Add", "Max", "Clip", "Softmax", "Twice"]


@st.composite
def _graphs(draw):
    """A chain of moves and elementwise operators; some tensors are read twice, some are results."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes, constants, results = [], {}, []
    name, shape = "x", [2, 3, 4, 5]

    def constant(value):
        key = f"c{len(constants)}"
        constants[key] = np.asarray(value)
        return key

    for index, op in enumerate(draw(st.lists(st.sampled_from(MOVES + VALUES), min_size=2, max_size=10))):
        result, rank, last = f"t{index}", len(shape), op
        attributes, inputs = {}, [name]
        if op == "Transpose":
            order = draw(st.permutations(range(rank)))
            attributes, shape = {"perm": order}, [shape[axis] for axis in order]
        elif op == "Reshape":
            at = draw(st.integers(0, rank - 1))
            shape = [*shape[:at], int(np.prod(shape[at:]))]
            inputs.append(constant(np.array([-1 if i == 0 else s for i, s in enumerate(shape)], np.int64)))
        elif op == "Flatten":
            shape = [shape[0], int(np.prod(shape[1:]))]
        elif op == "Unsqueeze":
            axis = draw(st.integers(0, rank))
            inputs.append(constant(np.array([axis], np.int64)))
            shape = [*shape[:axis], 1, *shape[axis:]]
        elif op == "Squeeze":
            axes = [axis for axis, size in enumerate(shape) if size == 1][:1]
            if not axes or rank < 3:
                continue
            inputs.append(constant(np.array(axes, np.int64)))
            shape = [size for axis, size in enumerate(shape) if axis not in axes]
        elif op == "Slice":
            axis = draw(st.integers(0, rank - 1))
            end = draw(st.sampled_from([shape[axis], 1 << 40, max(1, shape[axis] - 1)]))
            inputs += [constant(np.array([value], np.int64)) for value in (0, end, axis)]
            shape = [min(end, size) if a == axis else size for a, size in enumerate(shape)]
        elif op == "Cast":
            nodes.append(node("Cast", inputs, [f"{result}d"], to=TensorProto.DOUBLE))
            inputs, attributes = [f"{result}d"], {"to": TensorProto.FLOAT}
        elif op == "Concat":
            inputs, attributes = [name, name], {"axis": rank - 1}
            shape = [*shape[:-1], 2 * shape[-1]]
        elif op == "Split":
            if shape[-1] < 2:
                continue
            parts = constant(np.array([1, shape[-1] - 1], np.int64))
            nodes.append(node("Split", [name, parts], [f"{result}a", f"{result}b"], axis=-1))
            last, inputs, attributes = "Concat", [f"{result}a", f"{result}b"], {"axis": -1}
        elif op in ("Mul", "Add", "Max"):
            size = draw(st.sampled_from([(), (1,), (shape[-1],), tuple(shape[1:])]))
            inputs.append(constant(rng.choice([0.0, 1.0, 0.5], size).astype(np.float32)))
        elif op == "Clip":
            inputs += [constant(np.float32(-0.5)), constant(np.float32(1.5))]
        elif op == "Softmax":
            attributes = {"axis": -1}
        elif op == "Exp":
            nodes.append(node("Tanh", inputs, [f"{result}h"]))  # numbers stay small
            inputs = [f"{result}h"]
        elif op == "Twice":
            nodes.extend(node("Sigmoid", [name], [f"{result}{part}"]) for part in "ab")
            last, inputs = "Mul", [f"{result}a", f"{result}b"]
        if draw(st.integers(0, 4)) == 0 and name != "x":
            results.append(name)
        nodes.append(node(last, inputs, [result], **attributes))
        name = result
    return nodes, constants, [*results, name]


@settings(max_examples=80, deadline=None)
@given(made=_graphs())
def test_any_graph_stays_equal_and_never_grows(made, make_model, apply, outputs):
    nodes, constants, results = made
    if not nodes:
        return
    model = make_model(nodes, {"x": ["N", 3, 4, 5]}, dict.fromkeys(results), constants=constants)
    feeds = {"x": _noise(2, 3, 4, 5)}
    expected = outputs(model, feeds)
    log = Log()
    fused = apply(model, "clean", "fuse", context=passes.Context(log=log))
    assert run.same(outputs(fused, feeds), expected, tolerance=1e-5)
    assert len(fused.proto.graph.node) <= len(nodes)
    again = apply(fused, "clean", "fuse")
    assert _ops(again) == _ops(fused)


@settings(max_examples=60, deadline=None)
@given(made=_graphs(), data=st.data())
def test_an_index_that_is_kept_is_the_one_that_is_found(made, data, make_model):
    nodes, constants, results = made
    if not nodes:
        return
    graph = Graph(make_model(nodes, {"x": ["N", 3, 4, 5]}, dict.fromkeys(results), constants=constants))
    for step in range(4):
        chosen = data.draw(st.sampled_from(graph.nodes))
        result = chosen.output[0]
        kind = data.draw(st.sampled_from(["swap", "redirect", "rename"]))
        if kind == "swap":
            graph.swap([chosen], [node("Abs", chosen.input[:1], chosen.output[:1], name=f"new{step}")])
        elif kind == "redirect":
            graph.redirect(result, data.draw(st.sampled_from(["x", *graph.producer])))
        elif not graph.kept(result):
            graph.rename(result, f"{result}_{step}")
    kept = (graph.producer, {name: {id(n) for n in found} for name, found in graph.readers.items() if found})
    graph.index()
    assert kept[0] == graph.producer
    assert kept[1] == {name: {id(n) for n in found} for name, found in graph.readers.items()}


def test_a_large_constant_that_others_read_is_not_doubled(make_model, apply):
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Reshape", ["a", "s"], ["b"]),
        node("Mul", ["b", "half"], ["y"]),
        node("MatMul", ["x", "w"], ["other"]),
        node("Sigmoid", ["other"], ["z"]),
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        node("Add", ["t", "v"], ["u"]),
        node("Transpose", ["u"], ["p"], perm=[0, 2, 1]),
        node("Add", ["x3", "v"], ["q"]),
    ]
    constants = {
        "w": _noise(32, 32), "s": np.array([0, 4, 8, 32], np.int64), "half": np.float32([0.3]),
        "v": _noise(32, 32, seed=1),
    }  # fmt: skip
    model = make_model(
        nodes, {"x": [2, 32, 32], "x3": [2, 32, 32]}, ["y", "z", "p", "q"], constants=constants
    )
    fused = apply(model, "clean", "fuse")
    assert fused.proto.ByteSize() < model.proto.ByteSize() + 200
    assert sum(len(t.raw_data) > 1000 for t in fused.proto.graph.initializer) == 2
