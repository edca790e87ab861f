"""Passes by name, small models, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto


@pytest.fixture(scope="session")
def resnet20(resnet20_proto: onnx.ModelProto) -> Model:
    return from_proto(resnet20_proto, "resnet20")


@pytest.fixture(scope="session")
def apply() -> Callable[..., Model]:
    """Run passes by name, one after the other: apply(model, "clean", ("int8", {...}), context=...)."""

    def call(model: Model, *steps: Any, context: passes.Context = passes.Context()) -> Model:
        for step in steps:
            name, options = (step, {}) if isinstance(step, str) else step
            found = passes.get(name)
            model = found.run(model, found.options(**options), context)
        return model

    return call


@pytest.fixture(scope="session")
def outputs() -> Callable[..., list[np.ndarray]]:
    """Run a model once in ONNX Runtime."""
    return lambda model, feeds: run.once(model.proto, feeds)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Model]:
    """Build a small model: nodes, inputs {name: shape}, outputs, constants {name: array}, opset."""

    def make(
        nodes: Iterable[onnx.NodeProto],
        inputs: dict[str, list[Any]],
        results: Iterable[str],
        *,
        constants: dict[str, np.ndarray] | None = None,
        opset: int = 17,
        dtype: int = TensorProto.FLOAT,
    ) -> Model:
        graph = helper.make_graph(
            list(nodes),
            "test",
            [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, dtype, None) for name in results],
            [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(proto)
        del inferred.graph.value_info[:]
        return from_proto(inferred, "test")

    return make


@pytest.fixture(scope="session")
def integer_kernels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Model], dict[str, int]]:
    """Count the operators that ONNX Runtime really runs, after its own fusions."""

    def count(model: Model) -> dict[str, int]:
        import onnxruntime as ort

        path = tmp_path_factory.mktemp("optimized") / "model.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.log_severity_level = 4
        ort.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found: dict[str, int] = {}
        for node in onnx.load(path).graph.node:
            found[node.op_type] = found.get(node.op_type, 0) + 1
        return found

    return count
