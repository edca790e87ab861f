"""What an output says follows from its end, its neighbours, the labels, or a word of the user."""

from __future__ import annotations

import numpy as np
import pytest
from layered import Stack
from onnx import TensorProto

from farrier_contracts.errors import UsageError
from farrier_converters.distillation.outputs import answers_of, class_axis

FLOAT, WHOLE = TensorProto.FLOAT, TensorProto.INT64


def headed(ends, outputs, *, inputs=None):
    """A dense layer on "x" [N, 4, 6] with one more node per output."""
    s = Stack()
    x = s.dense("x", "body", 6, 6)
    for op, name, attributes in ends:
        s.node(op, [x], name, **attributes)
    return s.model({"x": (FLOAT, ["N", 4, 6]), **(inputs or {})}, outputs)


def test_classes_are_looked_at_in_front_of_a_softmax():
    (answer,) = answers_of(headed([("Softmax", "p", {"axis": -1})], {"p": ["N", 4, 6]}))
    assert (answer.loss, answer.tensor, answer.axis, answer.squashed) == ("kl", "body.sum", -1, False)


def test_yes_or_no_is_looked_at_in_front_of_a_sigmoid():
    (answer,) = answers_of(headed([("Sigmoid", "p", {})], {"p": ["N", 4, 6]}))
    assert (answer.loss, answer.tensor) == ("binary", "body.sum")


def test_so_it_is_with_logarithms_of_probabilities():
    (answer,) = answers_of(headed([("LogSoftmax", "p", {"axis": -1})], {"p": ["N", 4, 6]}))
    assert (answer.loss, answer.tensor, answer.squashed) == ("kl", "body.sum", False)


def test_probabilities_that_were_moved_are_still_probabilities():
    s = Stack()
    p = s.node("Softmax", [s.dense("x", "body", 6, 6)], "p", axis=-1)
    s.node("Concat", [p, p], "both", axis=1)
    (answer,) = answers_of(s.model({"x": (FLOAT, ["N", 4, 6])}, {"both": ["N", 8, 6]}))
    assert (answer.loss, answer.tensor, answer.squashed) == ("kl", "both", True)


def test_a_detector_has_classes_and_places():
    s = Stack()
    s.node("Softmax", [s.dense("x", "c", 6, 3)], "scores", axis=-1)
    s.node("Identity", [s.dense("x", "b", 6, 4)], "deltas")
    model = s.model({"x": (FLOAT, ["N", 9, 6])}, {"scores": ["N", 9, 3], "deltas": ["N", 9, 4]})
    assert [a.loss for a in answers_of(model)] == ["kl", "smooth-l1"]
    assert [a.loss for a in answers_of(model, {"deltas": "l1"})] == ["kl", "l1"]


def test_states_and_reconstructions_are_values_and_whole_numbers_are_left_out():
    model = headed([("Identity", "y", {})], {"y": ["N", 4, 6]})
    assert answers_of(model)[0].loss == "mse"  # as large as the input
    s = Stack()
    s.node("Softmax", [s.dense("x", "body", 6, 5)], "p", axis=-1)
    s.node("ArgMax", ["p"], "best", axis=-1)
    s.node("Tanh", [s.dense("x", "t", 6, 7)], "new_state")
    found = answers_of(s.model({"x": (FLOAT, ["N", 6])}, {"p": ["N", 5], "new_state": ["N", 7]}))
    assert [a.loss for a in found] == ["kl", "mse"]


@pytest.mark.parametrize(
    ("labels", "loss", "axis"),
    [
        (np.zeros((3, 5, 5), np.int64), "kl", 1),  # a class for each pixel
        (np.zeros((3, 2, 5, 5), np.float32), "mse", 1),
        (None, "mse", 1),
    ],
)
def test_labels_say_what_a_map_is(labels, loss, axis):
    s = Stack()
    s.node("Conv", ["x", s.weight("w", 2, 3, 1, 1)], "y")
    model = s.model({"x": (FLOAT, ["N", 3, 5, 5])}, {"y": ["N", 2, 5, 5]})
    (answer,) = answers_of(model, labels=labels)
    assert (answer.loss, answer.axis) == (loss, axis)


def test_mixed_labels_are_shares_of_classes_not_values():
    s = Stack()
    s.dense("x", "y", 6, 3)
    model = s.model({"x": (FLOAT, ["N", 6])}, {"y.sum": ["N", 3]})
    shares = np.array([[0.3, 0.7, 0.0], [1.0, 0.0, 0.0]], np.float32)
    assert answers_of(model, labels=shares)[0].loss == "kl"
    assert answers_of(model, labels=5 * shares)[0].loss == "mse"


def test_what_is_not_known_is_one_sentence():
    model = headed([("Softmax", "p", {"axis": -1})], {"p": ["N", 4, 6]})
    with pytest.raises(UsageError, match="no output 'q'; it has p"):
        answers_of(model, {"q": "kl"})
    with pytest.raises(UsageError, match="unknown loss 'hinge'; choose one of: kl"):
        answers_of(model, {"p": "hinge"})
    with pytest.raises(UsageError, match="no output of the model can be compared"):
        answers_of(model, {"p": "none"})


@pytest.mark.parametrize(
    ("shape", "labels", "axis"),
    [
        ((8, 10), (8,), 1),
        ((8, 10), (8, 1), 1),
        ((-1, 7, 10), (8, 7), 2),
        ((-1, 10, 7), (8, 7), 1),
        ((8, 3, 5, 5), (8, 5, 5), 1),
        ((8, 10), (8, 4), None),
        ((8,), (8, 2, 2), None),
    ],
)
def test_the_axis_of_classes_is_the_one_that_labels_leave_out(shape, labels, axis):
    assert class_axis(shape, labels) == axis
