"""Segments of a network: legal cuts, balance, and a chain that computes what the whole does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.check.pipeline import plan
from farrier_converters.tflite.file import Operator, Tensor, TfliteFile, read
from farrier_converters.tflite.segments import balanced, cut
from farrier_converters.tflite.write import write

IMAGE = (1, 8, 8, 4)


def run(content: bytes, feeds: list[np.ndarray]) -> list[np.ndarray]:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    engine = interpreter.Interpreter(model_content=content)
    engine.allocate_tensors()
    for detail, value in zip(engine.get_input_details(), feeds, strict=True):
        engine.set_tensor(detail["index"], value)
    engine.invoke()
    return [engine.get_tensor(detail["index"]) for detail in engine.get_output_details()]


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("coral/mobilenet_v1_0.25_128_quant.tflite", 3),
        ("coral/mobilenet_v2_1.0_224_quant.tflite", 4),
        ("coral/keras_lstm_mnist_ptq.tflite", 4),
        ("coral/tools/split_concat.tflite", 2),
        ("mlperf_tiny/benchmark/training/keyword_spotting/trained_models/kws_ref_model.tflite", 3),
        (
            "mlperf_tiny/benchmark/training/image_classification/trained_models/pretrainedResnet_quant.tflite",
            2,
        ),
        ("mlperf_tiny/benchmark/training/visual_wake_words/trained_models/vww_96_int8.tflite", 4),
    ],
)
def test_the_chain_computes_what_the_whole_does(shared_data: Path, path: str, parts: int) -> None:
    content = (shared_data / path).read_bytes()
    file = read(shared_data / path, max_bytes=1 << 28)
    planned = plan(file, parts)
    segments = cut(file, [segment.first for segment in planned])
    assert len(segments) == parts
    assert sum(len(segment.operators) for segment in segments) == len(file.operators)
    assert [s.last + 1 for s in planned[:-1]] == [s.first for s in planned[1:]]
    random = np.random.default_rng(3)
    for _ in range(2):
        shapes = [(file.tensors[i].shape, np.dtype(file.tensors[i].dtype)) for i in file.inputs]
        feeds = [random.integers(np.iinfo(t).min, np.iinfo(t).max + 1, s, t) for s, t in shapes]
        values = feeds
        for segment in segments:
            values = run(write(segment), values)
        for ours, whole in zip(values, run(content, feeds), strict=True):
            assert ours.dtype == whole.dtype
            np.testing.assert_array_equal(ours, whole)


@st.composite
def graphs(draw: st.DrawFn) -> TfliteFile:
    """Operators that each read some earlier tensors; the last one makes the output."""
    count = draw(st.integers(1, 9))
    blank = np.zeros(0, np.float32)
    tensors = tuple(
        Tensor(i, f"t{i}", "int8", (1,), (1,), None, blank, blank, 0, variable=False, sparse=False)
        for i in range(count + 1)
    )
    read = st.integers(0, count - 1)
    operators = tuple(
        Operator(i, "ADD", tuple({min(i, draw(read)), max(0, i - draw(st.integers(0, 2)))}), (i + 1,), {})
        for i in range(count)
    )
    return TfliteFile(tensors, operators, (0,), (count,))


def legal(file: TfliteFile, starts: tuple[int, ...]) -> bool:
    """Say whether each segment reads nothing but what the one before it makes: straight from the definition."""
    bounds = [*starts, len(file.operators)]
    home = {
        name: k
        for k in range(len(starts))
        for o in file.operators[bounds[k] : bounds[k + 1]]
        for name in o.outputs
    }
    for k in range(len(starts)):
        for operator in file.operators[bounds[k] : bounds[k + 1]]:
            if any(home.get(name, -1 if k == 0 else -2) not in (k, k - 1) for name in operator.inputs):
                return False
    return True


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(1, 4), st.lists(st.integers(0, 20), min_size=9, max_size=9))
def test_cuts_are_the_best_of_all_legal_ones(file: TfliteFile, parts: int, weights: list[int]) -> None:
    count = len(file.operators)

    def cost(start: int, stop: int) -> float:
        return float(sum(weights[start:stop]))

    def dearest(starts: tuple[int, ...]) -> float:
        return max(cost(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True))

    choices = [(0, *rest) for rest in combinations(range(1, count), parts - 1)]
    possible = [dearest(starts) for starts in choices if legal(file, starts)]
    if not possible:
        with pytest.raises(UsageError, match="cannot be cut"):
            balanced(file, parts, cost)
        return
    found = tuple(balanced(file, parts, cost))
    assert legal(file, found)
    assert dearest(found) == min(possible)


def chain(net: Callable[..., Any], convolutions: int) -> TfliteFile:
    g = net()
    x = g.input(IMAGE)
    for _ in range(convolutions):
        x = g.conv(x, 4)
    return g.file()


def test_measured_times_count_instead_of_predicted_ones(net: Callable[..., Any]) -> None:
    file = chain(net, 4)
    assert [s.first for s in plan(file, 2)] == [0, 2]
    assert [s.first for s in plan(file, 2, measured=[9.0, 1.0, 1.0, 1.0])] == [0, 1]
    with pytest.raises(UsageError, match="3 times for 4 operators"):
        plan(file, 2, measured=[1.0] * 3)


def test_parameters_beyond_the_chip_pull_the_cut(net: Callable[..., Any]) -> None:
    """Two dense layers of equal work fit on two chips, not on one."""
    g = net()
    x = g.input((1, 2000))
    for _ in range(2):
        x = g.add("FULLY_CONNECTED", [x, g.weights(2000, 2000), g.bias(2000)], (1, 2000))
    first, second = plan(g.file(), 2)
    (alone,) = plan(g.file(), 1)
    assert (first.last, second.first) == (0, 1)
    assert alone.seconds > first.seconds + second.seconds


def test_a_tensor_that_skips_a_segment_is_no_legal_cut(net: Callable[..., Any]) -> None:
    g = net()
    a = g.conv(g.input(IMAGE), 4)
    b = g.conv(g.conv(a, 4), 4)
    g.add("ADD", [a, b], IMAGE)
    starts = [segment.first for segment in plan(g.file(), 2, measured=[1.0, 1.0, 1.0, 9.0])]
    assert starts in ([0, 1], [0, 2], [0, 3])
    with pytest.raises(UsageError, match="4 segments"):
        plan(g.file(), 4)


@pytest.mark.parametrize("parts", [0, -1])
def test_a_number_of_segments_is_checked(net: Callable[..., Any], parts: int) -> None:
    with pytest.raises(UsageError, match="1 segment or more"):
        plan(chain(net, 2), parts)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("coral/deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite", "operator 0 .*options"),
        (
            "tflite_micro/tensorflow/lite/micro/examples/micro_speech/models/audio_preprocessor_int8.tflite",
            "options",
        ),
    ],
)
def test_what_was_not_read_is_not_written(shared_data: Path, path: str, why: str) -> None:
    file = read(shared_data / path, max_bytes=1 << 28)
    with pytest.raises(InputError, match=why):
        cut(file, [0, len(file.operators) // 2])
