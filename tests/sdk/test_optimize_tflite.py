"""`farrier optimize` on float TFLite files: what a report says of the import."""

from __future__ import annotations

from pathlib import Path

from farrier.optimization.job import Settings, prepare
from farrier_converters.search import Budget

TRAINING = "mlperf_tiny/benchmark/training"


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
