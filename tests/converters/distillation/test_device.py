"""Distillation on an accelerator, on a stand-in for one: nothing meets across devices, and no step waits."""

from __future__ import annotations

import numpy as np
import pytest
from layered import residual, transformer, words

from farrier_converters.distillation.students import shallower

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from second_device import AWAY, Away  # noqa: E402

from farrier_converters.training.data import Rows  # noqa: E402
from farrier_converters.training.distillation import Reading, Weights  # noqa: E402
from farrier_converters.training.distillation.teach import Lesson, teach  # noqa: E402
from farrier_converters.training.fit import FitSettings  # noqa: E402

SETTINGS = FitSettings(epochs=2, learning_rate=0.01, frozen_norms=0.5, test_rate=False)


def pictures():
    x = np.random.default_rng(0).standard_normal((24, 3, 8, 8)).astype(np.float32)
    return (
        residual((4, 8), seed=2),
        residual((8, 16), seed=1),
        Rows({"x": x}, np.arange(24) % 4, batch=12),
        {},
    )


def sentences():
    teacher = transformer(2, width=8)
    rows = Rows({"ids": words(24)}, np.arange(24) % 2, batch=12)
    return shallower(teacher, 1).model, teacher, rows, {"reading": Reading(mask="ids")}


def language():
    teacher = transformer(2, width=8, language=True)
    rows = Rows({"ids": words(24)}, batch=12)
    return shallower(teacher, 1).model, teacher, rows, {"reading": Reading("ids", "ids")}


@pytest.mark.parametrize("subject", [pictures, sentences, language])
def test_a_distillation_elsewhere_is_the_same_and_does_not_wait(monkeypatch, subject):
    student, teacher, rows, reading = subject()
    lesson = Lesson(Weights(hard=0.3, features=0.5, attention=0.5), SETTINGS, **reading)
    wanted = teach(student, [teacher], rows, lesson)
    monkeypatch.setattr("farrier_converters.training.fit.trainer.resolve", lambda _name: AWAY)
    with Away() as away:
        found = teach(student, [teacher], rows, lesson)
    assert np.allclose(found.history.losses, wanted.history.losses, rtol=1e-4)
    assert found.history.losses[1] < found.history.losses[0]
    numbers = away.waits.count("aten::_local_scalar_dense")
    assert numbers <= 2 * SETTINGS.epochs  # the loss and the weights of each epoch
    assert len(away.waits) - numbers <= 2 * len(student.proto.graph.initializer)  # weights on their way back
