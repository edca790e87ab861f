"""Compiled artifacts beside ONNX Runtime, in whatever environment has the tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.targets import Toolchain
from farrier_converters import compilers, passes, tools
from farrier_converters.measure import Child
from farrier_converters.model import Model

Outputs = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def tool() -> Callable[[str], None]:
    """Skip where a tool is in no Python here."""

    def need(name: str) -> None:
        if tools.missing(name):
            pytest.skip(f"{tools.get(name).title} is not installed: make tools/{name}")

    return need


@pytest.fixture
def compiled_outputs(tmp_path: Path) -> Callable[..., Outputs]:
    """Compile a model and run the artifact once in its engine."""

    def run(model: Model, toolchain: Toolchain, feeds: Mapping[str, np.ndarray]) -> Outputs:
        folder = tmp_path / "artifact"
        folder.mkdir(exist_ok=True)
        made = compilers.get(toolchain.compiler).compile(model, toolchain, folder)
        with Child(made.path, toolchain.engine, options=made.options) as child:
            return child.run(feeds)

    return run


@pytest.fixture(scope="session")
def runtime_outputs(outputs: Callable[..., list[np.ndarray]]) -> Callable[..., Outputs]:
    """Run a model once in ONNX Runtime; outputs by name."""
    return lambda model, feeds: dict(
        zip([spec.name for spec in model.outputs], outputs(model, feeds), strict=True)
    )


@pytest.fixture(scope="session")
def small(make_model: Callable[..., Model]) -> Model:
    """A network of every form of product: convolutions, a Gemm, and MatMuls with stored weights."""
    rng = np.random.default_rng(5)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Add", ["c2", "r1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
        helper.make_node("Shape", ["g"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["g", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["m"]),
        helper.make_node("Add", ["m", "b3"], ["h"]),
        helper.make_node("Relu", ["h"], ["r3"]),
        helper.make_node("Gemm", ["r3", "w4", "b4"], ["y"], transB=1),
    ]
    constants = {
        "w1": weights(8, 3, 3, 3),
        "b1": weights(8, 1).reshape(-1),
        "w2": weights(8, 1, 3, 3),
        "zero": np.array([0], np.int64),
        "rest": np.array([8], np.int64),
        "w3": weights(8, 16),
        "b3": weights(16, 1).reshape(-1),
        "w4": weights(5, 16),
        "b4": weights(5, 1).reshape(-1),
    }
    return make_model(nodes, {"x": ["n", 3, 12, 12]}, ["y"], constants=constants)


@pytest.fixture(scope="session")
def small_int8(small: Model, apply: Callable[..., Model]) -> Model:
    """The network in signed 8-bit activations and weights."""
    rng = np.random.default_rng(6)
    rows = [{"x": rng.standard_normal((8, 3, 12, 12)).astype(np.float32)} for _ in range(4)]
    context = passes.Context(arithmetic=targets.ARITHMETICS["arm"], calibration=lambda: iter(rows))
    return apply(small, "clean", "fuse", "int8", context=context)


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    """Three rows for the network."""
    return {"x": np.random.default_rng(7).standard_normal((3, 3, 12, 12)).astype(np.float32)}
