"""Blocks that may be left out: found where layers repeat, dropped without harm to anything else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import LENGTH, dense, residual, transformer, words
from onnx import TensorProto, helper, numpy_helper

from farrier_contracts.errors import InputError
from farrier_converters.graph import run
from farrier_converters.model import from_proto
from farrier_converters.pruning.blocks import blocks, drop, importance


def answers(model, feeds):
    return run.once(model.proto, feeds)[0]


def ops(model, name):
    return sum(node.op_type == name for node in model.proto.graph.node)


@pytest.mark.parametrize("before", [True, False])
def test_the_layers_of_a_transformer_are_blocks_and_their_halves_sublayers(before):
    model = transformer(4, before=before)
    layers = blocks(model)
    assert [b.family for b in layers] == [0] * 4
    assert all(Counter(b.ops)["Softmax"] == 1 and Counter(b.ops)["LayerNormalization"] == 2 for b in layers)
    assert len({b.parameters for b in layers}) == 1
    parts = blocks(model, sublayers=True)
    assert [("Softmax" in b.ops) for b in parts] == [True, False] * 4
    assert [b.family for b in parts] == [0, 1] * 4


@pytest.mark.parametrize("before", [True, False])
@settings(max_examples=12, deadline=None)
@given(chosen=st.sets(st.integers(0, 3)), sublayers=st.booleans())
def test_what_is_left_is_the_network_with_fewer_layers(before, chosen, sublayers):
    """Dropping layers gives the same answers as a network built without them from the same weights."""
    model, short = transformer(4, before=before), transformer(4 - len(chosen), before=before)
    found = blocks(model, sublayers=sublayers)
    per_layer = 2 if sublayers else 1
    dropped = drop(model, [b for i, b in enumerate(found) if i // per_layer in chosen])
    kept = [i for i in range(4) if i not in chosen]
    stored = {t.name: t for t in model.proto.graph.initializer}
    twin = onnx.ModelProto()
    twin.CopyFrom(short.proto)
    for tensor in twin.graph.initializer:
        name, source = tensor.name, tensor.name
        if name[0] == "l" and name[1].isdigit():
            source = f"l{kept[int(name[1])]}{name[2:]}"
        tensor.CopyFrom(stored[source])
        tensor.name = name
    onnx.checker.check_model(dropped.proto, full_check=True)
    feeds = {"ids": words(5)}
    np.testing.assert_allclose(answers(dropped, feeds), answers(from_proto(twin, "twin"), feeds), atol=1e-5)


def test_residual_blocks_that_change_the_shape_stay():
    model = residual((8, 8, 8, 16, 16, 16))
    found = blocks(model)
    assert [b.output for b in found] == ["b0.r1", "b1.r1", "b2.r1", "b4.r1", "b5.r1"]
    assert [b.family for b in found] == [0, 0, 0, 1, 1]
    small = drop(model, found)
    assert ops(small, "Conv") == 1 + 3  # the stem and the block that halves
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    assert answers(small, {"x": x}).shape == (2, 4)


def test_equal_layers_of_a_chain_go_with_their_activation():
    found = blocks(dense((5, 16, 16, 16, 3)))
    assert [(b.input, b.output, b.parameters) for b in found] == [
        ("r0", "r1", 16 * 16 + 16),
        ("r1", "r2", 16 * 16 + 16),
    ]


def test_a_block_that_ends_in_an_output_keeps_the_output_s_name():
    model = dense((4, 8, 8))
    (block,) = blocks(model)
    assert block.output == "logits"
    small = drop(model, [block])
    assert [spec.name for spec in small.outputs] == ["logits"]
    assert ops(small, "Gemm") == 1


def test_free_sides_are_probed_so_that_a_halving_layer_is_no_block():
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((4, c, 3, 3)).astype(np.float32) for c in (3, 4, 4)]
    strides = (1, 2, 1)
    names = ["x", "a", "b", "y"]
    nodes = [
        helper.make_node("Conv", [i, f"w{n}"], [o], pads=[1] * 4, strides=[s, s])
        for n, (i, o, s) in enumerate(zip(names, names[1:], strides, strict=False))
    ]
    graph = helper.make_graph(
        nodes,
        "free",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, "h", "w"])],
        [numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(weights)],
    )
    model = from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "free"
    )
    assert [b.output for b in blocks(model)] == ["y"]


def test_a_tensor_that_is_read_far_away_holds_its_block():
    """A long shortcut over two blocks leaves no point of the trunk between them."""
    model = dense((5, 8, 8, 8, 3))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    last = next(node for node in proto.graph.node if node.output[0] == "logits")
    proto.graph.node.remove(last)
    proto.graph.node.append(helper.make_node("Add", ["r0", "r2"], ["joined"]))
    last.input[0] = "joined"
    proto.graph.node.append(last)
    (block,) = blocks(from_proto(proto, "long"))
    assert (block.input, block.output) == ("r0", "joined")


def test_importance_is_the_change_of_the_outputs():
    """A layer whose weights are nothing is worth nothing; one with large weights is worth more than all others."""
    model = residual((8, 8, 8, 8))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.name.startswith("b1.c1"):
            tensor.CopyFrom(numpy_helper.from_array(0 * value, tensor.name))
        if tensor.name.startswith("b2.c1"):
            tensor.CopyFrom(numpy_helper.from_array(5 * value, tensor.name))
    model = from_proto(proto, "weighed")
    x = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    found = blocks(model)
    worth = importance(model, found, [{"x": x[:8]}, {"x": x[8:]}])
    assert worth[1] == 0
    assert int(np.argmax(worth)) == 2
    with pytest.raises(InputError, match="needs rows"):
        importance(model, found, [])


def test_a_block_of_another_model_is_refused():
    (block, *_) = blocks(transformer(2))
    with pytest.raises(InputError, match="has no block"):
        drop(dense(), [block])


def test_a_network_without_a_trunk_has_no_blocks():
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "bare",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", LENGTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", LENGTH])],
    )
    assert blocks(from_proto(helper.make_model(graph), "bare")) == ()
