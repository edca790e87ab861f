"""What is added up over placements: partitions, bytes across their borders, memory, multiply-adds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from farrier_converters.check.network import Network, Step, of_onnx, of_tflite
from farrier_converters.check.partitions import crossing_bytes, partition, peak_activation_bytes
from farrier_converters.check.placement import OnnxGraph
from farrier_converters.graph.types import infer


@st.composite
def placed(draw: st.DrawFn) -> tuple[Network, list[str]]:
    """A network of steps that each read some earlier tensors, and a unit for each."""
    count = draw(st.integers(1, 14))
    steps = tuple(
        Step(
            f"s{i}",
            "ADD",
            tuple(f"t{k}" for k in sorted(draw(st.sets(st.integers(0, i), min_size=1, max_size=3)))),
            (f"t{i + 1}",),
            draw(st.integers(0, 9)),
        )
        for i in range(count)
    )
    sizes = {f"t{i}": draw(st.integers(1, 100)) for i in range(count + 1)}
    units = draw(st.lists(st.sampled_from("ab"), min_size=count, max_size=count))
    return Network(steps, sizes, ("t0",), (f"t{count}",), 0), units


@settings(max_examples=150, deadline=None)
@given(placed())
def test_partitions_hold_each_step_once_and_can_run_one_after_another(
    drawn: tuple[Network, list[str]],
) -> None:
    network, units = drawn
    found = partition(network, units)
    assert sorted(step for part in found for step in part.steps) == list(range(len(units)))
    assert all({units[step] for step in part.steps} == {part.unit} for part in found)
    assert all(first.unit != second.unit for first, second in pairwise(found))
    made = set(network.inputs)
    for part in found:
        for step in part.steps:
            assert set(network.steps[step].reads) <= made
            made.update(network.steps[step].writes)
    assert sum(part.multiply_adds for part in found) == sum(step.multiply_adds for step in network.steps)


@settings(max_examples=150, deadline=None)
@given(placed())
def test_on_one_unit_nothing_crosses_a_border(drawn: tuple[Network, list[str]]) -> None:
    network, units = drawn
    alone = ["a"] * len(units)
    (whole,) = partition(network, alone)
    assert (whole.bytes_in, crossing_bytes(network, alone)) == (
        network.sizes["t0"] if _reads_input(network) else 0,
        0,
    )
    assert max(
        network.sizes[name] for step in network.steps for name in step.writes
    ) <= peak_activation_bytes(network)


def _reads_input(network: Network) -> bool:
    return any("t0" in step.reads for step in network.steps)


def test_bytes_of_a_chain_are_counted_at_its_borders() -> None:
    names = ("x", "a", "b", "y")
    steps = tuple(Step(made, "OP", (read,), (made,), 0) for read, made in pairwise(names))
    network = Network(steps, dict(zip(names, (10, 20, 40, 80), strict=True)), ("x",), ("y",), 0)
    units = ["cpu", "tpu", "cpu"]
    assert [(part.bytes_in, part.bytes_out) for part in partition(network, units)] == [
        (10, 20),
        (20, 40),
        (40, 80),
    ]
    assert crossing_bytes(network, units) == 60
    assert peak_activation_bytes(network) == 120


def test_multiply_adds_of_tflite_operators(net: Callable[..., Any]) -> None:
    g = net()
    x = g.input((1, 8, 8, 4))
    x = g.add("CONV_2D", [x, g.weights(6, 3, 3, 4), g.bias(6)], (1, 8, 8, 6))
    x = g.add("DEPTHWISE_CONV_2D", [x, g.weights(1, 3, 3, 6), g.bias(6)], (1, 4, 4, 6))
    x = g.add("TRANSPOSE_CONV", [g.constant([1, 8, 8, 2]), g.weights(2, 2, 2, 6), x], (1, 8, 8, 2))
    x = g.add("RESHAPE", [x, g.constant([1, 128])], (1, 128))
    g.add("FULLY_CONNECTED", [x, g.weights(10, 128), g.bias(10)], (1, 10))
    steps = of_tflite(g.file()).steps
    assert [s.multiply_adds for s in steps] == [8 * 8 * 6 * 36, 4 * 4 * 6 * 9, 4 * 4 * 6 * 2 * 2 * 2, 0, 1280]


def test_multiply_adds_of_onnx_nodes(make_model: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "v"], ["d"], transB=1),
        helper.make_node("MatMul", ["d", "u"], ["y"]),
    ]
    shapes = {"w": (6, 4, 3, 3), "v": (5, 6), "u": (5, 7)}
    constants = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    proto = make_model(nodes, {"x": ["N", 4, 8, 8]}, ["y"], constants=constants).proto
    network = of_onnx(OnnxGraph(proto, infer(proto)))
    assert [step.multiply_adds for step in network.steps] == [8 * 8 * 6 * 36, 0, 0, 30, 35]
    assert network.parameter_bytes == 4 * (6 * 36 + 30 + 35)
    assert network.sizes["a"] == 4 * 6 * 8 * 8


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_multiply_adds_of_recurrent_nodes(make_model: Callable[..., Any], op: str, gates: int) -> None:
    constants = {
        "w": np.ones((1, gates * 3, 5), np.float32),
        "r": np.ones((1, gates * 3, 3), np.float32),
    }
    node = helper.make_node(op, ["x", "w", "r"], ["y"], hidden_size=3)
    proto = make_model([node], {"x": [7, 2, 5]}, ["y"], constants=constants).proto
    (step,) = of_onnx(OnnxGraph(proto, infer(proto))).steps
    assert step.multiply_adds == 7 * 2 * gates * 3 * (5 + 3)
