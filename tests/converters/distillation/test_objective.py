"""Students learn: from answers, from labels, from several teachers, inside and out, in sequences and boxes."""

from __future__ import annotations

import numpy as np
import pytest
from layered import LENGTH, WORDS, Stack, dense, residual, transformer, words
from onnx import TensorProto

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.distillation.points import matched
from farrier_converters.distillation.students import shallower
from farrier_converters.graph import run

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.training.data import Rows  # noqa: E402
from farrier_converters.training.distillation import Distillation, Reading, Teachers, Weights  # noqa: E402
from farrier_converters.training.fit import FitSettings, fit  # noqa: E402
from farrier_converters.training.module import OnnxModule  # noqa: E402

FAST = FitSettings(epochs=40, learning_rate=1e-2)
FLOAT = TensorProto.FLOAT


def answers(model, feeds):
    return run.once(model.proto, feeds)


def taught(student, teachers, rows, weights, *, settings=FAST, shares=(), cache=False, **given):
    """Train a student in place of `fit`'s caller; returns the student's model and the objective."""
    module = OnnxModule(student)
    example, labels = next(iter(rows(0)))
    objective = Distillation(
        module,
        Teachers([OnnxModule(t) for t in teachers], shares, cache=cache),
        weights,
        example=example,
        labels=labels,
        **given,
    )
    fit(module, rows, settings, objective=objective)
    return module.write_back(), objective


def agreement(one, two, feeds):
    return float((answers(one, feeds)[0].argmax(-1) == answers(two, feeds)[0].argmax(-1)).mean())


def vectors(rows=256, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, 5)).astype(np.float32)


@pytest.mark.parametrize("cache", [False, True])
def test_a_student_learns_from_answers_without_labels(cache):
    teacher, student = dense((5, 32, 3), seed=1), dense((5, 16, 3), seed=2)
    made, objective = taught(student, [teacher], Rows({"x": vectors()}), Weights(hard=0.7), cache=cache)
    assert agreement(student, teacher, {"x": vectors(seed=9)}) < 0.6
    assert agreement(made, teacher, {"x": vectors(seed=9)}) > 0.85
    assert bool(objective.teachers._rows) == cache


def test_answers_that_are_kept_are_the_answers():
    teacher = dense((5, 16, 3), seed=1)
    kept, plain = (Teachers([OnnxModule(teacher)], cache=c) for c in (True, False))
    for teachers in (kept, plain):
        teachers.to(torch.device("cpu"))
    for rows in ([0, 1, 2], [2, 1, 7], [7, 7, 0]):
        feeds = {"x": torch.from_numpy(vectors()[rows])}
        one, two = (t.answers(feeds, [["d0"]])[0] for t in (kept, plain))
        for name in ("logits", "d0"):
            torch.testing.assert_close(one[name], two[name])
    assert len(kept._rows) == 4


def test_a_full_cache_still_answers():
    teachers = Teachers([OnnxModule(dense((5, 16, 3)))], cache=True, cache_bytes=30)  # two rows of 12 bytes
    teachers.to(torch.device("cpu"))
    feeds = {"x": torch.from_numpy(vectors()[:5])}
    first, second = (teachers.answers(feeds, [[]])[0]["logits"] for _ in range(2))
    torch.testing.assert_close(first, second)
    assert len(teachers._rows) == 2


def test_two_teachers_teach_their_weighted_mean():
    """The gradient of the mean of distances is that of the distance to the mean distribution."""
    one, two, student = dense((5, 8, 3), seed=1), dense((5, 8, 3), seed=2), dense((5, 8, 3), seed=3)
    feeds = {"x": vectors(16)}
    module = OnnxModule(student)
    teachers = Teachers([OnnxModule(one), OnnxModule(two)], (3, 1))
    objective = Distillation(module, teachers, Weights(temperature=1.0, hard=0.0), example=feeds)
    fed = {"x": torch.from_numpy(feeds["x"])}
    objective(module.compute(fed, objective.keep), fed, None).backward()
    found = module.parameters_by_name["d0.w"].grad.clone()
    module.zero_grad()
    mean = sum(
        w * torch.softmax(torch.from_numpy(answers(t, feeds)[0]), 1) for w, t in ((0.75, one), (0.25, two))
    )
    scores = module(**fed)
    torch.nn.functional.kl_div(torch.log_softmax(scores, 1), mean, reduction="batchmean").backward()
    torch.testing.assert_close(found, module.parameters_by_name["d0.w"].grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("weights", [{"features": 1.0}, {"attention": 1.0}])
def test_what_a_student_has_inside_comes_nearer(weights):
    teacher, student = residual((8, 8, 16, 16), seed=1), residual((4, 8), seed=2)
    x = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
    rows = Rows({"x": x}, batch=32)
    module = OnnxModule(student)
    objective = Distillation(
        module,
        Teachers([OnnxModule(teacher)]),
        Weights(hard=0.0, **weights),
        example={"x": x[:2]},
        pairs=matched(student, teacher),
    )
    fed = {"x": torch.from_numpy(x)}

    def inside():
        with torch.no_grad():
            values = module.eval().compute(fed, objective.keep)
            return float(objective.inside(values, objective._ask(fed)[0], None))

    before = inside()
    fit(module, rows, FAST, objective=objective)
    assert inside() < 0.7 * before
    assert bool(list(objective.parameters())) == ("features" in weights)


def test_half_a_transformer_learns_maps_of_attention_with_padding_left_out():
    teacher = transformer(4, classes=3, seed=1)
    student = shallower(teacher, "half").model
    ids = words(128)
    made, objective = taught(
        student,
        [teacher],
        Rows({"ids": ids}, batch=32),
        Weights(hard=0.0, attention=1.0, features=0.5),
        pairs=matched(student, teacher),
        born=True,
        settings=FitSettings(epochs=8, learning_rate=5e-3),
        reading=Reading(mask="ids"),
    )
    assert [other for _, other in objective.inside.maps] == ["l1.attention.weights", "l3.attention.weights"]
    assert not list(objective.parameters())  # the same widths and weights: no projections
    assert agreement(made, teacher, {"ids": words(64, seed=5)}) > agreement(
        student, teacher, {"ids": words(64, seed=5)}
    )


def test_a_language_model_learns_answers_and_next_words():
    teacher = transformer(2, language=True, seed=1)
    student = shallower(teacher, 1).model
    start = np.random.default_rng(0).integers(1, WORDS - 1, (96, 1))
    ids = (start + np.arange(LENGTH) - 1) % (WORDS - 1) + 1  # each word follows from the one before it
    made, _ = taught(
        student,
        [teacher],
        Rows({"ids": ids}, batch=32),
        Weights(hard=1.0),
        reading=Reading(next_token="ids"),
    )
    right = (answers(made, {"ids": ids})[0].argmax(-1)[:, :-1] == ids[:, 1:]).mean()
    assert right > 0.9
    soft, _ = taught(student, [teacher], Rows({"ids": ids}, batch=32), Weights(hard=0.0))
    assert agreement(soft, teacher, {"ids": ids}) > 0.8


def detector(seed, hidden):
    s = Stack(seed)
    x = s.node("Relu", [s.dense("x", "body", 6, hidden)], "hidden")
    s.node("Softmax", [s.dense(x, "class", hidden, 3)], "scores", axis=-1)
    s.node("Mul", [s.dense(x, "place", hidden, 4), s.constant("scale", np.float32(100))], "boxes")
    return s.model({"x": (FLOAT, ["N", 9, 6])}, {"scores": ["N", 9, 3], "boxes": ["N", 9, 4]})


@pytest.mark.parametrize("losses", [{}, {"boxes": "l1"}])
def test_a_detector_learns_classes_and_boxes(losses):
    teacher, student = detector(1, 32), detector(2, 16)
    x = np.random.default_rng(0).standard_normal((128, 9, 6)).astype(np.float32)
    made, _ = taught(student, [teacher], Rows({"x": x}, batch=32), Weights(), losses=losses)
    scores, boxes = answers(teacher, {"x": x})
    own, places = answers(made, {"x": x})
    assert (own.argmax(-1) == scores.argmax(-1)).mean() > 0.8
    before = np.abs(answers(student, {"x": x})[1] - boxes).mean()
    assert np.abs(places - boxes).mean() < 0.5 * before


def test_a_teacher_that_names_things_otherwise_is_understood():
    teacher, student = dense((5, 32, 3), seed=1), dense((5, 16, 3), seed=2)
    proto = teacher.proto
    proto.graph.input[0].name = "features"
    proto.graph.node[0].input[0] = "features"
    proto.graph.node[-1].output[0] = proto.graph.output[0].name = "classes"
    from farrier_converters.model import from_proto

    renamed = from_proto(proto, "other")
    made, _ = taught(student, [renamed], Rows({"x": vectors()}), Weights())
    found = answers(made, {"x": vectors(seed=9)})[0].argmax(1)
    assert (found == answers(renamed, {"features": vectors(seed=9)})[0].argmax(1)).mean() > 0.85


def test_labels_and_answers_are_mixed():
    """With wrong labels, the share of the labels decides whom the student follows."""
    teacher, student = dense((5, 32, 3), seed=1), dense((5, 16, 3), seed=2)
    x = vectors()
    wrong = (answers(teacher, {"x": x})[0].argmax(1) + 1) % 3
    rows = Rows({"x": x}, wrong)
    found = {
        hard: taught(student, [teacher], rows, Weights(temperature=1.0, hard=hard))[0]
        for hard in (0.02, 0.98)
    }
    assert agreement(found[0.02], teacher, {"x": x}) > 0.8
    assert agreement(found[0.98], teacher, {"x": x}) < 0.3


def test_what_does_not_fit_is_one_sentence():
    teacher, student = dense((5, 8, 3)), dense((5, 8, 3), seed=2)
    x = vectors(8)
    given = {"example": {"x": x}}
    module = OnnxModule(student)
    with pytest.raises(
        InputError, match=r"in shape \[8, 3\], layered 'logits' in \[8, 4\]; both have to answer alike"
    ):
        Distillation(module, Teachers([OnnxModule(dense((5, 8, 4)))]), **given)
    with pytest.raises(InputError, match="wants the inputs ids; the student has"):
        two = Stack()
        two.node("Add", ["a", "b"], "y")
        both = two.model({"a": (FLOAT, ["N", 3]), "b": (FLOAT, ["N", 3])}, {"y": ["N", 3]})
        Distillation(
            OnnxModule(both),
            Teachers([OnnxModule(transformer(2, classes=3))]),
            example={"a": x[:, :3], "b": x[:, :3]},
            losses={"y": "mse"},
        )
    with pytest.raises(UsageError, match="no input 'padding'; it has x"):
        Distillation(module, Teachers([OnnxModule(teacher)]), reading=Reading(mask="padding"), **given)
    with pytest.raises(UsageError, match="needs pairs of tensors"):
        Distillation(module, Teachers([OnnxModule(teacher)]), Weights(features=1.0), **given)
    with pytest.raises(UsageError, match="no attention to compare"):
        Distillation(module, Teachers([OnnxModule(teacher)]), Weights(attention=1.0), **given)
    with pytest.raises(UsageError, match="1 teachers need as many weights"):
        Teachers([module], (1, 2))
    with pytest.raises(UsageError, match="temperature must be above zero"):
        Weights(temperature=0)
    with pytest.raises(UsageError, match=r"from 0 to 1; it is 1\.5"):
        Weights(hard=1.5)


def test_labels_out_of_range_are_refused():
    rows = Rows({"x": vectors(8)}, np.full(8, 3))
    with pytest.raises(InputError, match="label 3 is out of range: the model has classes 0 to 2"):
        taught(dense((5, 8, 3)), [dense((5, 8, 3))], rows, Weights())
