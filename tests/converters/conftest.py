"""Real models for the tests of passes: a ResNet20 rebuilt from its checkpoint, and CIFAR-10 pictures."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto

ROOT = Path(__file__).resolve().parents[2]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICTURES = 1_512  # per seed: 512 to calibrate, 1,000 to evaluate


@pytest.fixture(scope="session")
def resnet20_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("resnet20", ROOT / "examples" / "resnet20.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def resnet20(shared_data: Path, resnet20_script: ModuleType) -> Model:
    checkpoint = shared_data / "resnet_cifar10_pth" / "pretrained_models" / "resnet20-12fca82f.th"
    return from_proto(resnet20_script.build(resnet20_script.read_checkpoint(checkpoint)), "resnet20")


@pytest.fixture(scope="session")
def cifar10(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seeded pictures, normalised, [PICTURES, 3, 32, 32] float32, and their labels."""
    from PIL import Image

    with zipfile.ZipFile(shared_data / "cifar10_jpg" / "cifar10_jpg_train_10000.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        chosen = np.random.default_rng(7).permutation(len(names))[:PICTURES]
        pictures, labels = [], []
        for index in chosen:
            with Image.open(io.BytesIO(archive.read(names[index]))) as image:
                pictures.append(np.asarray(image.convert("RGB"), np.float64) / 255)
            labels.append(classes.index(names[index].split("/")[1]))
    normalised = (np.stack(pictures) - MEAN) / STD
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32), np.array(labels)


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
