"""Metrics against scikit-learn, and their rules as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from farrier_contracts.errors import InputError, UsageError
from farrier_converters import metrics

RNG = np.random.default_rng(0)


def value(name, outputs, wanted, parts=3):
    meter = metrics.get(name).start()
    for out, want in zip(np.array_split(outputs, parts), np.array_split(wanted, parts), strict=True):
        meter.add([out], [want])
    return meter.value()


SCORES = RNG.random((200, 7)).astype(np.float32)
SCORES[:, 0] = np.round(SCORES[:, 0], 1)  # ties
LABELS = RNG.integers(0, 7, 200)
TARGETS = RNG.standard_normal((200, 3))
GUESSES = TARGETS + RNG.standard_normal((200, 3)) / 5


def cross_entropy(scores, labels):
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return np.exp(-logs[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize(
    ("name", "outputs", "wanted", "expected"),
    [
        ("accuracy", SCORES, LABELS, sk.accuracy_score(LABELS, SCORES.argmax(1))),
        ("top5", SCORES, LABELS, sk.top_k_accuracy_score(LABELS, SCORES, k=5)),
        ("f1", SCORES, LABELS, sk.f1_score(LABELS, SCORES.argmax(1), average="macro")),
        ("f1", SCORES[:, :2], LABELS % 2, sk.f1_score(LABELS % 2, SCORES[:, :2].argmax(1))),
        ("auc", SCORES[:, :1], LABELS % 2, sk.roc_auc_score(LABELS % 2, SCORES[:, 0])),
        ("auc", SCORES[:, :2], LABELS % 2, sk.roc_auc_score(LABELS % 2, SCORES[:, 1] - SCORES[:, 0])),
        ("auc", SCORES, LABELS, np.mean([sk.roc_auc_score(c == LABELS, SCORES[:, c]) for c in range(7)])),
        ("mae", GUESSES, TARGETS, sk.mean_absolute_error(TARGETS, GUESSES)),
        ("mse", GUESSES, TARGETS, sk.mean_squared_error(TARGETS, GUESSES)),
        ("perplexity", SCORES, LABELS, cross_entropy(SCORES.astype(np.float64), LABELS)),
        (
            "cosine",
            GUESSES,
            TARGETS,
            np.mean(
                (GUESSES * TARGETS).sum(1) / np.linalg.norm(GUESSES, axis=1) / np.linalg.norm(TARGETS, axis=1)
            ),
        ),
    ],
)
def test_the_same_as_elsewhere(name, outputs, wanted, expected):
    assert value(name, outputs, wanted) == pytest.approx(expected, abs=1e-6)


def test_perplexity_takes_probabilities_as_well():
    probabilities = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)
    assert value("perplexity", probabilities, LABELS) == pytest.approx(
        value("perplexity", SCORES, LABELS), rel=1e-4
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_accuracy_does_not_depend_on_the_batches(labels, parts):
    scores = np.random.default_rng(len(labels)).random((len(labels), 5))
    whole = value("accuracy", scores, np.array(labels), 1)
    assert value("accuracy", scores, np.array(labels), min(parts, len(labels))) == whole
    assert 0 <= whole <= 1


def test_agreement_counts_equal_answers_of_classifiers_and_cosines_of_others():
    meter = metrics.get("agreement").start()
    other = SCORES.copy()
    other[0] = np.roll(other[0], 1)
    meter.add([other], [SCORES])
    assert meter.value() == pytest.approx(199 / 200)
    meter = metrics.get("agreement").start()
    boxes = TARGETS.reshape(50, 4, 3)
    meter.add([boxes, 2 * boxes], [boxes, boxes])
    assert meter.value() == pytest.approx(1.0)
    meter.add([-boxes, boxes[:, :2]], [boxes, boxes])
    assert meter.value() == pytest.approx((100 - 50) / 200)


@pytest.mark.parametrize(
    ("name", "outputs", "wanted", "words"),
    [
        ("accuracy", SCORES, np.full(200, 7), "label 7 is out of range: the model has classes 0 to 6"),
        ("accuracy", SCORES, np.full(200, -1), "label -1 is out of range"),
        ("accuracy", SCORES, np.full(200, 0.5), "whole class numbers"),
        ("accuracy", SCORES, np.zeros((200, 2), int), "do not fit"),
        ("top5", SCORES[:, :5], LABELS % 5, "use accuracy"),
        ("mse", GUESSES, np.zeros((200, 2)), "do not fit"),
    ],
)
def test_labels_that_do_not_fit(name, outputs, wanted, words):
    with pytest.raises(InputError, match=words):
        value(name, outputs, wanted)


def test_auc_of_one_class():
    with pytest.raises(InputError, match="two classes"):
        value("auc", SCORES[:, :2], np.zeros(200, int))


def test_drops_are_points_for_scores_and_shares_for_errors():
    assert metrics.drop(metrics.get("accuracy"), 0.9, 0.89) == pytest.approx(0.01)
    assert metrics.drop(metrics.get("mse"), 2.0, 2.02) == pytest.approx(0.01)
    assert metrics.drop(metrics.get("mse"), 2.0, 1.9) < 0
    assert metrics.drop(metrics.get("accuracy"), 1.0, 498 / 500) == 0.004


def test_a_function_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def wrong(outputs, labels):\n    return (outputs.argmax(1) != labels).mean()\n"
        "wrong.higher_is_better = False\ndef broken(outputs, labels):\n    return {}\n"
    )
    metric = metrics.get(f"{file}:wrong")
    assert not metric.higher_is_better
    meter = metric.start()
    meter.add([SCORES], [LABELS])
    assert meter.value() == pytest.approx(1 - value("accuracy", SCORES, LABELS))
    meter = metrics.get(f"{file}:broken").start()
    meter.add([SCORES], [LABELS])
    with pytest.raises(InputError, match="TypeError"):
        meter.value()


@pytest.mark.parametrize("name", ["best", "map", "absent.py:f", "map.py"])
def test_unknown_metrics(name):
    with pytest.raises(UsageError):
        metrics.get(name)
