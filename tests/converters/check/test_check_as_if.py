"""A float graph is predicted as it will be built: the same operators in the same places as after quantization."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.targets import Toolchain
from farrier_converters import passes
from farrier_converters.check.predict import Prediction, predict
from farrier_converters.check.source import AS_IF, Source
from farrier_converters.model import Model, ModelSettings, load, save

NETWORKS = {
    "resnet8": "mlperf_tiny/benchmark/training/image_classification/trained_models/pretrainedResnet.tflite",
    "keywords": "mlperf_tiny/benchmark/training/keyword_spotting/trained_models/kws_ref_model_float32.tflite",
    "anomaly": "mlperf_tiny/benchmark/training/anomaly_detection/trained_models/ad01_fp32.tflite",
    "faces": "ultraface/models/onnx/version-RFB-320.onnx",
}


def toolchain(name: str) -> Toolchain:
    return next(t for t in targets.get(name).toolchains if t.format == "tflite")


def quantized(model: Model, chain: Toolchain) -> Model:
    """Quantize as `farrier optimize` does, calibrated on noise."""
    (end,) = model.inputs
    feeds = {
        end.name: np.random.default_rng(1).normal(size=[max(s, 1) for s in end.shape]).astype(np.float32)
    }
    context = passes.Context(arithmetic=chain.arithmetic, calibration=lambda: iter([feeds]))
    for name, options in (
        ("clean", {}),
        ("fuse", {}),
        ("int8", {"method": "minmax", "bias_correction": False}),
    ):
        step = passes.get(name)
        model = step.run(model, step.options(**options), context)
    return model


def asked(path: Path, target: str, chain: Toolchain) -> Prediction:
    return predict(Source(path, ModelSettings()), targets.get(target), chain)


def rows(prediction: Prediction) -> list[tuple[str, str, bool]]:
    steps = zip(prediction.network.steps, prediction.placements, strict=True)
    return [(step.op, placement.unit, placement.reason is None) for step, placement in steps]


@pytest.mark.parametrize("target", ["coral-usb", "raspberry-pi-4"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_prediction_before_and_after_quantization(
    shared_data: Path, tmp_path: Path, network: str, target: str
) -> None:
    model, chain = load(shared_data / NETWORKS[network]), toolchain(target)
    before, after = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    save(model, before)
    save(quantized(model, chain), after)
    float_answer, int8_answer = asked(before, target, chain), asked(after, target, chain)
    assert (float_answer.as_if, int8_answer.as_if) == (True, False)
    assert AS_IF in float_answer.notes
    assert rows(float_answer) == rows(int8_answer)
    assert float_answer.network.parameter_bytes == pytest.approx(
        int8_answer.network.parameter_bytes, rel=0.02
    )


def test_an_old_operator_set_is_raised_without_a_run(tmp_path: Path, make_model: Callable[..., Any]) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    weights = {"w": np.ones((4, 3, 3, 3), np.float32)}
    path = tmp_path / "old.onnx"
    onnx.save(make_model(nodes, {"x": [1, 3, 8, 8]}, ["y"], constants=weights, opset=9).proto, path)
    answer = asked(path, "coral-usb", toolchain("coral-usb"))
    assert rows(answer) == [("CONV_2D", "edgetpu", True)]
