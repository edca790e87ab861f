"""OpenVINO on ONNX files, float and quantized, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain
from farrier_converters import compilers, passes
from farrier_converters.measure import Child

OPENVINO = Toolchain("openvino", "onnx", "openvino", ("fp32", "int8"))


@pytest.fixture(autouse=True)
def openvino(tool):
    tool("openvino")


def test_names_survive_copies(make_model, compiled_outputs, runtime_outputs):
    """OpenVINO sees one tensor where a graph has three names for it."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["z"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Neg", ["a"], ["y"]),
    ]
    model = make_model(nodes, {"x": ["n", 2]}, ["z", "y", "b"])
    feeds = {"x": np.array([[-1, 2], [3, -4], [5, 6]], np.float32)}
    found, wanted = compiled_outputs(model, OPENVINO, feeds), runtime_outputs(model, feeds)
    assert list(found) == ["z", "y", "b"]
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def test_float_network_stays_float32(resnet20, cifar10, compiled_outputs, runtime_outputs):
    """Left to itself, OpenVINO rounds to bfloat16 where the processor can: an error of 1e-2."""
    feeds = {resnet20.inputs[0].name: cifar10[0][:4]}
    found, wanted = compiled_outputs(resnet20, OPENVINO, feeds), runtime_outputs(resnet20, feeds)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


def test_quantized_network(resnet20, cifar10, apply, tmp_path, runtime_outputs):
    pictures, name = cifar10[0], resnet20.inputs[0].name
    rows = [{name: pictures[i : i + 16]} for i in range(0, 128, 16)]
    context = passes.Context(
        arithmetic=targets.get("host").toolchains[0].arithmetic, calibration=lambda: iter(rows)
    )
    model = apply(resnet20, "clean", "fuse", "int8", context=context)
    made = compilers.get("openvino").compile(model, OPENVINO, tmp_path)
    feeds = {name: pictures[512:768]}
    output = model.outputs[0].name
    wanted = runtime_outputs(model, feeds)[output]
    with Child(made.path, "openvino", options=made.options) as child:
        found = child.run(feeds)[output]
    with Child(made.path, "openvino", options=made.options, reference=True) as child:
        reference = child.run(feeds)[output]
    for answers in (found, reference):
        assert np.mean(answers.argmax(1) == wanted.argmax(1)) > 0.97
        assert np.abs(answers - wanted).mean() < 0.02 * np.abs(wanted).max()
    assert not np.array_equal(found, reference), "integers were computed in float"


def test_what_openvino_refuses(make_model, tmp_path):
    nodes = [helper.make_node("Celu", ["x"], ["y"], domain="com.example")]
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": [2]}, ["y"])
    model.proto.graph.node[0].CopyFrom(nodes[0])
    model.proto.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(InputError, match=r"^OpenVINO cannot load test: "):
        compilers.get("openvino").compile(model, OPENVINO, tmp_path)
    assert not list(tmp_path.iterdir())
