"""Activations centred around zero: the same function, and all integers of a symmetric scale in use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.targets import ARITHMETICS
from farrier_converters import passes
from farrier_converters.emulate import Emulator
from farrier_converters.graph.edit import Graph
from farrier_converters.graph.upgrade import upgrade
from farrier_converters.quantize.repair import centring

NPU = ARITHMETICS["npu-per-tensor"]
CHANNELS = 8


def _network(
    make_model, seed=0, *, bias=True, clip=False, pads=True, depthwise=True, opset=17, **second: Any
):
    """Two convolutions, a pool, and two dense layers, each behind an activation from zero."""
    rng = np.random.default_rng(seed)
    grouped = CHANNELS if depthwise else 1
    constants = {
        "w0": _noise(rng, CHANNELS, 3, 3, 3),
        "w1": _noise(rng, CHANNELS, CHANNELS // grouped, 3, 3),
        "w2": _noise(rng, CHANNELS, CHANNELS, 1, 1),
        "w3": _noise(rng, CHANNELS, 6),
        "w4": _noise(rng, 4, 6),
        "b": rng.standard_normal(CHANNELS).astype(np.float32),
        "b3": np.full(6, 0.5, np.float32),
        "b4": np.zeros(4, np.float32),
        "shape": np.array([0, -1]),
    }
    if opset >= 11:
        constants |= {"zero": np.array(0, np.float32), "most": np.array(1.5, np.float32)}
        bounded = helper.make_node("Clip", ["c1", "zero", "most"], ["r1"])
    else:
        bounded = helper.make_node("Clip", ["c1"], ["r1"], min=0.0, max=1.5)
    biased = ["b"] if bias else []
    padded = {"pads": [1, 0, 2, 1]} if pads else {}
    nodes = [
        helper.make_node("Conv", ["x", "w0", *biased], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", *biased], ["c1"], group=grouped, **(padded | second)),
        bounded if clip else helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", *biased], ["c2"]),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["g"]),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "w4", "b4"], ["y"], transB=1),
    ]
    return make_model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], constants=constants, opset=opset)


def _noise(rng, *shape):
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def _rows(count=16, seed=1):
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def _context(*batches, **fields):
    return passes.Context(NPU, lambda: iter({"x": rows} for rows in batches), **fields)


def _ops(model):
    return [node.op_type for node in model.proto.graph.node]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    bias=st.booleans(),
    clip=st.booleans(),
    pads=st.booleans(),
    depthwise=st.booleans(),
    opset=st.sampled_from((9, 13, 17)),
)
def test_centred_networks_compute_the_same(
    make_model, apply, outputs, seed, bias, clip, pads, depthwise, opset
):
    model = _network(make_model, seed, bias=bias, clip=clip, pads=pads, depthwise=depthwise, opset=opset)
    rows = _rows(seed=seed)
    centred = apply(model, ("centre", {"method": "minmax"}), context=_context(rows))
    assert "Relu" not in _ops(centred)
    assert _ops(centred).count("Pad") == pads
    wanted = outputs(model, {"x": rows})[0]
    assert np.abs(outputs(centred, {"x": rows})[0] - wanted).max() <= 1e-5 * max(np.abs(wanted).max(), 1)


@pytest.mark.parametrize("depthwise", [True, False])
def test_one_symmetric_scale_per_tensor_loses_less(make_model, apply, outputs, depthwise):
    """Twice the levels are a quarter of the noise, of which weights make a part that stays: the mean over networks."""
    rows, context = _rows(32, seed=2), _context(_rows(32, seed=3))
    ratios = []
    for seed in range(12):
        model = _network(make_model, seed, depthwise=depthwise)
        wanted = outputs(model, {"x": rows})[0]
        errors = []
        for steps in ((), ("centre",)):
            quantized = apply(model, *steps, ("int8", {"method": "mse"}), context=context)
            found = Emulator(quantized, NPU).run({"x": rows})["y"]
            errors.append(float(np.square(found - wanted).mean()))
        ratios.append(errors[1] / errors[0])
    assert np.exp(np.log(ratios).mean()) < 0.8


def test_padding_stays_an_integer_operator_and_fills_with_what_stands_for_zero(make_model, apply):
    quantized = apply(_network(make_model), "centre", "int8", context=_context(_rows()))
    constants = {t.name: t for t in quantized.proto.graph.initializer}
    (pad,) = [n for n in quantized.proto.graph.node if n.op_type == "Pad"]
    fill = np.frombuffer(constants[pad.input[2]].raw_data, np.int8)
    assert fill.tolist() == [-127]
    makers = {name: n for n in quantized.proto.graph.node for name in n.output}
    assert makers[pad.input[0]].op_type == "QuantizeLinear"


def test_only_what_was_centred_has_another_zero(make_model, apply):
    """A Clip of the network's own around zero is none of these; and a newer operator set forgets nothing."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c"]),
        helper.make_node("Clip", ["c", "low", "high"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["y"]),
    ]
    ends = {"low": np.array(-1, np.float32), "high": np.array(1, np.float32)}
    constants = {"w0": _noise(rng, CHANNELS, 3, 3, 3), "w1": _noise(rng, 4, CHANNELS, 1, 1), **ends}
    own = make_model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], constants=constants)
    assert centring.zeros(Graph(apply(own, "centre", context=_context(_rows())))) == {}
    centred = apply(_network(make_model), "centre", context=_context(_rows()))
    assert len(centring.zeros(Graph(centred))) == 3
    raised = upgrade(centred, 21, feeds={"x": _rows()})
    assert centring.zeros(Graph(raised)).keys() == centring.zeros(Graph(centred)).keys()


@pytest.mark.parametrize(
    "other",
    [
        helper.make_node("Add", ["r0", "r0"], ["z"]),
        helper.make_node("Identity", ["r0"], ["z"]),
        helper.make_node("Conv", ["r0", "w2"], ["z"], auto_pad="SAME_UPPER"),
    ],
)
def test_what_others_read_as_it_is_stays(make_model, apply, outputs, other):
    """The second layer's result is read by a convolution alone, and centred; the first one's is not."""
    model = _network(make_model, pads=False)
    graph = model.proto.graph
    graph.node.append(other)
    graph.output.append(helper.make_tensor_value_info("z", 1, None))
    rows = _rows()
    centred = apply(model, ("centre", {"method": "minmax"}), context=_context(rows))
    assert _ops(centred).count("Relu") == 1
    for found, wanted in zip(outputs(centred, {"x": rows}), outputs(model, {"x": rows}), strict=True):
        assert np.allclose(found, wanted, atol=1e-5)


def test_a_layer_that_pads_by_itself_is_left(make_model, apply):
    model = _network(make_model, pads=False, auto_pad="SAME_LOWER")
    assert _ops(apply(model, "centre", context=_context(_rows()))).count("Relu") == 1


def test_without_data_of_its_own_a_model_comes_back_itself(make_model, apply):
    model = _network(make_model)
    assert apply(model, "centre") is model
    assert apply(model, "centre", context=_context(_rows(), twin=model)) is model


def test_bad_options_and_data_are_refused(make_model, apply):
    with pytest.raises(UsageError, match="range method"):
        apply(_network(make_model), ("centre", {"method": "guess"}))
    with pytest.raises(InputError, match="not finite"):
        apply(_network(make_model), "centre", context=_context(np.full((1, 3, 8, 8), np.inf, np.float32)))
