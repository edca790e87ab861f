"""What a node is to a staircase, and the time of a whole model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from farrier_converters.graph.edit import Graph
from farrier_converters.graph.types import infer
from farrier_converters.model import Model, from_proto
from farrier_converters.pruning.staircase import (
    Layer,
    default,
    kind_of,
    layer_of,
    networks,
    node_costs,
    predict,
)

FLOAT = onnx.TensorProto.FLOAT


def one(op: str, shape: list[int | str], weights: list[tuple[int, ...]], **attributes: Any) -> Model:
    """Return a model of one node that reads `x` and weights."""
    names = [f"w{i}" for i in range(len(weights))]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.ones(w, np.float32), n) for n, w in zip(names, weights, strict=True)],
    )
    return from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "m")


def layer(model: Model) -> Layer | None:
    graph = Graph(model)
    return layer_of(graph.nodes[0], graph, infer(graph.without_weights()))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (one("Conv", ["n", 8, 10, 10], [(6, 8, 3, 3)], pads=[1] * 4), Layer("conv", 6, 8, 100, 9)),
        (
            one("Conv", [1, 8, 10, 10], [(6, 8, 3, 3)], pads=[1] * 4, strides=[2, 2]),
            Layer("strided", 6, 8, 25, 9),
        ),
        (one("Conv", [1, 8, 10, 10], [(6, 8, 1, 1)]), Layer("pointwise", 6, 8, 100, 1)),
        (one("Conv", [1, 8, 10, 10], [(8, 1, 3, 3)], group=8), Layer("depthwise", 8, 8, 64, 9, 8)),
        (one("Conv", [1, 8, 10, 10], [(16, 1, 3, 3)], group=8), Layer("depthwise", 16, 8, 64, 9, 8)),
        (one("Conv", [1, 8, 10, 10], [(4, 4, 3, 3)], group=2), Layer("conv", 4, 8, 64, 9, 2)),
        (one("Conv", [1, 8, 10], [(4, 8, 3)]), Layer("conv", 4, 8, 8, 3)),
        (
            one("ConvTranspose", [1, 8, 5, 5], [(8, 4, 2, 2)], strides=[2, 2]),
            Layer("transposed", 4, 8, 25, 4),
        ),
        (one("Gemm", [1, 12], [(5, 12)], transB=1), Layer("dense", 5, 12)),
        (one("Gemm", ["n", 12], [(12, 5)]), Layer("dense", 5, 12)),
        (one("MatMul", [1, 7, 12], [(12, 5)]), Layer("product", 5, 12, 7)),
        (
            one("LSTM", [9, 1, 6], [(1, 16, 6), (1, 16, 4)], hidden_size=4),
            Layer("recurrent", 4, 10, 9, 4),
        ),
        (
            one("GRU", [9, 1, 6], [(2, 12, 6), (2, 12, 4)], hidden_size=4, direction="bidirectional"),
            Layer("recurrent", 4, 10, 9, 6),
        ),
        (one("Relu", [1, 8, 4, 4], []), None),
    ],
)
def test_a_node_is_a_layer_of_a_kind(model: Model, expected: Layer | None) -> None:
    assert layer(model) == expected
    graph = Graph(model)
    kind = kind_of(graph.nodes[0], graph, infer(graph.without_weights()))
    assert kind == (None if expected is None else expected.kind)


def test_a_product_of_two_activations_has_no_weights() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("MatMul", ["a", "a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", FLOAT, [4, 4])],
    )
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "m")
    edited = Graph(model)
    assert layer_of(edited.nodes[1], edited, infer(edited.without_weights())) is None
    assert [cost.layer.kind for cost in node_costs(model, default("e", "fp32", "x86_64"))] == ["other"]


def test_a_models_time_is_that_of_its_nodes() -> None:
    table = default("onnxruntime", "fp32", "x86_64")
    model = networks.there_and_back(48, 3)
    costs = node_costs(model, table)
    assert [cost.layer.kind for cost in costs] == ["conv"] * 4 + ["other"]
    assert predict(model, table) == pytest.approx(sum(cost.ms for cost in costs))


def test_time_falls_only_at_the_steps() -> None:
    table = default("onnxruntime", "fp32", "x86_64")
    times = {width: predict(networks.there_and_back(width, 3), table) for width in (31, 32, 33, 48)}
    assert times[31] == times[32] < times[33] == times[48]
