"""Damaged and senseless models through the rules: an answer or one sentence, never anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutants import spoil

from farrier_contracts import targets
from farrier_contracts.errors import FarrierError
from farrier_contracts.targets import ARITHMETICS, Toolchain
from farrier_converters.check import rules
from farrier_converters.check.network import of_tflite
from farrier_converters.check.partitions import crossing_bytes, partition, peak_activation_bytes
from farrier_converters.check.predict import predict
from farrier_converters.check.source import Source
from farrier_converters.model import ModelSettings
from farrier_converters.tflite import schema
from farrier_converters.tflite.file import Operator, Tensor, TfliteFile

SEEDS = ("coral/tools/split_concat.tflite", "coral/keras_lstm_mnist_ptq.tflite")
ROUNDS = 50
DTYPES = ("float32", "int8", "uint8", "int16", "int32", "int64", "bool", "string")


def toolchain(name: str) -> Toolchain:
    arithmetic = ARITHMETICS["xnnpack" if name == "xnnpack" else "integer-npu"]
    return Toolchain("any", "any", "any", ("int8",), arithmetic, rules=name)


def answer(path: Path, name: str) -> str:
    """Predict, and return what came of it; anything but an answer or a sentence is raised."""
    try:
        prediction = predict(Source(path, ModelSettings()), targets.get("null"), toolchain(name))
    except FarrierError as error:
        return "several lines" if "\n" in str(error) else "sentence"
    assert len(prediction.placements) == len(prediction.network.steps)
    assert 0 <= prediction.accelerated.ops <= prediction.possible.ops <= 1
    return "answer"


@pytest.mark.parametrize("seed", SEEDS)
def test_tflite_files_with_wrong_bytes(shared_data: Path, tmp_path: Path, seed: str) -> None:
    content = (shared_data / seed).read_bytes()
    random = np.random.default_rng(11)
    seen = set()
    for _ in range(ROUNDS):
        damaged = bytearray(content)
        for position in random.integers(8, len(content), random.integers(1, 12)):
            damaged[position] = random.integers(256)
        cut = random.integers(len(content) // 2, len(content)) if random.random() < 0.2 else len(content)
        path = tmp_path / "m.tflite"
        path.write_bytes(bytes(damaged[:cut]))
        seen.update(answer(path, name) for name in sorted(rules.OF_TFLITE))
    assert seen == {"answer", "sentence"}


def test_onnx_files_with_wrong_bytes(tmp_path: Path, make_model: Callable[..., Any]) -> None:
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2]),
        onnx.helper.make_node("Reshape", ["b", "s"], ["c"]),
        onnx.helper.make_node("Softmax", ["c"], ["y"]),
    ]
    constants = {"w": np.ones((2, 3, 3, 3), np.float32), "s": np.array([1, -1], np.int64)}
    content = make_model(nodes, {"x": [1, 3, 6, 6]}, ["y"], constants=constants).proto.SerializeToString()
    random = np.random.default_rng(5)
    seen = set()
    for _ in range(ROUNDS):
        damaged = bytearray(content)
        for position in random.integers(0, len(content), random.integers(1, 8)):
            damaged[position] = random.integers(256)
        path = tmp_path / "m.onnx"
        path.write_bytes(bytes(damaged))
        seen.update(answer(path, name) for name in ("onnxruntime", "coreml", "edgetpu"))
    assert seen == {"answer", "sentence"}


def test_graphs_with_wrong_parts(tmp_path: Path, shared_data: Path) -> None:
    """Nodes taken out, doubled and rewired; attributes, shapes, types and constants that contradict the rest."""
    whole = onnx.load(shared_data / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx")
    random = np.random.default_rng(8)
    seen = set()
    for _ in range(ROUNDS):
        proto = onnx.ModelProto()
        proto.CopyFrom(whole)
        spoil(proto, random)
        path = tmp_path / "m.onnx"
        path.write_bytes(proto.SerializeToString())
        name = ("onnxruntime", "coreml", "edgetpu", "xnnpack")[random.integers(4)]
        seen.add(answer(path, name))
    assert seen == {"answer", "sentence"}


@st.composite
def senseless(draw: st.DrawFn) -> TfliteFile:
    """Known operators with any inputs, shapes, types and options: what a reader lets pass, and no kernel does."""
    shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple)
    tensors = []
    for index in range(draw(st.integers(1, 6))):
        shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
        constant = dtype != "string" and draw(st.booleans())
        data = np.full(shape, draw(st.integers(0, 3)), dtype) if constant else None
        scales = np.full(draw(st.integers(0, 2)), draw(st.sampled_from([0.0, 0.5])), np.float32)
        zeros = np.zeros(draw(st.integers(0, 1)), np.int64)
        tensors.append(
            Tensor(
                index,
                "",
                dtype,
                shape,
                shape,
                data,
                scales,
                zeros,
                0,
                variable=draw(st.booleans()),
                sparse=False,
            )
        )
    number = st.integers(-1, len(tensors) - 1)
    made = st.integers(0, len(tensors) - 1)
    listed = sorted({name for rule in rules.OF_TFLITE for name in _operators(rule)})
    operators = []
    for index in range(draw(st.integers(1, 4))):
        op = draw(st.sampled_from(listed))
        options = {key: draw(st.integers(-2, 4)) for key in schema.OPTIONS.get(op, {})}
        inputs, outputs = draw(st.lists(number, max_size=5)), draw(st.lists(made, max_size=2))
        operators.append(Operator(index, op, tuple(inputs), tuple(outputs), options))
    return TfliteFile(tuple(tensors), tuple(operators), (0,), (len(tensors) - 1,))


def _operators(name: str) -> list[str]:
    if name == "edgetpu":
        from farrier_converters.check.rules.edgetpu.table import TABLE

        return list(TABLE.operators)
    return list(rules.of_tflite(name).operators)  # type: ignore[attr-defined]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(senseless())
def test_senseless_operators_get_a_placement(file: TfliteFile) -> None:
    network = of_tflite(file)
    for name in sorted(rules.OF_TFLITE):
        placements = rules.of_tflite(name).place(file)
        assert len(placements) == len(file.operators)
        units = [placement.unit for placement in placements]
        assert sum(len(part.steps) for part in partition(network, units)) == len(units)
        assert crossing_bytes(network, units) >= 0
    assert peak_activation_bytes(network) >= 0


def test_a_long_chain_that_changes_its_unit_at_every_step_takes_no_square_time(
    net: Callable[..., Any],
) -> None:
    g = net()
    x = g.input((1, 4))
    for index in range(4_000):
        x = g.add("LOGISTIC" if index % 2 else "SIN", [x], (1, 4))
    file = g.file()
    network = of_tflite(file)
    units = [placement.unit for placement in rules.of_tflite("ethos-u").place(file)]
    assert len(partition(network, units)) == 4_000
