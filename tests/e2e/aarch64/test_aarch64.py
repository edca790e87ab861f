"""Artifacts for ARM in the engines' own ARM builds, under emulation: the outputs are those of this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier_contracts import targets
from farrier_contracts.targets import Toolchain
from farrier_converters import compilers, passes
from farrier_converters.measure import Child, ChildSettings
from farrier_converters.model import Model, from_proto

ARM = targets.ARITHMETICS["arm"]
SLOW = ChildSettings(open_limit_s=240, run_limit_s=240)
ONNX = Toolchain("onnx", "onnx", "onnxruntime", ("fp32", "int8"), ARM)
ORT = Toolchain("ort", "ort", "onnxruntime", ("fp32", "int8"), ARM)
TFLITE = Toolchain("tflite", "tflite", "litert", ("fp32",), ARM)


@pytest.fixture(scope="module")
def network() -> Model:
    rng = np.random.default_rng(11)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)) / 5,
        "b1": rng.standard_normal(8) / 5,
        "w2": rng.standard_normal((8, 1, 3, 3)) / 3,
        "w3": rng.standard_normal((8, 5)) / 3,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Add", ["c2", "r1"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "network"
    )


@pytest.fixture(scope="module")
def integers(network: Model) -> Model:
    rng = np.random.default_rng(12)
    return quantized(network, [rng.standard_normal((8, 3, 16, 16)).astype(np.float32) for _ in range(4)])


FEEDS = {"x": np.random.default_rng(13).standard_normal((2, 3, 16, 16)).astype(np.float32)}


def quantized(model: Model, batches: list[np.ndarray]) -> Model:
    rows = [{model.inputs[0].name: batch} for batch in batches]
    context = passes.Context(arithmetic=ARM, calibration=lambda: iter(rows))
    for name in ("clean", "fuse", "int8"):
        found = passes.get(name)
        model = found.run(model, found.options(), context)
    return model


def both(
    model: Model, toolchain: Toolchain, python: Path, folder: Path, feeds: Mapping[str, np.ndarray] = FEEDS
) -> tuple[np.ndarray, np.ndarray]:
    """The output on this machine, in reference arithmetic, and on an emulated Cortex-A72."""
    made = compilers.get(toolchain.compiler).compile(model, toolchain, folder)
    with Child(made.path, toolchain.engine, options=made.options, reference=True) as here:
        (wanted,) = here.run(feeds).values()
    with Child(made.path, toolchain.engine, SLOW, options=made.options, python=python) as there:
        (found,) = there.run(feeds).values()
    return wanted, found


@pytest.mark.parametrize("toolchain", [ONNX, TFLITE], ids=lambda toolchain: toolchain.engine)
def test_float(toolchain, network, aarch64_python, tmp_path):
    wanted, found = both(network, toolchain, aarch64_python, tmp_path)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("toolchain", [ONNX, ORT], ids=lambda toolchain: toolchain.format)
def test_integers(toolchain, integers, aarch64_python, tmp_path):
    wanted, found = both(integers, toolchain, aarch64_python, tmp_path)
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_a_trained_network(resnet20_proto, cifar10, aarch64_python, tmp_path):
    pictures = cifar10[0]
    float_model = from_proto(resnet20_proto, "resnet20")
    model = quantized(float_model, [pictures[i : i + 16] for i in range(0, 64, 16)])
    feeds = {model.inputs[0].name: pictures[512:520]}
    wanted, found = both(model, ONNX, aarch64_python, tmp_path, feeds)
    assert (found.argmax(1) == wanted.argmax(1)).sum() >= 7
    assert np.abs(found - wanted).mean() < 0.02 * np.abs(wanted).max()


def test_it_is_another_processor(aarch64_python):
    command = [str(aarch64_python), "-I", "-c", "import platform; print(platform.machine())"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "aarch64"
