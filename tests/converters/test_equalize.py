"""Cross-layer equalisation: the same function, and fewer losses where a weight tensor has one scale."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from farrier_contracts.targets import Arithmetic
from farrier_converters import passes


def _net(make_model, *, activation="Relu", spread=30.0):
    """A convolution, a depthwise and a pointwise one, whose channels differ by up to `spread`."""
    rng = np.random.default_rng(0)
    factor = np.geomspace(1, spread, 16).astype(np.float32)
    constants = {
        "w0": rng.standard_normal((16, 3, 3, 3)).astype(np.float32) * factor[:, None, None, None] / 5,
        "b0": rng.standard_normal(16).astype(np.float32) * factor,
        "w1": rng.standard_normal((16, 1, 3, 3)).astype(np.float32) / 3,
        "b1": rng.standard_normal(16).astype(np.float32),
        "w2": rng.standard_normal((8, 16, 1, 1)).astype(np.float32) / factor[None, :, None, None] / 4,
        "b2": rng.standard_normal(8).astype(np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    }
    bounds = ["zero", "six"] if activation == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"]),
        helper.make_node(activation, ["c0", *bounds], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], group=16),
        helper.make_node(activation, ["c1", *bounds], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["y"]),
    ]
    return make_model(nodes, {"x": ["N", 3, 12, 12]}, ["y"], constants=constants)


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(1).standard_normal((32, 3, 12, 12)).astype(np.float32)


def test_equalized_networks_compute_the_same(make_model, apply, outputs, rows):
    model = _net(make_model)
    wanted = outputs(model, {"x": rows})[0]
    found = outputs(apply(model, "equalize"), {"x": rows})[0]
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_one_scale_per_tensor_loses_less_after_equalisation(make_model, apply, outputs, rows):
    model = _net(make_model)
    context = passes.Context(Arithmetic("u8", per_channel=False), lambda: iter([{"x": rows}]))
    wanted = outputs(model, {"x": rows})[0]

    def error(*steps):
        found = outputs(apply(model, *steps, "int8", context=context), {"x": rows})[0]
        return float(np.sqrt(np.mean(np.square(found - wanted))))

    assert error("equalize") < 0.6 * error()


def test_a_clip_ends_a_pair(make_model, apply):
    model = _net(make_model, activation="Clip")
    assert apply(model, "equalize").proto == apply(model, ("equalize", {"rounds": 0})).proto
    names = {name for node in apply(model, "equalize").proto.graph.node for name in node.input}
    assert {"w0", "w1", "w2"} <= names


def test_resnet20_is_kept(resnet20, cifar10, apply, outputs):
    feeds = {"images": cifar10[0][:32]}
    found = outputs(apply(resnet20, "clean", "fuse", "equalize"), feeds)[0]
    wanted = outputs(resnet20, feeds)[0]
    assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max()
