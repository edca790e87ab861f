"""The Edge TPU's rules against what Google's own compiler made of the same files, and limit by limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_converters.check import rules
from farrier_converters.check.rules.edgetpu.partition import first_partition
from farrier_converters.compilers.edgetpu import COMPILED, left_on_cpu
from farrier_converters.tflite.file import Operator, Tensor, TfliteFile, read

PAIRS = (
    "mobilenet_v1_0.25_128_quant",
    "deeplabv3_mnv2_dm05_pascal_quant",
    "keras_lstm_mnist_ptq",
    "tools/split_concat",
)
IMAGE = (1, 8, 8, 4)


def load(path: Path) -> TfliteFile:
    return read(path, max_bytes=1 << 28)


@pytest.mark.parametrize("name", PAIRS)
def test_the_prediction_is_what_the_compiler_did(shared_data: Path, name: str) -> None:
    original = load(shared_data / "coral" / f"{name}.tflite")
    compiled = load(shared_data / "coral" / f"{name}_edgetpu.tflite")
    assert sum(operator.name == COMPILED for operator in compiled.operators) == 1
    placements = rules.of_tflite("edgetpu").place(original)
    predicted = {index for index, placement in enumerate(placements) if placement.unit == "cpu"}
    assert predicted == left_on_cpu(original, compiled)
    assert all((placement.reason is None) == (placement.unit == "edgetpu") for placement in placements)


def test_every_compiled_file_is_held_against(shared_data: Path) -> None:
    folder = shared_data / "coral"
    found = {
        str(p.relative_to(folder)).removesuffix("_edgetpu.tflite") for p in folder.rglob("*_edgetpu.tflite")
    }
    assert found == set(PAIRS)


@pytest.mark.parametrize(
    "path",
    [
        "coral/mobilenet_v2_1.0_224_quant.tflite",
        "mlperf_tiny/benchmark/training/keyword_spotting/trained_models/kws_ref_model.tflite",
        "mlperf_tiny/benchmark/training/visual_wake_words/trained_models/vww_96_int8.tflite",
    ],
)
def test_quantized_networks_of_plain_convolutions_are_mapped_whole(shared_data: Path, path: str) -> None:
    placements = rules.of_tflite("edgetpu").place(load(shared_data / path))
    assert {placement.unit for placement in placements} == {"edgetpu"}


def test_an_operator_that_nobody_knows_is_refused(shared_data: Path) -> None:
    path = shared_data / "coral" / "invalid_models" / "model_invoking_error.tflite"
    (placement,) = rules.of_tflite("edgetpu").place(load(path))
    assert placement.unit == "cpu"
    assert "fake-op-double" in (placement.reason or "")


def test_a_float_file_has_a_cure(shared_data: Path) -> None:
    path = "mlperf_tiny/benchmark/training/image_classification/trained_models/pretrainedResnet.tflite"
    for placement in rules.of_tflite("edgetpu").place(load(shared_data / path)):
        assert placement.unit == "cpu"
        assert placement.certain
        assert "float32" in (placement.reason or "")
        assert "quantize" in (placement.cure or "")


def one(net: Any, op: str, others: list[Any], result: tuple[int, ...], **options: Any) -> Any:
    """Place one operator on an image; arrays among `others` are constants, tuples further images."""
    shape = options.pop("shape", IMAGE)
    g = net()
    inputs = [g.input(shape)]
    for other in others:
        if isinstance(other, str):
            inputs.append(g.weights(*map(int, other.split("x"))))
        elif isinstance(other, tuple):
            inputs.append(g.input(other))
        else:
            inputs.append(g.constant(other))
    if options.pop("axis_first", False):
        inputs.reverse()
    g.add(op, inputs, result, **options)
    (placement,) = rules.of_tflite("edgetpu").place(g.file())
    return placement


REFUSED: list[tuple[str, str, list[Any], tuple[int, ...], dict[str, Any]]] = [
    ("fourth dimension", "ADD", [(3, 8, 8, 4)], (3, 8, 8, 4), {"shape": (3, 8, 8, 4)}),
    ("fused RELU", "MAX_POOL_2D", [], (1, 4, 4, 4), {"activation": 1}),
    ("block of zeros", "CONCATENATION", ["1x8x8x2"], (1, 8, 8, 6), {"axis": 3}),
    ("are computed", "CONV_2D", [(1, 1, 1, 4)], (1, 8, 8, 1), {"stride_w": 1, "stride_h": 1}),
    ("dilations differ", "CONV_2D", ["4x1x1x4"], IMAGE, {"dilation_w": 1, "dilation_h": 2}),
    ("no LEAKY_RELU", "LEAKY_RELU", [], IMAGE, {"alpha": 0.1}),
    ("number per channel", "PRELU", ["8x8x4"], IMAGE, {}),
    ("no multiple of 4", "MEAN", [[3]], (1, 8, 8, 1), {"shape": (1, 8, 8, 6)}),
    ("along the batch", "REDUCE_MAX", [[0]], (1, 8, 8, 4), {}),
    ("not all 1", "STRIDED_SLICE", [[0] * 4, [1, 8, 8, 4], [1, 2, 1, 1]], (1, 4, 8, 4), {}),
    ("new axis", "STRIDED_SLICE", [[0] * 4, [1, 8, 8, 4], [1] * 4], IMAGE, {"new_axis_mask": 1}),
    ("16000 elements", "SOFTMAX", [], (1, 16_001), {"shape": (1, 16_001)}),
    ("no GATHER", "GATHER", [[0]], (1, 8, 8, 4), {}),
]


@pytest.mark.parametrize(
    ("why", "op", "others", "result", "options"), REFUSED, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_limit_refuses_with_its_reason_and_source(
    net: Callable[..., Any],
    why: str,
    op: str,
    others: list[Any],
    result: tuple[int, ...],
    options: dict[str, Any],
) -> None:
    placement = one(net, op, others, result, **options)
    assert (placement.unit, placement.certain) == ("cpu", True)
    assert why in placement.reason
    assert placement.source


@pytest.mark.parametrize(
    ("why", "op", "others", "result", "options"),
    [
        ("enlarges 16 times", "RESIZE_BILINEAR", [[128, 128]], (1, 128, 128, 4), {}),
        (
            "5242880 bytes",
            "RESIZE_NEAREST_NEIGHBOR",
            [[1024, 1024]],
            (1, 1024, 1024, 5),
            {"shape": (1, 512, 512, 5)},
        ),
        ("640000 bytes", "RESHAPE", [[1, 640000]], (1, 640_000), {"shape": (1, 80, 80, 100)}),
        ("100,000 results", "FULLY_CONNECTED", ["100000x4"], (1, 100_000), {"shape": (1, 4)}),
        ("average", "MEAN", [[1, 2]], (1, 1, 1, 4), {"shape": (1, 256, 128, 4)}),
    ],
)
def test_what_no_document_confirms_is_a_maybe(
    net: Callable[..., Any],
    why: str,
    op: str,
    others: list[Any],
    result: tuple[int, ...],
    options: dict[str, Any],
) -> None:
    placement = one(net, op, others, result, **options)
    assert (placement.unit, placement.certain) == ("cpu", False)
    assert why in placement.reason


@pytest.mark.parametrize(
    ("op", "others", "result", "options"),
    [
        ("TRANSPOSE", [[0, 2, 1, 3]], IMAGE, {}),
        ("SOFTMAX", [], (8, 10), {"shape": (8, 10)}),
        ("FULLY_CONNECTED", ["5x4"], (8, 5), {"shape": (8, 4)}),
        ("RESIZE_BILINEAR", [[32, 32]], (1, 32, 32, 4), {}),
    ],
)
def test_a_doubt_is_no_refusal(
    net: Callable[..., Any], op: str, others: list[Any], result: tuple[int, ...], options: dict[str, Any]
) -> None:
    placement = one(net, op, others, result, **options)
    assert (placement.unit, placement.certain, placement.reason) == ("edgetpu", False, None)
    assert placement.note


def test_an_operator_newer_than_the_compiler_is_a_maybe(net: Callable[..., Any]) -> None:
    g = net()
    g.conv(g.input(IMAGE), 4)
    file = g.file()
    newer = replace(file, operators=(replace(file.operators[0], version=7),))
    (placement,) = rules.of_tflite("edgetpu").place(newer)
    assert (placement.unit, placement.certain) == ("cpu", False)
    assert "after the last compiler" in (placement.reason or "")


def test_what_comes_after_a_refused_operator_names_it(net: Callable[..., Any]) -> None:
    g = net()
    x = g.conv(g.input(IMAGE), 4)
    x = g.add("LEAKY_RELU", [x], IMAGE, alpha=0.1)
    g.conv(x, 4)
    first, middle, last = rules.of_tflite("edgetpu").place(g.file())
    assert (first.unit, middle.unit, last.unit) == ("edgetpu", "cpu", "cpu")
    assert "operator 1 (LEAKY_RELU)" in (last.reason or "")
    assert last.cure == middle.cure


def test_a_branch_beside_a_refused_operator_stays_with_a_doubt(net: Callable[..., Any]) -> None:
    g = net()
    x = g.conv(g.input(IMAGE), 4)
    g.add("LEAKY_RELU", [x], IMAGE, alpha=0.1)
    y = g.conv(x, 4)
    placements = rules.of_tflite("edgetpu").place(g.file(y))
    assert [placement.unit for placement in placements] == ["edgetpu", "cpu", "edgetpu"]
    assert [placement.certain for placement in placements] == [True, True, False]


def test_a_quantization_of_floats_may_come_first(net: Callable[..., Any]) -> None:
    g = net()
    x = g.add("QUANTIZE", [g.input(IMAGE, dtype="float32")], IMAGE)
    x = g.add("DEQUANTIZE", [g.conv(x, 4)], IMAGE, out="float32")
    placements = rules.of_tflite("edgetpu").place(g.file())
    assert [placement.unit for placement in placements] == ["cpu", "edgetpu", "cpu"]


def test_parameters_beyond_the_memory_on_chip_are_said(net: Callable[..., Any]) -> None:
    found = []
    for channels in (500, 2600, 3000):
        g = net()
        g.conv(g.input((1, 1, 1, 3000)), channels)
        file, edgetpu = g.file(), rules.of_tflite("edgetpu")
        found += edgetpu.notes(file, edgetpu.place(file), {})  # type: ignore[attr-defined]
    assert "holds" in found[0]
    assert "may be" in found[1]
    assert "are sent again" in found[2]


def test_activations_beyond_the_memory_on_chip_are_said(net: Callable[..., Any]) -> None:
    edgetpu, found = rules.of_tflite("edgetpu"), []
    for side in (256, 768):
        g = net()
        g.conv(g.input((1, side, side, 8)), 8)
        file = g.file()
        found.append(edgetpu.notes(file, edgetpu.place(file), {})[1:])  # type: ignore[attr-defined]
    assert found[0] == []
    assert "operator 0 (CONV_2D) reads and writes 9.0 MiB" in found[1][0]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[TfliteFile, list[bool]]:
    """Operators that each read some earlier tensors, and which of them can be mapped."""
    count = draw(st.integers(1, 12))
    blank = np.zeros(0, np.float32)
    tensors = tuple(
        Tensor(i, f"t{i}", "int8", (1,), (1,), None, blank, blank, 0, variable=False, sparse=False)
        for i in range(count + 1)
    )
    operators = tuple(
        Operator(i, "ADD", tuple(draw(st.sets(st.integers(0, i), min_size=1, max_size=3))), (i + 1,), {})
        for i in range(count)
    )
    mapped = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return TfliteFile(tensors, operators, (0,), (count,)), mapped


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_the_partition_can_be_one_operator(drawn: tuple[TfliteFile, list[bool]]) -> None:
    """Nothing in it hangs on something outside that hangs on it: else no order of execution would exist."""
    file, mapped = drawn
    chosen = first_partition(file, mapped)
    assert all(mapped[index] for index in chosen)
    assert bool(chosen) == any(mapped)
    tainted: set[int] = set()  # outside, and hanging on the partition
    for operator in file.operators:
        makers = {name - 1 for name in operator.inputs if name > 0}
        if operator.index in chosen:
            assert not makers & tainted
        elif makers & (chosen | tainted):
            tainted.add(operator.index)
