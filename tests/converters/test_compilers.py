"""Artifacts: what each compiler writes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.errors import InputError, UsageError
from farrier_converters import compilers
from farrier_converters.model import load

FOLLOWING = {"edgetpu", "vela", "tensorrt", "executorch", "coreml", "stablehlo", "torch-export"}


def test_every_compiler_of_the_table_loads():
    for name in compilers.COMPILERS:
        assert callable(compilers.get(name).compile)
    with pytest.raises(UsageError, match="null, onnx"):
        compilers.get("absent")


def test_every_target_names_known_compilers():
    for target in targets.TARGETS.values():
        for toolchain in target.toolchains:
            assert toolchain.compiler in {*compilers.COMPILERS, *FOLLOWING}


def test_onnx_artifact_is_the_model(tmp_path, make_model, outputs):
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 2]}, ["y"])
    toolchain = targets.get("x86-avx2").toolchains[0]
    path = compilers.get(toolchain.compiler).compile(model, toolchain, tmp_path).path
    assert path == tmp_path / "test.onnx"
    feeds = {"x": np.array([[-1, 2]], np.float32)}
    assert outputs(load(path), feeds)[0].tolist() == [[0, 2]]


def test_onnx_runtime_may_refuse(tmp_path, make_model):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    bad = {"w": np.ones((2, 3, 1, 1), np.int64)}
    model = make_model(nodes, {"x": [1, 3, 2, 2]}, ["y"], constants=bad)
    with pytest.raises(InputError, match="cannot load test"):
        compilers.get("onnx").compile(model, targets.get("x86-avx2").toolchains[0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_null_artifact_is_empty(tmp_path, make_model):
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": [2]}, ["y"])
    path = compilers.get("null").compile(model, targets.get("null").toolchains[0], tmp_path).path
    assert path.read_bytes() == b""
