"""`farrier optimize` on float TFLite files: the example that quantizes a Keras network, and what a report says."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from farrier.optimization.job import Settings, prepare
from farrier_converters.search import Budget

ROOT = Path(__file__).resolve().parents[2]
TRAINING = "mlperf_tiny/benchmark/training"


def test_the_keras_example_delivers_integers(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("keras_model", ROOT / "examples" / "keras_model.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    network = shared_data / TRAINING / "image_classification/trained_models/pretrainedResnet.tflite"
    pictures = shared_data / "cifar10_jpg" / "cifar10_jpg_train_10000.zip"
    out = tmp_path / "out"
    monkeypatch.setattr(
        sys, "argv", ["keras_model", str(network), str(pictures), str(out), "--pictures", "400"]
    )
    example.main()
    report = json.loads((out / "report.json").read_text())
    candidates = {entry["name"]: entry for entry in report["candidates"]}
    assert candidates["original"]["metric"]["value"] > 0.7
    assert candidates["int8"]["bytes"] < candidates["original"]["bytes"] / 3
    assert abs(candidates["int8"]["drop"]) <= 0.02
    assert "delivered" in capsys.readouterr().out


def test_a_report_says_what_an_import_could_not_keep(shared_data: Path) -> None:
    hybrid = shared_data / TRAINING / "keyword_spotting/trained_models/kws_ref_model_float32.tflite"
    job = prepare(
        hybrid,
        target_name="host",
        data_path=None,
        calib_path=None,
        metric_name=None,
        budget=Budget(),
        recipe_path=None,
        settings=Settings(),
    )
    assert any("stored with 8 bits" in warning for warning in job.warnings)
    assert any("differs from LiteRT's by up to" in warning for warning in job.warnings)
