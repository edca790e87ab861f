"""Calibration without data: made-up inputs and twins, against what real data would have said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import farrier
from farrier_contracts.targets import Arithmetic
from farrier_converters import data, passes
from farrier_converters.graph import run
from farrier_converters.model import load
from farrier_converters.quantize import datafree

ASSETS = Path(farrier.__file__).parent / "showcase" / "assets"
VNNI = Arithmetic("u8")


def _batches(made, size=32):
    return lambda: (feeds for feeds, _ in made.batches(size))


def _context(model, made):
    batches = _batches(made)
    return passes.Context(VNNI, batches, twin=datafree.twin(model, batches))


@pytest.fixture(scope="module")
def digits():
    """A network whose batch norms are folded, and whose inputs are 0 to 16."""
    with np.load(ASSETS / "digits-eval.npz") as rows:
        return load(ASSETS / "digits.onnx"), rows["image"], rows["labels"]


def _accuracy(model, outputs, feeds, labels):
    return float((outputs(model, feeds)[0].argmax(1) == labels).mean())


def test_resnet20_without_data_loses_at_most_a_point(resnet20, cifar10, apply, outputs):
    context = _context(resnet20, datafree.imagine(resnet20))
    model = apply(resnet20, "clean", "fuse", "int8", context=context)
    feeds, labels = {"images": cifar10[0][512:]}, cifar10[1][512:]
    float_score = _accuracy(resnet20, outputs, feeds, labels)
    assert float_score > 0.83
    assert float_score - _accuracy(model, outputs, feeds, labels) <= 0.01


def test_inputs_of_a_folded_network_are_found_from_its_first_layer(digits):
    model, images, _ = digits
    made = datafree.imagine(model).arrays["image"]
    assert made.dtype == np.float32
    assert abs(made.mean() - images.mean()) < 0.25 * images.std()
    assert 0.7 < made.std() / images.std() < 1.4


def test_a_folded_network_without_data_keeps_its_accuracy(digits, apply, outputs):
    model, images, labels = digits
    quantized = apply(model, "clean", "fuse", "int8", context=_context(model, datafree.imagine(model)))
    expected = _accuracy(model, outputs, {"image": images}, labels)
    assert expected > 0.95
    assert expected - _accuracy(quantized, outputs, {"image": images}, labels) <= 0.006
    noise = data.random(model.inputs)
    naive = apply(model, "clean", "fuse", "int8", context=passes.Context(VNNI, _batches(noise)))
    assert expected - _accuracy(naive, outputs, {"image": images}, labels) > 0.1


def _normed(make_model, mean, variance, *, shift=3.0, opset=17):
    rng = np.random.default_rng(1)
    constants = {
        "w": rng.standard_normal((6, 2, 3, 3)).astype(np.float32),
        "gamma": np.array([0.5, 1, 2, 0.1, 1, 1], np.float32),
        "beta": np.array([0, 1, -1, shift, 0, 0], np.float32),
        "mean": mean.astype(np.float32),
        "variance": variance.astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    return make_model(nodes, {"x": ["N", 2, 20, 20]}, ["y"], constants=constants, opset=opset), constants


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
def test_batch_norms_of_the_twin_give_beta_and_gamma(make_model, opset):
    model, constants = _normed(make_model, np.full(6, 40.0), np.full(6, 100.0), opset=opset)
    noise = data.random(model.inputs)
    twin = datafree.twin(model, _batches(noise))
    assert {t for n in twin.proto.graph.node for t in n.output} == {"c", "n", "y"}
    found = run.session(run.up_to(twin.proto, ["n"])).run(["n"], noise.feed(noise.rows))[0]
    assert found.mean(axis=(0, 2, 3)) == pytest.approx(constants["beta"], abs=0.05)
    assert found.std(axis=(0, 2, 3)) == pytest.approx(constants["gamma"], rel=0.05)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_inputs_get_the_moments_that_the_first_batch_norm_was_trained_with(make_model, offset):
    rng = np.random.default_rng(2)
    real = (rng.standard_normal((64, 2, 20, 20)) * 30 + offset).astype(np.float32)
    model, _ = _normed(make_model, np.zeros(6), np.ones(6))
    seen = run.session(run.up_to(model.proto, ["c"])).run(["c"], {"x": real})[0]
    trained, _ = _normed(make_model, seen.mean(axis=(0, 2, 3)), seen.var(axis=(0, 2, 3)))
    made = datafree.imagine(trained).arrays["x"]
    assert abs(made.mean() - offset) < 12
    assert 10 < made.std() < 60


@pytest.mark.parametrize("opset", [9, 10, 17])
def test_layers_without_batch_norm_are_brought_to_customary_moments(make_model, opset):
    rng = np.random.default_rng(3)
    shapes = [(12, 3, 3, 3), (12, 12, 3, 3), (4, 12, 3, 3)]
    constants = {f"w{i}": (rng.standard_normal(s) * 9).astype(np.float32) for i, s in enumerate(shapes)}
    constants |= {f"b{i}": np.full(s[0], 50, np.float32) for i, s in enumerate(shapes)}
    nodes, last = [], "x"
    for index in range(3):
        nodes.append(helper.make_node("Conv", [last, f"w{index}", f"b{index}"], [f"c{index}"]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
    model = make_model(nodes, {"x": ["N", 3, 24, 24]}, [last], constants=constants, opset=opset)
    made = datafree.imagine(model)
    twin = datafree.twin(model, _batches(made))
    names = ["c0", "c1", "c2"]
    first, second, last_one = run.session(run.up_to(twin.proto, names)).run(names, made.feed(made.rows))
    for values in (first, second):
        assert (np.abs(values.mean(axis=(0, 2, 3))) < 1.1).all()
        deviation = values.std(axis=(0, 2, 3))
        assert (deviation > 0.4).all()
        assert (deviation < 2.2).all()
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in twin.proto.graph.initializer}
    assert (weights["w2"] == constants["w2"]).all()  # what comes out at the end is the network's own affair
    assert last_one.std() > 2.2


def test_made_up_inputs_repeat_and_have_falling_spectra(resnet20):
    one, two = (datafree.imagine(resnet20).arrays["images"] for _ in range(2))
    assert one.tobytes() == two.tobytes()
    steps = np.abs(np.diff(one, axis=3)).mean(axis=(1, 2, 3)) / one.std(axis=(1, 2, 3))
    assert steps[3::4].max() < 0.5 * steps[0::4].min()  # smooth shapes, white noise


def test_no_twin_where_nothing_is_known(make_model):
    model = make_model([helper.make_node("Neg", ["x"], ["y"])], {"x": ["N", 4]}, ["y"])
    made = datafree.imagine(model)
    assert datafree.twin(model, _batches(made)) is None
    assert made.arrays["x"].std() == pytest.approx(1, rel=0.1)


def test_integer_and_constant_inputs_are_left_as_they_were(make_model):
    nodes = [helper.make_node("Cast", ["i"], ["f"], to=1), helper.make_node("Neg", ["f"], ["y"])]
    model = make_model(nodes, {"i": ["N", 4]}, ["y"], dtype=onnx.TensorProto.INT64)
    made, plain = datafree.imagine(model), data.random(model.inputs)
    assert (made.arrays["i"] == plain.arrays["i"]).all()
