"""Equalisation on calibration data: factors for groups of tensors, through residual connections, with least noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from farrier_contracts.errors import InputError
from farrier_contracts.targets import ARITHMETICS
from farrier_converters import passes
from farrier_converters.graph.edit import Graph
from farrier_converters.quantize.repair import balance, geometric, groups

NPU = ARITHMETICS["npu-per-tensor"]
CHANNELS = 8


def _weights(rng, *shape):
    fan = np.prod(shape[1:])
    uneven = np.exp(rng.normal(0, 1.2, (shape[0], *(1,) * (len(shape) - 1))))
    return (rng.standard_normal(shape) * uneven / np.sqrt(fan)).astype(np.float32)


def _residual(make_model, seed=0, *, ending="GlobalAveragePool", depthwise=True, clip=False):
    """A stem, a residual block around two layers of which one may be depthwise, and a classifier."""
    rng = np.random.default_rng(seed)
    groups_of = CHANNELS if depthwise else 1
    constants = {
        "w0": _weights(rng, CHANNELS, 3, 3, 3),
        "b0": rng.standard_normal(CHANNELS).astype(np.float32),
        "w1": _weights(rng, CHANNELS, CHANNELS // groups_of, 3, 3),
        "b1": rng.standard_normal(CHANNELS).astype(np.float32),
        "w2": _weights(rng, CHANNELS, CHANNELS, 1, 1),
        "w3": _weights(rng, 5, CHANNELS),
        "b3": rng.standard_normal(5).astype(np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "shape": np.array([0, -1]),
    }
    last = helper.make_node("Clip", ["s", "zero", "six"], ["r2"])
    pool: dict[str, Any] = {} if ending == "GlobalAveragePool" else {"kernel_shape": [6, 6]}
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], group=groups_of),
        helper.make_node("LeakyRelu", ["c1"], ["r1"], alpha=0.1),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node("Add", ["r0", "c2"], ["s"]),
        last if clip else helper.make_node("Relu", ["s"], ["r2"]),
        helper.make_node(ending, ["r2"], ["p"], **pool),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    return make_model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], constants=constants)


def _rows(count=16, seed=1):
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def _context(*batches, arithmetic=NPU):
    return passes.Context(arithmetic, lambda: iter({"x": rows} for rows in batches))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 999),
    ending=st.sampled_from(("GlobalAveragePool", "AveragePool", "MaxPool")),
    depthwise=st.booleans(),
    clip=st.booleans(),
)
def test_balanced_networks_compute_the_same(make_model, apply, outputs, seed, ending, depthwise, clip):
    model = _residual(make_model, seed, ending=ending, depthwise=depthwise, clip=clip)
    rows = _rows(seed=seed) / 2
    found = outputs(apply(model, "equalize", context=_context(rows)), {"x": rows})[0]
    wanted = outputs(model, {"x": rows})[0]
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_residual_connections_are_one_group(make_model):
    found = groups.find(Graph(_residual(make_model)))
    alike = {name for name, group in found.groups.items() if group == found.groups["r0"]}
    assert alike == {"c0", "r0", "c2", "s", "r2", "p", "f"}
    assert {name for name in found.groups if name not in alike} == {"c1", "r1"}
    assert found.channels == (CHANNELS, CHANNELS)


def test_channels_that_a_clip_bounds_keep_their_size(make_model, apply, outputs):
    """The others grow, and the clip still takes from them nothing that calibration shows."""
    model = _residual(make_model, clip=True)
    graph, rows = Graph(model), _rows(seed=7) / 2
    found = groups.find(graph)
    extents = balance.measure(model, balance.measured(found), lambda: iter([{"x": rows}]))
    factors = balance.balance(graph, found, extents)[found.groups["s"]]
    peak = extents["s"].peak
    assert found.clips == {"s": 6.0}
    assert 0 < (peak > 6).sum() < CHANNELS
    assert (factors[peak > 6] == 1).all()
    assert (factors[peak < 5] < 1).any()
    assert (peak / factors <= np.maximum(6, peak)).all()


@pytest.mark.parametrize("depthwise", [True, False])
def test_one_symmetric_scale_per_tensor_loses_less(make_model, apply, outputs, depthwise):
    """The mean over networks (of logarithms): what a single one loses hangs on how its few weights are rounded."""
    rows, context = _rows(32, seed=2), _context(_rows(32, seed=3), _rows(32, seed=4))
    ratios = []
    for seed in range(6):
        model = _residual(make_model, seed, depthwise=depthwise)
        wanted = outputs(model, {"x": rows})[0]
        errors = []
        for steps in ((), ("equalize",)):
            quantized = apply(model, *steps, ("int8", {"method": "mse"}), context=context)
            errors.append(float(np.square(outputs(quantized, {"x": rows})[0] - wanted).mean()))
        ratios.append(errors[1] / errors[0])
    assert np.exp(np.log(ratios).mean()) < 0.6


def test_a_channel_of_small_weights_and_large_bias_does_not_spread_the_others(make_model, apply, outputs):
    """Making weights alike, without a look at activations, blows up such a channel."""
    rng = np.random.default_rng(0)
    first, second = _weights(rng, CHANNELS, 3, 3, 3), _weights(rng, 5, CHANNELS, 1, 1)
    bias = rng.standard_normal(CHANNELS).astype(np.float32)
    first[0], bias[0] = first[0] / 1000, 3.0
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["y"]),
    ]
    constants = {"w0": first, "b0": bias, "w1": second}
    model = make_model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], constants=constants)
    rows, context = _rows(seed=5), _context(_rows(seed=6))
    wanted = outputs(model, {"x": rows})[0]

    def error(equalized):
        found = outputs(apply(equalized, "int8", context=context), {"x": rows})[0]
        return float(np.square(found - wanted).mean())

    weighed = error(apply(model, "equalize", context=context))
    assert weighed < min(error(model), 0.1 * error(apply(model, "equalize")))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), matrix=st.booleans())
def test_slopes_are_those_of_the_value(seed, matrix):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.1, 1, (3, 4))
    scale, most = geometric.largest(values, 0, 1) if matrix else geometric.peak(values[0], (0, -1.0))
    term = geometric.Term(scale, (most, geometric.Sum(rng.uniform(0.1, 1, 4), ((0, 2.0), (None, 1.0)))))
    logs = [rng.normal(0, 0.3, 4), rng.normal(0, 0.3, 3)]
    slopes = [np.zeros(4), np.zeros(3)]
    for group, slope in term.at(logs)[1]:
        slopes[group] += slope
    for group in range(2):
        for channel in range(len(logs[group])):
            moved = [log.copy() for log in logs]
            moved[group][channel] += 1e-3
            rise = (term.at(moved)[0] - term.at(logs)[0]) / 1e-3
            assert rise == pytest.approx(slopes[group][channel], abs=0.02)


def test_the_least_is_found():
    """The least of (9 / s)^2 + 9 s^2, and of its mirror image in the other channel."""
    scale, most = geometric.peak(np.array([9.0, 1.0]), (0, -1.0))
    back, again = geometric.peak(np.array([1.0, 1.0]), (0, 1.0))
    terms = [geometric.Term(scale, (most,)), geometric.Term(back * 9, (again,))]
    (logs,) = geometric.least(terms, [2])
    assert np.exp(logs) == pytest.approx([3**0.5, 3**-0.5], rel=0.02)


def test_data_that_does_not_fit_is_one_sentence(make_model, apply):
    model = _residual(make_model)
    with pytest.raises(InputError, match="holds no samples"):
        apply(model, "equalize", context=_context())
    with pytest.raises(InputError, match="does not fit the model"):
        apply(model, "equalize", context=_context(np.zeros((1, 2, 8, 8), np.float32)))
    with pytest.raises(InputError, match="not finite"):
        apply(model, "equalize", context=_context(np.full((1, 3, 8, 8), np.inf, np.float32)))
