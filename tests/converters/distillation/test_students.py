"""Students made from their teachers: how many layers and channels stay, and which."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import dense, residual, transformer, words

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.distillation.points import attention_maps, ends, matched, paired, related
from farrier_converters.distillation.students import WAYS, made, shallower, share, thinner
from farrier_converters.graph import run


def weights(model):
    return sum(int(np.prod(t.dims)) for t in model.proto.graph.initializer)


@settings(max_examples=25, deadline=None)
@given(layers=st.integers(2, 6), kept=st.integers(1, 5), way=st.sampled_from(WAYS))
def test_as_many_layers_stay_as_were_asked_for(layers, kept, way):
    teacher = transformer(layers, width=8)
    if kept >= layers:
        with pytest.raises(UsageError, match=f"ask for 1 to {layers - 1}"):
            shallower(teacher, kept, way=way, batches=[{"ids": words(4)}])
        return
    found = shallower(teacher, kept, way=way, batches=[{"ids": words(4)}])
    assert len(found.kept) == kept == len(attention_maps(found.model))
    assert sorted([*found.kept, *found.dropped]) == [f"l{i}.end" for i in range(layers)]
    if way == "first":
        assert found.kept == tuple(f"l{i}.end" for i in range(kept))
    if way == "last":
        assert found.kept == tuple(f"l{i}.end" for i in range(layers - kept, layers))
    assert run.once(found.model.proto, {"ids": words(3)})[0].shape == (3, 2)


def test_half_means_every_second_layer_of_each_stage():
    found = shallower(residual((8, 8, 8, 8, 16, 16, 16)), "half")
    assert found.kept == (
        "b0.r1",
        "b2.r1",
        "b5.r1",
    )  # 2 of 4 and 1 of 2; b4 halves the picture and stays anyway
    assert shallower(transformer(5), "half").kept == ("l0.end", "l1.end", "l3.end")
    # what one stage loses by rounding, the next one gets
    assert shallower(residual((8, 8, 16, 16, 32, 32)), "half").kept == ("b0.r1", "b3.add")


def test_importance_keeps_the_layer_that_does_something():
    teacher = transformer(3)
    for tensor in teacher.proto.graph.initializer:
        if tensor.name.startswith(("l0.attention.o", "l0.down", "l2.attention.o", "l2.down")):
            tensor.raw_data = bytes(len(tensor.raw_data))
    found = shallower(teacher, 1, way="importance", batches=[{"ids": words(8)}])
    assert found.kept == ("l1.end",)


def test_thin_students_have_their_share_of_channels_in_whole_steps():
    teacher = residual((16, 16, 32, 32))
    found = thinner(teacher, "50%", step=8)
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    assert run.once(found.model.proto, {"x": x})[0].shape == (2, 4)
    assert 0.2 < weights(found.model) / weights(teacher) < 0.5
    stored = {t.name: tuple(t.dims) for t in found.model.proto.graph.initializer}
    assert stored["b0.c0.w"][0] == 8
    assert stored["b3.c0.w"][0] == 16
    thin = thinner(teacher, 0.4, step=8)  # 6.4 channels of 16 are 8, never 0
    assert {t.name: tuple(t.dims) for t in thin.model.proto.graph.initializer}["b0.c0.w"][0] == 8


def test_the_lightest_channels_go():
    teacher = dense((4, 6, 3))
    for tensor in teacher.proto.graph.initializer:
        value = np.frombuffer(tensor.raw_data, np.float32).reshape(tensor.dims).copy()
        if tensor.name == "d0.w":
            value[:, [1, 4]] *= 100
        if tensor.name == "d0.b":
            value[[1, 4]] *= 100
        tensor.raw_data = value.tobytes()
    small = thinner(teacher, 2 / 6, step=1).model
    kept = next(t for t in small.proto.graph.initializer if t.name == "d0.w")
    assert tuple(kept.dims) == (4, 2)
    assert (np.abs(np.frombuffer(kept.raw_data, np.float32)) > 1).any()


def test_fewer_layers_and_thinner_ones_together():
    teacher = residual((16, 16, 16, 16))
    both = made(teacher, layers="half", width="50%")
    assert len(both.kept) == 2
    assert weights(both.model) < weights(made(teacher, layers="half").model) / 2


def test_what_cannot_be_made_is_said():
    with pytest.raises(UsageError, match="unknown way"):
        shallower(transformer(2), "half", way="random")
    with pytest.raises(UsageError, match="needs rows"):
        shallower(transformer(2), "half", way="importance")
    with pytest.raises(UsageError, match="layers 'most' is no share"):
        shallower(transformer(2), "most")
    with pytest.raises(InputError, match="no layers that could be left out"):
        shallower(dense((3, 5, 2)), "half")
    with pytest.raises(UsageError, match="say what a student keeps"):
        made(transformer(2))
    with pytest.raises(InputError, match="can be thinned"):
        thinner(dense((3, 5, 2)), 0.999, step=1)


@given(st.floats(0.01, 0.99))
def test_shares_are_read_as_percent_or_plain(value):
    assert share(f"{100 * value:.4f}%", "width") == pytest.approx(value, abs=1e-5)
    assert share(f"{value:.6f}", "width") == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("text", ["0%", "100%", "2", "-5%", "half of it", ""])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError, match="is no share"):
        share(text, "width")


def test_a_made_student_is_paired_by_name_behind_the_layers_that_it_lacks():
    teacher = transformer(4)
    student = shallower(teacher, "half").model
    assert related(student, teacher)
    pairs = {pair.student.name: pair.teacher.name for pair in matched(student, teacher)}
    assert pairs["l0.end"] == "l1.end"
    assert pairs["l2.end"] == "l3.end"
    assert pairs["l2.mid"] == "l2.mid"
    assert {pair.student.axis for pair in matched(student, teacher)} == {-1}


def test_a_strange_student_is_paired_by_depth():
    teacher, student = residual((8, 8, 8, 16, 16, 16)), residual((4, 4, 8), seed=3)
    pairs = [(p.student.name, p.teacher.name) for p in matched(student, teacher)]
    assert pairs == [("b1.r1", "b2.r1"), ("b2.r1", "b5.r1")]  # the last of each size of picture
    assert {p.student.axis for p in matched(student, teacher)} == {1}
    assert not related(student, teacher)


def test_points_are_where_layers_end():
    assert ends(dense((5, 16, 8, 3))) == ["r0", "r1"]
    assert ends(residual((8, 16)))[-1] == "b1.r1"


def test_a_pair_that_is_not_there_is_refused():
    teacher = transformer(2)
    with pytest.raises(UsageError, match="makes no tensor called 'nothing'"):
        paired(teacher, teacher, [("l0.end", "nothing")])
    with pytest.raises(UsageError, match="a pair is two tensors"):
        paired(teacher, teacher, [("l0.end",)])
