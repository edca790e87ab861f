"""Keras models enter through TensorFlow in a process of its own; without it, one sentence says what to install."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from farrier_contracts.errors import InputError, MissingToolError
from farrier_converters import importers, model
from farrier_converters.graph import run

PYTHON = "FARRIER_TENSORFLOW_PYTHON"
INSTALLED = importlib.util.find_spec("tensorflow") is not None
TRAINED = "mlperf_tiny/benchmark/training/image_classification/trained_models/pretrainedResnet"


@pytest.mark.skipif(INSTALLED, reason="TensorFlow is installed")
@pytest.mark.parametrize("name", ["net.h5", "net.keras", "saved"])
def test_without_tensorflow_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    path = tmp_path / name
    if name == "saved":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"")
    else:
        path.write_bytes(b"")
    with pytest.raises(MissingToolError, match=r"pip install 'farrier\[tensorflow\]'"):
        model.load(path)
    monkeypatch.setenv(PYTHON, sys.executable)
    with pytest.raises(MissingToolError, match="has no TensorFlow"):
        model.load(path)
    monkeypatch.setenv(PYTHON, str(tmp_path / "nowhere"))
    with pytest.raises(MissingToolError, match="cannot be run"):
        model.load(path)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model"):
        model.load(tmp_path / "net.h5")


@pytest.mark.skipif(not (INSTALLED or os.environ.get(PYTHON)), reason="TensorFlow is not installed")
def test_a_keras_file_computes_what_its_tflite_twin_computes(shared_data: Path, tmp_path: Path) -> None:
    keras = importers.read(shared_data / f"{TRAINED}.h5", max_bytes=1 << 30)
    assert keras.check() == ()
    assert [tensor.name for tensor in keras.model.inputs] == ["input_1"]
    twin = model.load(shared_data / f"{TRAINED}.tflite")
    feeds = run.sample(twin)
    (ours,), (theirs,) = run.once(keras.model.proto, feeds), run.once(twin.proto, feeds)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    broken = tmp_path / "broken.h5"
    broken.write_bytes((shared_data / f"{TRAINED}.h5").read_bytes()[:5000])
    with pytest.raises(InputError, match="TensorFlow cannot convert"):
        model.load(broken)
