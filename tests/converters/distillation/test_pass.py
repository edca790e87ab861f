"""The pass: the teacher is scored and adapted first, what is not worth learning is said, the student is trained."""

from __future__ import annotations

import numpy as np
import pytest
from layered import dense, residual

from farrier_contracts.errors import InputError, UsageError
from farrier_converters import model as models
from farrier_converters import passes
from farrier_converters.distillation.students import shallower
from farrier_converters.graph import run

pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.passes.distill import DistillOptions, adapted, distill
from farrier_converters.training.data import Rows

FIT = {"epochs": 30, "learning_rate": 1e-2}


def task(rows, seed=0, *, noise=0.5):
    """Classes around three points: [rows, 5] float32 and their numbers."""
    points = 1.5 * np.eye(3, 5)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    return (points[labels] + noise * rng.standard_normal((rows, 5))).astype(np.float32), labels


def context(original, *, labelled=True, validation=True, rows=192, work=None):
    x, y = task(rows)
    held, wanted = task(128, seed=1)
    return passes.Context(
        training=Rows({"x": x}, y if labelled else None, batch=32),
        validation=Rows({"x": held}, wanted, batch=64).in_order if validation else None,
        original=original,
        work=work,
    )


def accuracy(model, seed=2):
    x, y = task(300, seed=seed)
    return float((run.once(model.proto, {"x": x})[0].argmax(1) == y).mean())


@pytest.fixture(scope="module")
def good():
    """A teacher that knows the task."""
    options = DistillOptions(adapt=20, fit=FIT)
    found = adapted(dense((5, 32, 32, 3), seed=1), options, context(None))
    assert accuracy(found.model) > 0.9
    return found.model


def test_a_student_of_half_the_layers_becomes_as_good(good):
    student = shallower(dense((5, 32, 32, 32, 3), seed=1), 1).model
    found = distill(student, DistillOptions(fit=FIT, adapt=0), context(good))
    assert accuracy(student) < 0.6
    assert accuracy(found.model) > 0.9
    assert set(found.verdicts) == {"teacher", "before", "after"}
    assert found.verdicts["after"].better(found.verdicts["before"])
    assert found.notes == ()
    assert len(found.history.losses) == FIT["epochs"]


def test_the_pass_is_found_by_name_and_returns_the_model(good):
    technique = passes.get("distill")
    student = dense((5, 8, 3), seed=2)
    made = technique.run(student, technique.options(fit=FIT, temperature=2), context(good))
    assert accuracy(made) > 0.9
    assert [n.op_type for n in made.proto.graph.node] == [n.op_type for n in student.proto.graph.node]


def test_a_strange_teacher_is_adapted_and_then_teaches(good):
    stranger = dense((5, 32, 32, 3), seed=5)
    found = distill(dense((5, 8, 3), seed=2), DistillOptions(fit=FIT, adapt=10), context(stranger))
    assert found.verdicts["adapted"].better(found.verdicts["teacher"])
    assert accuracy(found.teacher) > 0.9 > accuracy(stranger)
    assert accuracy(found.model) > 0.9
    stored = run.once(stranger.proto, {"x": task(4)[0]})[0]
    np.testing.assert_array_equal(stored, run.once(dense((5, 32, 32, 3), seed=5).proto, {"x": task(4)[0]})[0])


def test_a_teacher_that_training_makes_worse_teaches_as_it_came(good):
    options = DistillOptions(fit=FIT, adapt=2, adapt_fit={"learning_rate": 3.0})
    found = distill(dense((5, 8, 3), seed=2), options, context(good))
    assert accuracy(found.teacher) == accuracy(good)
    assert any("made it no better: it teaches as it came" in note for note in found.notes)


def test_a_teacher_that_is_no_better_is_said_so(good):
    found = distill(good, DistillOptions(fit={"epochs": 1}, adapt=0), context(dense((5, 8, 3), seed=4)))
    assert any("is not better than the student is already" in note for note in found.notes)
    assert accuracy(found.model) > 0.9  # the best weights on held-out rows are kept: those from before


def test_without_labels_the_answers_teach_and_nothing_is_adapted(good):
    x, _ = task(192)
    free = passes.Context(training=Rows({"x": x}, batch=32), original=good)
    found = distill(dense((5, 8, 3), seed=2), DistillOptions(fit=FIT), free)
    assert accuracy(found.model) > 0.9
    assert found.verdicts == {}
    assert any("not adapted" in note for note in found.notes)


def test_held_out_labels_judge_a_student_that_learns_without_any(good):
    found = distill(dense((5, 8, 3), seed=2), DistillOptions(fit=FIT), context(good, labelled=False))
    assert set(found.verdicts) == {"teacher", "before", "after"}
    assert found.verdicts["after"].score > 0.9


def test_several_teachers_from_files_too(good, tmp_path):
    models.save(good, tmp_path / "second.onnx")
    options = DistillOptions(fit=FIT, adapt=0, teachers=[str(tmp_path / "second.onnx")], shares=(1, 3))
    assert accuracy(distill(dense((5, 8, 3), seed=2), options, context(good)).model) > 0.9
    with pytest.raises(InputError, match="there is no teacher at"):
        distill(good, DistillOptions(teachers=["nothing.onnx"]), context(good))


def test_a_killed_run_ends_as_an_uninterrupted_one(good, tmp_path):
    student = dense((5, 8, 3), seed=2)
    whole = distill(student, DistillOptions(fit=FIT, adapt=2), context(good)).model
    seen = []

    def stop(stage, _share):
        seen.append(stage)
        if stage.startswith("train, epoch 9"):
            raise KeyboardInterrupt

    interrupted = context(good, work=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        distill(
            student,
            DistillOptions(fit=FIT, adapt=2),
            passes.Context(**{**vars(interrupted), "progress": stop}),
        )
    epochs = []
    resumed = passes.Context(**{**vars(interrupted), "progress": lambda stage, _: epochs.append(stage)})
    found = distill(student, DistillOptions(fit=FIT, adapt=2), resumed).model
    assert found.proto.SerializeToString() == whole.proto.SerializeToString()
    assert not any(stage.startswith("train, epoch 3 ") for stage in epochs)


def test_training_that_diverges_keeps_what_was(good):
    with pytest.raises(InputError, match="not a number from the first epoch on; lower the learning rate"):
        distill(
            residual((4, 4), classes=3),
            DistillOptions(
                fit={"epochs": 2, "learning_rate": 1e30, "optimizer": "sgd"},
                adapt=0,
                teacher=residual((4, 4), classes=3, seed=1),
            ),
            passes.Context(training=Rows({"x": np.ones((64, 3, 8, 8), np.float32)}, batch=16)),
        )


def test_what_is_missing_is_said(good):
    student = dense((5, 8, 3))
    with pytest.raises(UsageError, match="needs training data"):
        distill(student, DistillOptions(), passes.Context(original=good))
    with pytest.raises(UsageError, match="needs a teacher"):
        distill(student, DistillOptions(), context(None))
    with pytest.raises(UsageError, match="adapt is a number of epochs"):
        distill(student, DistillOptions(adapt=-1), context(good))
    with pytest.raises(UsageError, match="fit does not take these settings"):
        distill(student, DistillOptions(fit={"speed": 3}), context(good))
