"""From an ONNX model to a TFLite bundle that the agent runs: arrays go in and come out as the model has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import farrier
from farrier.optimization import Settings, TrialSettings
from farrier_agent.runtime import Runtime
from farrier_converters.graph import run
from farrier_converters.measure import LatencySettings
from farrier_converters.model import load

ASSETS = Path(farrier.__file__).parent / "showcase" / "assets"
QUICK = Settings(
    trial=TrialSettings(
        latency=LatencySettings(rounds=2, most_rounds=2, round_s=0.002),
        profile=LatencySettings(rounds=2, most_rounds=2, round_s=0.002),
    )
)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_agent_answers_as_the_model_does(precision, tmp_path):
    result = farrier.optimize(
        ASSETS / "digits.onnx",
        data=ASSETS / "digits-eval.npz",
        precision=precision,
        engine="litert",
        out=tmp_path / "out",
        settings=QUICK,
    )
    assert result.artifact.suffix == ".tflite"
    assert result.delivered.engine == "litert"
    with np.load(ASSETS / "digits-eval.npz") as rows:
        images, labels = rows["image"][:100], rows["labels"][:100]
    with Runtime(result.bundle) as runtime:
        assert runtime.golden_cases
        (found,) = runtime.infer({"image": images}).values()
        (alone,) = runtime.infer({"image": images[3:4]}).values()
    (wanted,) = run.once(load(ASSETS / "digits.onnx").proto, {"image": images})
    assert (found.argmax(axis=1) == labels).mean() > 0.9
    assert np.abs(found - wanted).max() < {"fp32": 1e-4, "int8": 0.1}[precision] * np.abs(wanted).max()
    np.testing.assert_allclose(alone[0], found[3], atol=1e-5)
