"""Which weights may become sparse, and which of their axes is which."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sparse_models import KINDS, channels_last, classifier, layer, make

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.graph import run
from farrier_converters.graph.write_back import write_back
from farrier_converters.model import from_proto
from farrier_converters.sparsity import inputs, layers


@pytest.mark.parametrize("kind", KINDS)
def test_a_cube_without_an_output_silences_that_output(kind):
    model = layer(kind)
    found = layers.find(model).layers["w"]
    cube = found.view.cube(found.value).copy()
    assert np.array_equal(found.view.stored(cube), found.value)
    cube[2] = 0
    feeds = run.sample(model)
    dense, silent = (
        channels_last(kind, run.once(m.proto, feeds)[0])
        for m in (model, write_back(model, {"w": found.view.stored(cube)}))
    )
    others = np.delete(np.arange(dense.shape[1]), 2)
    assert not silent[:, 2].any()
    assert dense[:, 2].any()
    assert np.array_equal(silent[:, others], dense[:, others])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_observed_times_the_matrix_is_what_the_layer_makes(kind):
    model = layer(kind)
    found = layers.find(model).layers["w"]
    feeds = run.sample(model, seed=3)
    rows = inputs.rows_of(found, feeds["x"])
    matrix = found.cube().reshape(found.view.groups, -1, rows.shape[2])
    made = np.concatenate(list(rows @ matrix.transpose(0, 2, 1)), axis=1)
    assert inputs.observable(found)
    result = channels_last(kind, run.once(model.proto, feeds)[0])
    assert np.allclose(made, result, atol=1e-4)


def test_recurrent_layers_have_a_row_for_each_gate_of_each_unit():
    rng = np.random.default_rng(0)
    w, r = rng.standard_normal((2, 12, 5)), rng.standard_normal((2, 12, 3))
    constants = {"w": w.astype(np.float32), "r": r.astype(np.float32), "b": np.ones((2, 24), np.float32)}
    nodes = [helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=3, direction="bidirectional")]
    found = layers.find(make(nodes, {"x": [4, 1, 5]}, ["y"], constants)).layers
    assert set(found) == {"w", "r"}
    assert found["w"].cube().shape == (24, 5, 1)
    assert inputs.observable(found["w"])
    assert not inputs.observable(found["r"])


def test_biases_norms_and_tables_stay_and_tables_can_be_asked_for():
    assert set(layers.find(classifier()).layers) == {"w1", "w2", "w3"}
    table = np.ones((7, 4), np.float32)
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"], name="embedding")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT64, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(table, "table")],
    )
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "g")
    found = layers.find(model)
    assert not found.layers
    assert [(one.label, one.reason) for one in found.left] == [("embedding", layers.TABLE)]
    assert set(layers.find(model, tables=True).layers) == {"table"}


def test_weights_that_something_else_reads_in_another_way_stay_dense():
    w = np.eye(4, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="one"),
        helper.make_node("Add", ["a", "w"], ["y"], name="other"),
    ]
    found = layers.find(make(nodes, {"x": [4, 4]}, ["y"], {"w": w}))
    assert not found.layers
    assert "'other'" not in found.left[0].reason
    assert "other" in found.left[0].reason
    twice = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="one"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="two"),
    ]
    assert set(layers.find(make(twice, {"x": [4, 4]}, ["y"], {"w": w})).layers) == {"w"}
    turned = [*twice[:1], helper.make_node("Gemm", ["a", "w"], ["y"], name="two", transB=1)]
    assert not layers.find(make(turned, {"x": [4, 4]}, ["y"], {"w": w})).layers


def test_layers_are_excluded_by_name_and_unknown_names_are_refused():
    found = layers.find(classifier(), exclude=("second", "w3"))
    assert set(found.layers) == {"w1"}
    assert {one.label for one in found.left} == {"second", "last"}
    with pytest.raises(UsageError, match="no layer called 'third'"):
        layers.find(classifier(), exclude=("third",))


def test_integer_weights_say_why_they_stay(apply):
    model = apply(classifier(), "int8", context=_calibrated())
    found = layers.find(model)
    assert not found.layers
    assert {one.reason for one in found.left} == {layers.QUANTIZED}


def test_weights_inside_of_control_flow_count_but_cannot_be_observed():
    w = np.arange(16, dtype=np.float32).reshape(4, 4)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="inner")],
        "b",
        [],
        [out],
        [numpy_helper.from_array(w, "w")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y2"])],
        "c",
        [],
        [helper.make_tensor_value_info("y2", TensorProto.FLOAT, [2, 4])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=other)],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    found = layers.find(from_proto(proto, "g")).layers
    assert set(found) == {"w"}
    assert not inputs.observable(found["w"])


def test_weights_that_the_graph_computes_say_what_to_do(apply):
    w = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["w", "two"], ["doubled"]),
        helper.make_node("MatMul", ["x", "doubled"], ["y"], name="layer"),
        helper.make_node("MatMul", ["y", "x"], ["z"], name="attention"),
    ]
    constants = {"w": w, "two": np.array(2, np.float32)}
    model = make(nodes, {"x": [6, 4]}, ["z"], constants)
    found = layers.find(model)
    assert not found.layers
    assert [(one.label, one.reason) for one in found.left] == [("layer", layers.COMPUTED)]
    assert len(layers.find(apply(model, "clean")).layers) == 1


def test_damaged_weights_are_refused():
    with pytest.raises(InputError, match="not finite"):
        layers.find(write_back(classifier(), {"w3": np.full((5, 16), np.nan, np.float32)}))


def _calibrated():
    from farrier_converters import passes

    feeds = [
        {"images": np.random.default_rng(i).standard_normal((8, 4, 8, 8)).astype(np.float32)}
        for i in range(4)
    ]
    return passes.Context(calibration=lambda: iter(feeds))
