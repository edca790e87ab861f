"""XNNPACK's rules against what LiteRT itself hands to XNNPACK: whole models, and operators one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farrier_converters.check import rules
from farrier_converters.tflite.file import TfliteFile, read
from farrier_converters.tflite.write import write

interpreter = pytest.importorskip("ai_edge_litert.interpreter")

DELEGATE = "DELEGATE"


def delegated(file: TfliteFile, content: bytes) -> set[int]:
    """Return the operators that LiteRT replaces by XNNPACK: those between a delegate's inputs and outputs."""
    engine = interpreter.Interpreter(model_content=content)
    engine.allocate_tensors()
    makers = {name: operator for operator in file.operators for name in operator.outputs}
    found: set[int] = set()
    for node in engine._get_ops_details():
        if node["op_name"] != DELEGATE:
            continue
        given, wanted = {int(i) for i in node["inputs"]}, [int(i) for i in node["outputs"]]
        while wanted:
            maker = makers.get(wanted.pop())
            if maker is not None and maker.index not in found:
                found.add(maker.index)
                wanted += [name for name in maker.inputs if name not in given]
    return found


def predicted(file: TfliteFile) -> set[int]:
    placements = rules.of_tflite("xnnpack").place(file)
    return {index for index, placement in enumerate(placements) if placement.unit == "xnnpack"}


@pytest.mark.parametrize(
    "path",
    [
        "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite",
        "coral/mobilenet_v1_0.25_128_quant.tflite",
        "coral/keras_lstm_mnist_ptq.tflite",
        "coral/tools/split_concat.tflite",
        "mlperf_tiny/benchmark/training/keyword_spotting/trained_models/kws_ref_model.tflite",
        "mlperf_tiny/benchmark/training/keyword_spotting/trained_models/kws_ref_model_float32.tflite",
        "mlperf_tiny/benchmark/training/image_classification/trained_models/pretrainedResnet_quant.tflite",
        "mlperf_tiny/benchmark/training/anomaly_detection/trained_models/ad01_int8.tflite",
        "tflite_micro/tensorflow/lite/micro/examples/mnist_lstm/trained_lstm.tflite",
        "tflite_micro/tensorflow/lite/micro/examples/micro_speech/models/micro_speech_quantized.tflite",
        "ultraface/tflite/pretrained/version-RFB-320_without_postprocessing.tflite",
    ],
)
def test_the_prediction_is_what_litert_does(shared_data: Path, path: str) -> None:
    file = read(shared_data / path, max_bytes=1 << 28)
    assert predicted(file) == delegated(file, (shared_data / path).read_bytes())


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_operators_one_by_one(single_operators: Callable[[str], list[TfliteFile]], dtype: str) -> None:
    """LiteRT refuses some of these files altogether, in 8 bits; what it loads, it loads as predicted."""
    loaded = 0
    files = single_operators(dtype)
    for file in files:
        try:
            truth = delegated(file, write(file))
        except (RuntimeError, ValueError):
            continue
        loaded += 1
        assert predicted(file) == truth, f"{file.operators[0]} in {dtype}: LiteRT gives {truth} to XNNPACK"
    assert loaded >= 0.85 * len(files)
