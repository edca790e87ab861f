"""XNNPACK's rules against what LiteRT itself hands to XNNPACK: whole models, and operators one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farrier_converters.check import rules
from farrier_converters.tflite.file import TfliteFile, read
from farrier_converters.tflite.write import write

interpreter = pytest.importorskip("ai_edge_litert.interpreter")

IMAGE = (1, 6, 8, 4)
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


POOL = {"filter_w": 2, "filter_h": 2, "stride_w": 2, "stride_h": 2}
UNIT = {"stride_w": 1, "stride_h": 1}
# operator, constants behind the image (a string is the shape of weights, a tuple a further image), result, options
CASES: list[tuple[str, list[Any], tuple[int, ...], dict[str, Any]]] = [
    ("ADD", [IMAGE], IMAGE, {}),
    ("SUB", [IMAGE], IMAGE, {"activation": 1}),
    ("MUL", ["4"], IMAGE, {}),
    ("DIV", [IMAGE], IMAGE, {}),
    ("MAXIMUM", [IMAGE], IMAGE, {}),
    ("MINIMUM", [IMAGE], IMAGE, {}),
    ("SQUARED_DIFFERENCE", [IMAGE], IMAGE, {}),
    ("CONV_2D", ["5x3x3x4", 5], (1, 6, 8, 5), UNIT),
    ("DEPTHWISE_CONV_2D", ["1x3x3x4", 4], IMAGE, {**UNIT, "multiplier": 1}),
    ("AVERAGE_POOL_2D", [], (1, 3, 4, 4), POOL),
    ("MAX_POOL_2D", [], (1, 3, 4, 4), POOL),
    ("MAX_POOL_2D", [], (1, 3, 4, 4), {**POOL, "filter_w": 1, "filter_h": 1}),
    ("CONCATENATION", [IMAGE], (1, 6, 8, 8), {"axis": 3}),
    ("CONCATENATION", [IMAGE] * 4, (1, 6, 8, 20), {"axis": 3}),
    ("CONCATENATION", [IMAGE] * 5, (1, 6, 8, 24), {"axis": 3}),
    ("MEAN", [[1, 2]], (1, 1, 1, 4), {"keep_dims": 1}),
    ("MEAN", [[3]], (1, 6, 8), {}),
    ("SUM", [[1, 2]], (1, 4), {}),
    ("REDUCE_MAX", [[2]], (1, 6, 4), {}),
    ("RESHAPE", [[1, 192]], (1, 192), {}),
    ("SQUEEZE", [], (6, 8, 4), {"axes": [0]}),
    ("EXPAND_DIMS", [[1]], (1, 1, 6, 8, 4), {}),
    ("PAD", [[[0, 0], [1, 1], [1, 1], [0, 0]]], (1, 8, 10, 4), {}),
    ("MIRROR_PAD", [[[0, 0], [1, 1], [1, 1], [0, 0]]], (1, 8, 10, 4), {}),
    ("RESIZE_BILINEAR", [[12, 16]], (1, 12, 16, 4), {"half_pixel": 1}),
    ("RESIZE_NEAREST_NEIGHBOR", [[12, 16]], (1, 12, 16, 4), {}),
    ("TRANSPOSE", [[0, 2, 1, 3]], (1, 8, 6, 4), {}),
    ("SLICE", [[0, 1, 2, 0], [1, 3, 4, 4]], (1, 3, 4, 4), {}),
    ("STRIDED_SLICE", [[0, 1, 2, 0], [1, 4, 6, 4], [1, 1, 1, 1]], (1, 3, 4, 4), {}),
    ("STRIDED_SLICE", [[0, 1, 2, 0], [1, 5, 6, 4], [1, 2, 1, 1]], (1, 2, 4, 4), {}),
    ("STRIDED_SLICE", [[0, 1, 2, 0], [1, 4, 6, 4], [1, 1, 1, 1]], (1, 4, 4), {"shrink_axis_mask": 2}),
    ("GATHER", [[0, 1]], (1, 6, 8, 2), {"axis": 3}),
    ("SPACE_TO_DEPTH", [], (1, 3, 4, 16), {"block": 2}),
    ("DEPTH_TO_SPACE", [], (1, 12, 16, 1), {"block": 2}),
    ("LOGISTIC", [], IMAGE, {"scale": 1 / 256}),
    ("TANH", [], IMAGE, {"scale": 1 / 128}),
    ("RELU", [], IMAGE, {}),
    ("RELU6", [], IMAGE, {}),
    ("ELU", [], IMAGE, {}),
    ("HARD_SWISH", [], IMAGE, {}),
    ("LEAKY_RELU", [], IMAGE, {"alpha": 0.1}),
    ("LEAKY_RELU", [], IMAGE, {"alpha": 0.001}),
    ("GELU", [], IMAGE, {}),
    ("EXP", [], IMAGE, {}),
    ("PRELU", ["4"], IMAGE, {}),
    ("ARG_MAX", [3], (1, 6, 8), {"out": "int32", "type": 2}),
]


def single(net: Any, case: tuple[str, list[Any], tuple[int, ...], dict[str, Any]]) -> TfliteFile:
    op, others, result, options = case
    inputs = [net.input(IMAGE)]
    for other in others:
        if isinstance(other, str):
            inputs.append(net.weights(*map(int, other.split("x"))))
        elif isinstance(other, tuple):
            inputs.append(net.input(other))
        elif isinstance(other, int) and op != "ARG_MAX":
            inputs.append(net.bias(other))
        else:
            inputs.append(net.constant(other))
    net.add(op, inputs, result, **options)
    return net.file()


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_operators_one_by_one(net: Callable[..., Any], dtype: str) -> None:
    """LiteRT refuses some of these files altogether, in 8 bits; what it loads, it loads as predicted."""
    loaded = 0
    for case in CASES:
        file = single(net(dtype), case)
        try:
            truth = delegated(file, write(file))
        except (RuntimeError, ValueError):
            continue
        loaded += 1
        assert predicted(file) == truth, f"{case[0]} {case[3]} in {dtype}: LiteRT gives {truth} to XNNPACK"
    assert loaded >= 0.85 * len(CASES)
