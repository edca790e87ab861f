"""The part of a graph that some tensors need."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier_converters.graph import run

X = np.array([[1, -2, 3]], np.float32)


@pytest.fixture(params=[False, True], ids=["constants", "constants listed as inputs"])
def proto(request) -> onnx.ModelProto:
    """x + a = s, relu(s) = r, r * b = y, and an If that reads s from outside of its branches."""
    branch = helper.make_graph(
        [helper.make_node("Neg", ["s"], ["n"])], "b", [], [helper.make_tensor_value_info("n", 1, None)]
    )
    nodes = [
        helper.make_node("Add", ["x", "a"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Mul", ["r", "b"], ["y"]),
        helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch),
    ]
    constants = [
        numpy_helper.from_array(np.full((1, 3), 1, np.float32), "a"),
        numpy_helper.from_array(np.full((1, 3), 2, np.float32), "b"),
        numpy_helper.from_array(np.array(True), "c"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])]
    if request.param:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in constants]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("names", "operators"),
    [
        (["s"], {"Add"}),
        (["r"], {"Add", "Relu"}),
        (["z"], {"Add", "If"}),
        (["y", "s"], {"Add", "Relu", "Mul"}),
    ],
)
def test_only_what_is_asked_for_is_computed(proto, names, operators):
    part = run.up_to(proto, names)
    assert {node.op_type for node in part.graph.node} == operators
    session = run.session(part)
    assert [output.name for output in session.get_outputs()] == names
    values = dict(zip(names, session.run(None, {"x": X}), strict=True))
    known = {"s": X + 1, "r": np.maximum(X + 1, 0), "y": np.maximum(X + 1, 0) * 2, "z": -(X + 1)}
    for name, value in values.items():
        assert (value == known[name]).all()
