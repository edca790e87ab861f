"""What training reads, and what it says of data that does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_contracts.errors import InputError, UsageError

pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.training import augment, labels
from farrier_converters.training.data import Rows, held_out, stream


def pictures(rows=6, channels=3, height=8, width=10):
    return np.arange(rows * channels * height * width, dtype=np.float32).reshape(
        rows, channels, height, width
    )


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 40),
    batch=st.integers(1, 16),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 5),
)
def test_an_epoch_is_every_row_once_but_for_the_rest(rows, batch, seed, epoch):
    data = Rows({"x": np.arange(rows)}, np.arange(rows) * 2, batch=batch, seed=seed)
    seen = [(x["x"], y) for x, y in data(epoch)]
    flat = np.concatenate([x for x, _ in seen])
    assert len(seen) == len(data) == max(rows // batch, 1)
    assert len(set(flat.tolist())) == len(flat) >= min(rows, batch)
    assert all(np.array_equal(2 * x, y) for x, y in seen)
    again = np.concatenate([x["x"] for x, _ in data(epoch)])
    assert np.array_equal(flat, again)
    assert bool(data.notes) == (rows < batch)
    assert np.array_equal(np.concatenate([x["x"] for x, _ in data.in_order()]), np.arange(rows))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (({}, None), "no inputs"),
        (({"x": np.zeros((0, 3))}, None), "no rows"),
        (({"x": np.zeros((4, 3))}, np.zeros(3)), "x 4, labels 3"),
        (({"x": np.zeros((4, 3)), "z": np.zeros((5, 3))}, None), "x 4, z 5"),
    ],
)
def test_rows_that_are_none_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Rows(*arguments)
    with pytest.raises(UsageError, match="at least one row"):
        Rows({"x": np.zeros(2)}, batch=0)


def test_batches_come_as_tuples_mappings_or_lists():
    x, y = np.zeros((2, 3), np.float32), np.array([0, 1])
    for batch in ((x, y), [x, y], {"x": x, "labels": y, "weight": y}, {"target": y, "x": x}, ({"x": x}, y)):
        ((inputs, known),) = stream([batch], ["x"])(0)
        assert np.array_equal(inputs["x"], x)
        assert np.array_equal(known, y)
    ((_, none),) = stream([x], ["x"])(0)
    assert none is None
    with pytest.raises(InputError, match="lacks the input 'x'"):
        list(stream([{"z": x}], ["x"])(0))
    with pytest.raises(InputError, match="holds 3 arrays"):
        list(stream([(x, x, y)], ["x"])(0))


def test_an_iterator_is_read_once():
    data = stream(iter([(np.zeros(2), np.zeros(2))]), ["x"])
    assert len(list(data(0))) == 1
    with pytest.raises(InputError, match="only once"):
        list(data(1))
    passes = held_out([(np.zeros(2), np.zeros(2))], ["x"])
    assert [len(list(passes())) for _ in range(2)] == [1, 1]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), classes=st.integers(2, 9), rows=st.integers(1, 9))
def test_labels_are_in_range_or_named(data, classes, rows):
    given_labels = np.array(data.draw(st.lists(st.integers(-3, 12), min_size=rows, max_size=rows)))
    wrong = given_labels[(given_labels < 0) | (given_labels >= classes)]
    if wrong.size:
        with pytest.raises(InputError, match=f"classes 0 to {classes - 1}") as error:
            labels.check(given_labels, (rows, classes))
        assert any(f"label {value} " in str(error.value) for value in wrong)
    else:
        assert labels.check(given_labels, (rows, classes)) == labels.CLASSES


@pytest.mark.parametrize(
    ("given_labels", "scores", "meaning"),
    [
        (np.array([1, labels.IGNORED]), (2, 3), labels.CLASSES),
        (np.zeros((2, 4, 5), np.int64), (2, 3, 4, 5), labels.CLASSES),
        (np.zeros((2, 7), np.int64), (2, 7, 11), labels.TOKENS),
        (np.array([0, 1]), (2, 1), labels.BINARY),
        (np.array([True, False]), (2,), labels.BINARY),
        (np.array([[0, 1, 1], [0, 0, 0]]), (2, 3), labels.BINARY),
        (np.array([0.5, 2.0]), (2, 1), labels.VALUES),
        (np.array([[0.5, 2.0]]), (1, 2), labels.VALUES),
        (np.array([[0.25, 0.75]]), (1, 2), labels.SHARES),
    ],
)
def test_what_labels_mean(given_labels, scores, meaning):
    assert labels.check(given_labels, scores) == meaning


@pytest.mark.parametrize(
    ("given_labels", "scores", "sentence"),
    [
        (np.array([0, 1, 2]), (4, 3), "3 labels for 4 rows"),
        (np.array([0.0, 1.0]), (2, 3), "give classes as integers"),
        (np.array([0, 2]), (2, 1), "label 2 is out of range: .* 0 or 1"),
        (np.array([[0.5, np.nan]]), (1, 2), "no finite numbers"),
        (np.array(["cat", "dog"]), (2, 3), "give classes as integers, values as floats"),
        (np.zeros((2, 5), np.int64), (2, 3), "do not fit an output"),
    ],
)
def test_labels_that_fit_nothing(given_labels, scores, sentence):
    with pytest.raises(InputError, match=sentence):
        labels.check(given_labels, scores)


@settings(deadline=None, max_examples=40)
@given(padding=st.integers(0, 4), seed=st.integers(0, 999))
def test_a_crop_is_the_picture_moved(padding, seed):
    x = pictures() + 1
    found = augment.RandomCrop(padding)({"x": x}, np.random.default_rng(seed))["x"]
    down, right = np.random.default_rng(seed).integers(0, 2 * padding + 1, (2, len(x)))
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    for row, (i, j) in enumerate(zip(down, right, strict=True)):
        assert np.array_equal(found[row], padded[row, :, i : i + 8, j : j + 10])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), side=st.integers(1, 7))
def test_mirror_and_cutout_touch_what_they_say(seed, side):
    x = pictures() + 1
    mirrored = augment.Mirror()({"x": x}, np.random.default_rng(seed))["x"]
    for a, b in zip(mirrored, x, strict=True):
        assert np.array_equal(a, b) or np.array_equal(a, b[..., ::-1])
    cut = augment.Cutout(side)({"x": x}, np.random.default_rng(seed))["x"]
    missing = (cut == 0).sum((2, 3))
    assert (missing <= side * side).all()
    assert (missing >= (side // 2) ** 2).all()
    assert np.array_equal(cut[cut != 0], x[cut != 0])
    assert (missing == missing[:, :1]).all()


def test_pictures_with_channels_last_and_other_inputs():
    x = pictures()
    rng = np.random.default_rng(5)
    planes = augment.RandomCrop(2)({"x": x}, np.random.default_rng(5))["x"]
    last = augment.RandomCrop(2, layout="nhwc")({"x": np.moveaxis(x, 1, 3), "t": np.arange(6)}, rng)
    assert np.array_equal(np.moveaxis(last["x"], 3, 1), planes)
    assert np.array_equal(last["t"], np.arange(6))


def test_named_augmentations():
    found = augment.named(["crop:2", "mirror", "cutout"])
    assert found == augment.Chain((augment.RandomCrop(2), augment.Mirror(), augment.Cutout()))
    for wrong in ("crops", "crop:x"):
        with pytest.raises(UsageError, match="unknown augmentation"):
            augment.named([wrong])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), alpha=st.floats(0.05, 5))
def test_mixed_rows_have_mixed_labels(seed, alpha):
    known = np.arange(6) % 4
    x = np.eye(4, dtype=np.float32)[known]
    mixed, shares = augment.Mixup(4, alpha)({"x": x}, known, np.random.default_rng(seed))
    assert mixed["x"].dtype == shares.dtype == np.float32
    assert np.allclose(shares, mixed["x"], atol=1e-6)
    assert labels.check(shares, (6, 4)) == labels.SHARES
    with pytest.raises(InputError, match="classes 0 to 3"):
        augment.Mixup(4)({"x": x}, known + 1, np.random.default_rng(0))
