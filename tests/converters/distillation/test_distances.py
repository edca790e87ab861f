"""Distances between answers, features and attention: what they are zero for, what scales them, what masks them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.distillation.outputs import Answer  # noqa: E402
from farrier_converters.distillation.points import Pair, Point  # noqa: E402
from farrier_converters.training.distillation import features  # noqa: E402
from farrier_converters.training.distillation.answers import distance, masked_mean  # noqa: E402

KINDS = ("kl", "binary", "mse", "l1", "smooth-l1", "cosine")


def drawn(*shape, seed=0, scale=1.0):
    return torch.from_numpy((scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32))


def far(found, wanted, loss="kl", *, temperature=4.0, axis=-1, squashed=(False, False), mask=None):
    own, other = (Answer("y", loss, "y", axis, s) for s in squashed)
    return distance(found, wanted, own, other, temperature=temperature, mask=mask)


@pytest.mark.parametrize("loss", KINDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 20))
def test_distances_are_zero_for_equals_and_positive_otherwise(loss, seed, temperature):
    one, two = drawn(4, 5, seed=seed), drawn(4, 5, seed=seed + 1)
    assert float(far(one, one.clone(), loss, temperature=temperature)) == pytest.approx(0, abs=1e-5)
    assert float(far(one, two, loss, temperature=temperature)) > 1e-6


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 10), shift=st.floats(-5, 5))
def test_soft_labels_are_the_formula_of_hinton(seed, temperature, shift):
    """T^2 KL of the softened distributions, as torch has it; a constant in all logits changes nothing."""
    found, wanted = drawn(6, 7, seed=seed), drawn(6, 7, seed=seed + 1)
    expected = temperature**2 * torch.nn.functional.kl_div(
        torch.log_softmax(found / temperature, 1),
        torch.softmax(wanted / temperature, 1),
        reduction="batchmean",
    )
    assert float(far(found, wanted, temperature=temperature)) == pytest.approx(
        float(expected), rel=1e-3, abs=1e-5
    )
    moved = far(found + shift, wanted - shift, temperature=temperature)
    assert float(moved) == pytest.approx(float(expected), rel=1e-2, abs=1e-4)


def test_the_size_of_gradients_hangs_little_on_the_temperature():
    """Which is what T^2 is for: at high temperatures it is the mean square of centred differences (Hinton, 2.1)."""
    sizes = []
    for temperature in (10.0, 20.0, 40.0):
        found = drawn(8, 5).requires_grad_()
        far(found, drawn(8, 5, seed=1), temperature=temperature).backward()
        sizes.append(float(found.grad.norm()))
    assert max(sizes) / min(sizes) < 1.1


@pytest.mark.parametrize(
    ("loss", "squash"), [("kl", lambda v: torch.softmax(v, -1)), ("binary", torch.sigmoid)]
)
def test_probabilities_say_the_same_as_logits(loss, squash):
    found, wanted = drawn(3, 4), drawn(3, 4, seed=1)
    plain = float(far(found, wanted, loss, temperature=2))
    for squashed in ((True, False), (False, True), (True, True)):
        pair = [squash(v) if s else v for v, s in zip((found, wanted), squashed, strict=True)]
        assert float(far(*pair, loss, temperature=2, squashed=squashed)) == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("loss", ["mse", "l1", "smooth-l1"])
def test_values_of_any_scale_weigh_alike(loss):
    found, wanted = drawn(5, 9, 4), drawn(5, 9, 4, seed=1)
    assert float(far(found, wanted, loss)) == pytest.approx(
        float(far(1e3 * found, 1e3 * wanted, loss)), rel=1e-4
    )


def test_steps_that_are_padding_do_not_count():
    found, wanted = drawn(2, 5, 7), drawn(2, 5, 7, seed=1)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]) > 0
    before = float(far(found, wanted, mask=mask))
    found[0, 3:] = 1e3
    assert float(far(found, wanted, mask=mask)) == pytest.approx(before)
    each = torch.arange(10.0).reshape(2, 5)
    assert float(masked_mean(each, mask)) == pytest.approx(float(each[mask].mean()))
    assert float(masked_mean(each.reshape(10), mask)) == 4.5  # no steps: the mask does not fit


def pair_of(left=1, right=1):
    return Pair(Point("s", left), Point("t", right))


@pytest.mark.parametrize(
    ("student", "teacher", "axes"),
    [
        ((2, 4, 8, 8), (2, 6, 8, 8), (1, 1)),
        ((2, 4, 4, 4), (2, 6, 8, 8), (1, 1)),  # another resolution
        ((2, 9, 4), (2, 9, 6), (-1, -1)),  # steps of a sequence
        ((2, 4, 5), (2, 9, 6), (1, -1)),  # a convolution over time and a transformer
        ((2, 4, 4, 4), (2, 17, 6), (1, -1)),  # pictures and patches
        ((2, 4), (2, 6), (1, 1)),
        ((2, 4), (2, 6, 3, 3), (1, 1)),
    ],
)
def test_features_of_different_shapes_meet(student, teacher, axes):
    pair = pair_of(*axes)
    projection = features.Projection(4, 6)
    found, wanted = drawn(*student).requires_grad_(), drawn(*teacher, seed=1)
    far_off = features.feature_distance(found, wanted, pair, projection)
    far_off.backward()
    assert far_off.shape == ()
    assert float(found.grad.abs().sum()) > 0
    assert float(projection.weight.grad.abs().sum()) > 0


def test_a_projection_can_learn_any_linear_map():
    torch.manual_seed(0)
    turn = drawn(6, 4, seed=5)
    found = drawn(32, 4, 3, 3)
    wanted = torch.einsum("oc,nchw->nohw", turn, found)
    projection = features.Projection(4, 6)
    optimizer = torch.optim.SGD(projection.parameters(), lr=3.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss = features.feature_distance(found, wanted, pair_of(), projection)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-3


def test_spatial_attention_sees_where_and_not_how_much_or_how_many():
    found = drawn(2, 8, 6, 6)
    assert float(features.spatial_attention_distance(found, 7 * found.repeat(1, 2, 1, 1), pair_of())) == (
        pytest.approx(0, abs=1e-6)
    )
    assert float(features.spatial_attention_distance(found, found.flip(3), pair_of())) > 0.01


def test_relations_are_the_same_in_a_turned_space():
    turn = torch.linalg.qr(drawn(8, 8))[0]
    found = drawn(2, 5, 8)
    pair = pair_of(-1, -1)
    assert float(features.relation_distance(found, found @ turn, pair, None)) == pytest.approx(0, abs=1e-5)
    assert float(features.relation_distance(found, found.flip(1), pair, None)) > 0.01


def test_maps_of_attention_compare_by_head_or_by_their_mean():
    maps = torch.softmax(drawn(2, 4, 5, 5), -1)
    assert float(features.map_distance(maps, maps.clone(), None)) == pytest.approx(0, abs=1e-6)
    assert float(features.map_distance(maps, maps.flip(1), None)) > 0.01
    assert float(features.map_distance(maps[:, :2], maps[:, :2].repeat(1, 2, 1, 1), None)) == (
        pytest.approx(0, abs=1e-6)
    )
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]) > 0
    other = maps.clone()
    other[0, :, 3:] = 0.2
    assert float(features.map_distance(maps, other, mask)) == pytest.approx(0, abs=1e-6)
