"""Integers that learn from the model as it came, not from labels alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from farrier_contracts.errors import UsageError
from farrier_contracts.targets import Arithmetic
from farrier_converters import model, passes
from farrier_converters.graph import run
from farrier_converters.passes.int8 import Int8Options

pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.passes.qat import QatOptions, train
from farrier_converters.training.data import Rows

ASSETS = Path(__file__).resolve().parents[2] / "sdk" / "farrier" / "showcase" / "assets"
BITS = Int8Options(weight_bits=4, activation_bits=4, wide_edges=True)
ROWS = 256


@pytest.fixture(scope="module")
def digits():
    """A digits network with rows whose labels are drawn at random, and others whose labels are right."""
    source = model.load(ASSETS / "digits.onnx")
    name = source.inputs[0].name
    with np.load(ASSETS / "digits-eval.npz") as file:
        images, labels = file[name].astype(np.float32), file["labels"]
    rng = np.random.default_rng(0)
    context = passes.Context(
        Arithmetic("u8", 8),
        lambda: iter([{name: images[:64]}]),
        training=Rows({name: images[:ROWS]}, rng.permutation(labels[:ROWS]), batch=32),
        original=source,
    )
    return source, context, (images[ROWS : 3 * ROWS], labels[ROWS : 3 * ROWS])


def accuracy(found, digits):
    images, labels = digits[2]
    scores = run.once(found.proto, {found.inputs[0].name: images})[0]
    return float((scores.argmax(1) == labels).mean())


def trained(digits, hard):
    source, context, _ = digits
    return train(source, QatOptions(int8=BITS, hard=hard, fit={"epochs": 2, "learning_rate": 2e-3}), context)


def test_answers_of_the_original_teach_where_labels_are_wrong(digits):
    taught, misled = (accuracy(trained(digits, hard).model, digits) for hard in (0.0, 1.0))
    assert taught > accuracy(digits[0], digits) - 0.05
    assert misled < taught - 0.1


def test_the_same_seed_gives_the_same_integers(digits):
    first, second = (trained(digits, 0.5).model.proto.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_without_the_original_it_is_wrong_usage(digits):
    source, context, _ = digits
    with pytest.raises(UsageError, match="needs that model"):
        train(source, QatOptions(hard=0.5), replace(context, original=None))
    with pytest.raises(UsageError, match="from 0 to 1"):
        train(source, QatOptions(hard=-1.0), context)
