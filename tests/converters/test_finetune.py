"""The pass that trains a model on: from labels or from the original, with zeros and frozen weights left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from farrier_contracts.errors import InputError, UsageError
from farrier_converters import model, passes
from farrier_converters.graph import run
from farrier_converters.graph.write_back import write_back
from farrier_converters.passes import Context
from farrier_converters.passes.finetune import FinetuneOptions, train
from farrier_converters.training.data import Rows

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

ASSETS = Path(__file__).resolve().parents[2] / "sdk" / "farrier" / "showcase" / "assets"
node = helper.make_node


@pytest.fixture(scope="module")
def digits():
    """A digits network that noise in its weights has harmed, what it was, and rows to train and to test on."""
    source = model.load(ASSETS / "digits.onnx")
    rng = np.random.default_rng(0)
    changed = {}
    for tensor in source.proto.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim > 1:
            value = value + rng.standard_normal(value.shape).astype(np.float32) * value.std() * 0.4
            changed[tensor.name] = np.where(rng.random(value.shape) < 0.3, 0, value).astype(np.float32)
    with np.load(ASSETS / "digits-eval.npz") as file:
        images, labels = file[source.inputs[0].name].astype(np.float32), file["labels"]
    half = len(images) // 2
    return write_back(source, changed), source, (images[:half], labels[:half]), (images[half:], labels[half:])


def accuracy(found, digits):
    images, labels = digits[3]
    return float((run.once(found.proto, {found.inputs[0].name: images})[0].argmax(1) == labels).mean())


def context(digits, *, labels=True, validation=False, original=True, **more):
    harmed, source, (images, known), held = digits
    name = harmed.inputs[0].name
    return Context(
        training=Rows({name: images}, known if labels else None, batch=32),
        validation=Rows({name: held[0]}, held[1], batch=64).in_order if validation else None,
        original=source if original else None,
        **more,
    )


def weights(found):
    return {t.name: numpy_helper.to_array(t) for t in found.proto.graph.initializer}


@pytest.mark.parametrize("labels", [True, False])
def test_it_wins_back_what_was_lost_and_keeps_zeros(digits, labels):
    harmed, source = digits[:2]
    options = FinetuneOptions(fit={"epochs": 10, "learning_rate": 0.005})
    found = train(harmed, options, context(digits, labels=labels))
    before, after, whole = accuracy(harmed, digits), accuracy(found.model, digits), accuracy(source, digits)
    assert before < whole - 0.1, "too easy to show anything"
    assert after > before + 0.7 * (whole - before)
    assert found.history.losses[-1] < found.history.losses[0]
    old, new = weights(harmed), weights(found.model)
    sparse = [name for name, value in old.items() if value.ndim > 1 and (value == 0).any()]
    assert sparse
    assert all((new[name][old[name] == 0] == 0).all() for name in sparse)
    assert [n.op_type for n in found.model.proto.graph.node] == [n.op_type for n in harmed.proto.graph.node]


def test_zeros_come_back_where_they_may(digits):
    options = FinetuneOptions(fit={"epochs": 1}, keep_zeros=False)
    old, new = weights(digits[0]), weights(passes.get("finetune").run(digits[0], options, context(digits)))
    name = next(name for name, value in old.items() if value.ndim > 1 and (value == 0).any())
    assert (new[name][old[name] == 0] != 0).any()


def test_frozen_weights_stay(digits):
    old = weights(digits[0])
    kept = next(name for name, value in old.items() if value.ndim > 1)
    found = weights(
        passes.get("finetune").run(
            digits[0], FinetuneOptions(fit={"epochs": 1}, frozen=[f"{kept[:-1]}*"]), context(digits)
        )
    )
    assert np.array_equal(found[kept], old[kept])
    assert any(not np.array_equal(found[name], old[name]) for name in old)
    with pytest.raises(UsageError, match="no parameter is called 'nothing"):
        train(digits[0], FinetuneOptions(frozen=["nothing.*"]), context(digits))


def test_the_best_epoch_is_delivered_and_a_second_run_reads_it(digits, tmp_path):
    options = FinetuneOptions(fit={"epochs": 4, "learning_rate": 0.003}, smoothing=0.05)
    first = train(digits[0], options, context(digits, validation=True, work=tmp_path))
    assert first.history.scores[first.history.best] == max(first.history.scores)
    assert accuracy(first.model, digits) == pytest.approx(max(first.history.scores), abs=1e-6)
    second = train(digits[0], options, context(digits, validation=True, work=tmp_path))
    assert second.history.seconds == first.history.seconds
    assert second.model.proto.SerializeToString() == first.model.proto.SerializeToString()
    other = FinetuneOptions(fit={"epochs": 4, "learning_rate": 0.003}, smoothing=0.1)
    assert (
        train(digits[0], other, context(digits, validation=True, work=tmp_path)).history.seconds
        != first.history.seconds
    )


def test_what_is_missing_or_wrong_is_one_sentence(digits):
    with pytest.raises(UsageError, match="needs training data"):
        train(digits[0], FinetuneOptions(), Context())
    with pytest.raises(InputError, match="no labels, and there is no float model"):
        train(digits[0], FinetuneOptions(), context(digits, labels=False, original=False))
    with pytest.raises(UsageError, match=r"does not take these settings.*speed"):
        train(digits[0], FinetuneOptions(fit={"speed": 3}), context(digits))
    with pytest.raises(UsageError, match="unknown optimizer"):
        train(digits[0], FinetuneOptions(fit={"optimizer": "sdg"}), context(digits))


def test_a_network_learns_mnist1d_from_nothing(shared_data, make_model):
    rng = np.random.default_rng(0)
    width = 24

    def kernel(out, inner, size):
        return (rng.standard_normal((out, inner, size)) * np.sqrt(2 / inner / size)).astype(np.float32)

    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], strides=[2], pads=[2, 2]),
        node("Relu", ["a"], ["ra"]),
        node("Conv", ["ra", "w2", "b2"], ["b"], strides=[2], pads=[1, 1]),
        node("Relu", ["b"], ["rb"]),
        node("Flatten", ["rb"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["y"]),
    ]
    constants = {
        **{"w1": kernel(width, 1, 5), "w2": kernel(width, width, 3)},
        **{
            "b1": np.zeros(width, np.float32),
            "b2": np.zeros(width, np.float32),
            "b3": np.zeros(10, np.float32),
        },
        "w3": (rng.standard_normal((width * 10, 10)) * 0.05).astype(np.float32),
    }
    fresh = make_model(nodes, {"x": ["N", 1, 40]}, ["y"], constants=constants)
    with np.load(shared_data / "mnist1d" / "mnist1d.npz") as file:
        x, y, held, known = (file[name] for name in ("x", "y", "x_test", "y_test"))
    settings = {
        **{"epochs": 12, "learning_rate": 0.01, "optimizer": "adamw", "schedule": "one-cycle"},
        **{"clip": 1.0, "average": 0.99, "patience": 6},
    }
    data = Context(
        training=Rows({"x": x[:, None].astype(np.float32)}, y, batch=64),
        validation=Rows({"x": held[:, None].astype(np.float32)}, known).in_order,
    )
    history = train(fresh, FinetuneOptions(settings), data).history
    assert history.scores[history.best] > 0.75  # a linear model reaches 0.32, a person 0.96
