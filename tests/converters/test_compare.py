"""Layer by layer: which tensors belong together, whose error is whose, and that memory does not grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from farrier_contracts.targets import Arithmetic
from farrier_converters import data, passes
from farrier_converters.compare import CompareSettings, drop_report
from farrier_converters.graph.compact.shrink import shrink
from farrier_converters.graph.edit import Graph
from farrier_converters.model import Model, from_proto

FEW = CompareSettings(rows=24, batch=8)


@pytest.fixture(scope="module")
def pictures(resnet20: Model, cifar10) -> data.Dataset:
    return data.from_arrays({"images": cifar10[0][:32]}, resnet20.inputs, source=Path("cifar10"))


@pytest.fixture(scope="module")
def quantized(resnet20: Model, pictures: data.Dataset, apply) -> Model:
    context = passes.Context(Arithmetic("u8"), lambda: (feeds for feeds, _ in pictures.batches(16)))
    return apply(resnet20, "clean", "fuse", "int8", context=context)


def test_equal_models_are_equal_everywhere(resnet20: Model, pictures: data.Dataset) -> None:
    report = drop_report(resnet20, resnet20, pictures, settings=FEW).to_document()
    assert {layer["snr_db"] for layer in report["layers"]} == {150.0}
    assert report["causes"] == []


def test_every_quantized_layer_is_found(resnet20: Model, quantized: Model, pictures: data.Dataset) -> None:
    report = drop_report(resnet20, quantized, pictures, settings=FEW)
    document = report.to_document()
    convolutions = [node.name for node in quantized.proto.graph.node if node.op_type == "Conv"]
    assert set(convolutions) <= {layer["layer"] for layer in document["layers"]}
    assert 20 < report.snr_db < 50
    assert abs(sum(layer["share"] for layer in document["layers"]) - 1) < 0.01
    for layer in document["layers"]:
        assert layer["own_snr_db"] > 25  # each layer alone is right to 8 bits
    here = [c for c in document["causes"] if c["cause"] != "16-bit saturation"]
    assert [c for c in here if c["weight"] > 0.3] == []


def test_a_file_without_long_names_is_compared_alike(
    resnet20: Model, quantized: Model, pictures: data.Dataset
) -> None:
    whole, short = (
        drop_report(resnet20, m, pictures, settings=FEW).to_document() for m in (quantized, shrink(quantized))
    )
    assert [(x["tensor"], x["snr_db"]) for x in whole["layers"]] == [
        (x["tensor"], x["snr_db"]) for x in short["layers"]
    ]


def test_a_layers_own_error_is_told_from_what_it_inherits(
    resnet20: Model, quantized: Model, pictures: data.Dataset
) -> None:
    graph = Graph(quantized)
    node = next(n for n in graph.nodes if n.name == "layer2.1.conv1")
    weights = graph.producer[node.input[1]]
    scale = graph.constant(weights.input[1])
    assert scale is not None
    weights.input[1] = graph.add_constant("bent", scale * np.float32(3))
    report = drop_report(resnet20, graph.build(), pictures, settings=FEW).to_document()
    layers = {layer["layer"]: layer for layer in report["layers"]}
    assert layers["layer2.1.conv1"]["own_snr_db"] < 5
    assert layers["layer2.1.conv1"]["share"] > 0.9
    assert layers["layer2.1.conv2"]["own_snr_db"] > 25
    assert layers["layer2.1.conv2"]["snr_db"] < 5
    assert (report["causes"][0]["cause"], report["causes"][0]["layer"]) == ("damaged scale", "layer2.1.conv1")


def test_models_that_another_tool_quantized(resnet20: Model, pictures: data.Dataset, tmp_path: Path) -> None:
    """ONNX Runtime's own static quantizer: other names, removed activations, biases and scales of its making."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = pictures.batches(16)

        def get_next(self):
            return next((feeds for feeds, _ in self.left), None)

    onnx.save(resnet20.proto, tmp_path / "a.onnx")
    quantization.quantize_static(tmp_path / "a.onnx", tmp_path / "b.onnx", Reader(), per_channel=True)
    theirs = from_proto(onnx.load(tmp_path / "b.onnx"), "theirs")
    report = drop_report(resnet20, theirs, pictures, settings=FEW).to_document()
    assert len(report["layers"]) > 40
    assert min(layer["own_snr_db"] for layer in report["layers"]) > 20
    assert report["snr_db"] > 15


def test_insides_of_subgraphs_are_left_out_by_name(make_model) -> None:
    inner = [
        helper.make_graph(
            [helper.make_node("Mul", ["h", "two"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, None)],
        )
        for name in ("yes", "no")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("ReduceMax", ["h"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["i"], name="branch", then_branch=inner[0], else_branch=inner[1]),
        helper.make_node("MatMul", ["i", "w"], ["y"], name="last"),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(4, 4)).astype(np.float32),
        "two": np.float32(2),
        "zero": np.float32(0),
    }
    a = make_model(nodes, {"x": ["n", 4]}, ["y"], constants=constants)
    rows = {"x": rng.normal(size=(16, 4)).astype(np.float32)}
    dataset = data.from_arrays(rows, a.inputs, source=Path("rows"))
    noisy = make_model(
        nodes, {"x": ["n", 4]}, ["y"], constants={**constants, "w": constants["w"] * np.float32(1.01)}
    )
    report = drop_report(a, noisy, dataset, settings=FEW).to_document()
    assert report["left_out"] == ["branch"]
    assert {"h", "y"} <= {layer["tensor"] for layer in report["layers"]}
