"""Data files from strangers: what fits is read, what does not is one sentence."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import TensorSpec
from farrier_converters import data, npz

IMAGE = TensorSpec("image", "FP32", (-1, 2, 3))
FIXED = TensorSpec("image", "FP32", (1, 2, 3))
RATE = TensorSpec("rate", "INT64", ())


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        path = tmp_path / "d.npz"
        np.savez(path, **arrays)
        return path

    return write


def images(rows, dtype=np.float32):
    return np.arange(rows * 6, dtype=dtype).reshape(rows, 2, 3)


@pytest.mark.parametrize("spec", [IMAGE, FIXED])
def test_every_row_comes_back_in_order(save, spec):
    rows = data.load(save(image=images(7), labels=np.arange(7), rate=np.int64(16000)), [spec, RATE])
    size = rows.fixed_batch or 3
    got, seen = [], []
    for feeds, index in rows.batches(size):
        assert feeds["rate"] == 16000
        assert feeds["rate"].shape == ()
        got.append(feeds["image"][: len(index)])
        seen += index.tolist()
    assert np.array_equal(np.concatenate(got), images(7))
    assert np.array_equal(rows.labels[seen], np.arange(7))


def test_a_fixed_batch_is_padded_and_its_padding_not_counted(save):
    rows = data.load(save(image=images(8)), [TensorSpec("image", "FP32", (4, 2, 3))])
    assert rows.fixed_batch == 4
    rows = rows.take(np.arange(6))
    batches = list(rows.batches(4))
    assert [len(index) for _, index in batches] == [4, 2]
    assert all(feeds["image"].shape == (4, 2, 3) for feeds, _ in batches)


def test_a_complete_input_per_row_is_run_row_by_row(save):
    rows = data.load(
        save(state=np.zeros((5, 2, 1, 4), np.float32)), [TensorSpec("state", "FP32", (2, -1, 4))]
    )
    assert rows.fixed_batch == 1
    assert [feeds["state"].shape for feeds, _ in rows.batches(1)] == [(2, 1, 4)] * 5


def test_whole_numbers_become_floats_and_it_is_said(save):
    rows = data.load(save(image=images(2, np.uint8)), [IMAGE])
    assert rows.feed(rows.rows)["image"].dtype == np.float32
    assert "uint8" in rows.notes[0]


def with_nan():
    array = images(3)
    array[1, 0, 0] = np.nan
    return array


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"picture": images(2)}, ["image", "picture"]),
        ({"image": np.zeros((2, 5), np.float32)}, ["shape", "(any, 2, 3)"]),
        ({"image": images(2).astype(np.complex64)}, ["complex64", "float32"]),
        ({"image": images(2), "labels": np.arange(3)}, ["number of rows", "labels 3"]),
        ({"image": images(2), "labels": np.int64(3)}, ["labels", "single value"]),
        ({"image": with_nan()}, ["row 1", "NaN"]),
        ({"image": images(0)}, ["no rows"]),
        ({"image": np.array([{}, []], dtype=object)}, ["Python objects"]),
    ],
)
def test_what_does_not_fit_is_one_sentence(save, arrays, words):
    with pytest.raises(InputError) as caught:
        data.load(save(**arrays), [IMAGE])
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert all(word in sentence for word in words), sentence


def test_values_that_the_model_cannot_hold(save):
    with pytest.raises(InputError, match="int32"):
        data.load(save(ids=np.array([[1 << 40]])), [TensorSpec("ids", "INT32", (-1, 1))])


def test_files_that_are_no_npz(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    for name in ("absent.npz", "text.npz", "empty.npz", ""):
        with pytest.raises(InputError):
            data.load(tmp_path / name, [IMAGE])


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(save, cut):
    path = save(image=images(50))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with pytest.raises(InputError):
        data.load(path, [IMAGE])


def test_sizes_are_bounded(save):
    path = save(image=images(50))
    with pytest.raises(InputError, match="more than"):
        npz.read(path, npz.NpzSettings(max_array_bytes=100))


def test_large_arrays_are_mapped_not_loaded(save):
    arrays = npz.read(save(image=images(50)), npz.NpzSettings(map_above_bytes=100))
    assert isinstance(arrays["image"], np.memmap)
    assert np.array_equal(arrays["image"], images(50))


@given(rows=st.integers(1, 300), seed=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_calibration_rows_are_never_evaluated_unless_there_are_too_few(rows, seed):
    options = data.DataSettings(seed=seed)
    whole = data.from_arrays({"image": images(rows)}, [IMAGE], source=Path("d.npz"))
    split = data.split(whole, None, options)
    again = data.split(whole, None, options)
    assert np.array_equal(split.calibration.rows, again.calibration.rows)
    shared = set(split.calibration.rows) & set(split.evaluation.rows)
    if rows < options.split_from_rows:
        assert split.notes
    else:
        assert not shared
        assert len(split.calibration) + len(split.evaluation) == rows


def test_npz_bytes_depend_on_the_arrays_alone():
    one = npz.to_bytes({"b": images(2), "a": np.float32(1)})
    assert one == npz.to_bytes({"a": np.float32(1), "b": images(2)})
    assert one != npz.to_bytes({"a": np.float32(2), "b": images(2)})
