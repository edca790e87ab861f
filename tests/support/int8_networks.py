"""Networks that we quantize and lower to INT8 TFLite ourselves; calibrated on noise, for kernels do not care."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farrier_contracts.targets import ARITHMETICS, INTEGERS, Arithmetic
from farrier_converters import passes
from farrier_converters.compilers.tflite import Lowered, lower_model
from farrier_converters.model import Model, load

TRAINING = "mlperf_tiny/benchmark/training"
FILES = {
    "ultraface": "ultraface/models/onnx/version-RFB-320.onnx",
    "resnet8": f"{TRAINING}/image_classification/trained_models/pretrainedResnet.tflite",
    "vww": f"{TRAINING}/visual_wake_words/trained_models/vww_96_float.tflite",
    "ad": f"{TRAINING}/anomaly_detection/trained_models/ad01_fp32.tflite",
}
NAMES = (*FILES, "resnet20")


def ours(name: str, arithmetic: str, data: Path, resnet20: Model) -> Lowered:
    """Return a file for the arithmetic of this name: with float ends, or with integers from end to end."""
    model = resnet20 if name == "resnet20" else load(data / FILES[name])
    integers = ARITHMETICS[arithmetic]
    return lower_model(_quantized(model, integers), integer_ends=integers.quantizers == INTEGERS)


def _quantized(model: Model, arithmetic: Arithmetic) -> Model:
    (spec,) = model.inputs
    rng = np.random.default_rng(7)
    feeds = {spec.name: rng.normal(size=(1, *spec.shape[1:])).astype(np.float32)}
    context = passes.Context(arithmetic, lambda: iter([feeds]))
    quick = {"method": "minmax", "bias_correction": False}
    for name, options in (("clean", {}), ("fuse", {}), ("int8", quick)):
        step = passes.get(name)
        model = step.run(model, step.options(**options), context)
    return model
