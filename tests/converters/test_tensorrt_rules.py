"""What TensorRT imports and what its DLA takes: each limit from inside and from just outside, and real networks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from farrier_contracts.targets import ARITHMETICS, get
from farrier_converters import passes
from farrier_converters.check import rules
from farrier_converters.check.placement import OnnxGraph
from farrier_converters.check.predict import predict
from farrier_converters.check.rules.tensorrt.dla import buffer_banks
from farrier_converters.check.rules.tensorrt.importer import ADDED, table
from farrier_converters.check.rules.tensorrt.release import Board
from farrier_converters.check.source import Source
from farrier_converters.graph.edit import Graph, attribute
from farrier_converters.graph.types import infer
from farrier_converters.model import ModelSettings, save

ORIN = {"tensorrt": "10.3", "sm": 87, "dla_cores": 2}
XAVIER = {"tensorrt": "8.5.2", "sm": 72, "dla_cores": 2}
NANO = {"tensorrt": "8.2.1", "sm": 53, "dla_cores": 0}
NEWEST = {"tensorrt": "11.4.1", "sm": 87, "dla_cores": 2}


def _place(model, name, parameters):
    proto = Graph(model).build().proto
    return rules.of_onnx(name, parameters).place(OnnxGraph(proto, infer(proto)))


@pytest.fixture(scope="module")
def place(make_model):
    """Place the last of a few nodes over x: place(rules, parameters, nodes, shape, constants)."""

    def call(name, parameters, nodes, shape, constants=None, **more):
        outputs = [nodes[-1].output[0]]
        model = make_model(nodes, {"x": shape}, outputs, constants=constants, **more)
        return _place(model, name, parameters)[-1]

    return call


def _weights(*shape):
    return np.zeros(shape, np.float32)


def _conv(channels=8, kernel=3, outputs=8, group=1, **attributes):
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=group, **attributes)
    return [node], {"w": _weights(outputs, channels // group, kernel, kernel)}


CONVOLUTIONS = [  # (inside, outside), each: keywords of _conv, input shape
    (({"kernel": 32}, [1, 8, 40, 16]), ({"kernel": 33}, [1, 8, 40, 40])),
    (({"kernel": 32, "pads": [31] * 4}, [1, 8, 8, 8]), ({"kernel": 33, "pads": [32] * 4}, [1, 8, 8, 8])),
    (({"pads": [2] * 4}, [1, 8, 8, 8]), ({"pads": [3] * 4}, [1, 8, 8, 8])),
    (({"strides": [8, 8]}, [1, 8, 32, 32]), ({"strides": [9, 9]}, [1, 8, 32, 32])),
    (({"dilations": [32, 32]}, [1, 8, 70, 70]), ({"dilations": [33, 33]}, [1, 8, 70, 70])),
    (({"outputs": 8192, "kernel": 1}, [1, 8, 4, 4]), ({"outputs": 8193, "kernel": 1}, [1, 8, 4, 4])),
    (({}, [4096, 8, 4, 4]), ({}, [4097, 8, 4, 4])),
    (({"kernel": 1}, [1, 8, 8192, 4]), ({"kernel": 1}, [1, 8, 8193, 4])),
    (({}, [1, 8, 4, 4]), ({}, ["n", 8, 4, 4])),
    # the buffer: 64 channels take an entry a pixel, so 3 rows of 320 take 4 banks of 256, and 3 of 1,400 take 17
    (
        ({"channels": 64, "outputs": 64}, [1, 64, 64, 320]),
        ({"channels": 64, "outputs": 64}, [1, 64, 64, 1400]),
    ),
]


@pytest.mark.parametrize(("inside", "outside"), CONVOLUTIONS)
def test_limits_of_convolutions_on_the_dla(place, inside, outside):
    for (options, shape), unit in ((inside, "dla"), (outside, "gpu")):
        nodes, constants = _conv(**options)
        placed = place("dla", ORIN, nodes, shape, constants)
        assert placed.unit == unit, placed.reason
        assert (placed.reason is None) == (unit == "dla")


DECONVOLUTIONS = [
    ({"pads": [0] * 4}, 4, 1, "dla"),
    ({"pads": [1] * 4}, 4, 1, "gpu"),
    ({}, 4, 2, "gpu"),
    ({"dilations": [2, 2]}, 4, 1, "gpu"),
    ({}, 32, 1, "dla"),
    ({}, 33, 1, "gpu"),
    ({"strides": [22, 22]}, 23, 1, "dla"),
    ({"strides": [23, 23]}, 23, 1, "gpu"),
    ({}, (1, 64), 1, "dla"),
    ({}, (1, 65), 1, "gpu"),
]


@pytest.mark.parametrize(("options", "kernel", "group", "unit"), DECONVOLUTIONS)
def test_limits_of_transposed_convolutions_on_the_dla(place, options, kernel, group, unit):
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=group, **options)
    placed = place("dla", ORIN, [node], [1, 4, 6, 6], {"w": _weights(4, 4 // group, *kernel)})
    assert placed.unit == unit, placed.reason


OTHERS = [  # operator, attributes, constants (after x), input shape, parameters, unit
    ("MaxPool", {"kernel_shape": [8, 8]}, {}, [1, 4, 16, 16], ORIN, "dla"),
    ("MaxPool", {"kernel_shape": [9, 9]}, {}, [1, 4, 16, 16], ORIN, "gpu"),
    ("AveragePool", {"kernel_shape": [2, 2], "strides": [16, 16]}, {}, [1, 4, 32, 32], ORIN, "dla"),
    ("AveragePool", {"kernel_shape": [2, 2], "strides": [17, 17]}, {}, [1, 4, 32, 32], ORIN, "gpu"),
    ("MaxPool", {"kernel_shape": [8, 8], "pads": [7] * 4}, {}, [1, 4, 16, 16], ORIN, "dla"),
    ("Clip", {}, {"low": np.float32(0), "high": np.float32(6)}, [1, 4, 8, 8], ORIN, "dla"),
    ("Clip", {}, {"low": np.float32(0), "high": np.float32(127)}, [1, 4, 8, 8], ORIN, "dla"),
    ("Clip", {}, {"low": np.float32(0), "high": np.float32(128)}, [1, 4, 8, 8], ORIN, "gpu"),
    ("Clip", {}, {"low": np.float32(-1), "high": np.float32(6)}, [1, 4, 8, 8], ORIN, "gpu"),
    ("LRN", {"size": 9}, {}, [1, 4, 8, 8], ORIN, "dla"),
    ("LRN", {"size": 11}, {}, [1, 4, 8, 8], ORIN, "gpu"),
    ("Softmax", {"axis": 1}, {}, [1, 4, 1, 1], ORIN, "dla"),
    ("Softmax", {"axis": 1}, {}, [1, 4, 2, 1], ORIN, "gpu"),
    ("Softmax", {"axis": 1}, {}, [1, 4, 2, 1], NEWEST, "dla"),
    ("Softmax", {"axis": 1}, {}, [1, 4, 1, 1], XAVIER, "gpu"),
    ("Resize", {"mode": "nearest"}, {"": None, "s": (1, 1, 32, 32)}, [1, 4, 4, 4], ORIN, "dla"),
    ("Resize", {"mode": "nearest"}, {"": None, "s": (1, 1, 33, 33)}, [1, 4, 4, 4], ORIN, "gpu"),
    ("Resize", {"mode": "nearest"}, {"": None, "s": (1, 1, 1.5, 1.5)}, [1, 4, 4, 4], ORIN, "gpu"),
    ("Resize", {"mode": "linear"}, {"": None, "s": (1, 1, 4, 4)}, [1, 4, 4, 4], ORIN, "dla"),
    ("Resize", {"mode": "linear"}, {"": None, "s": (1, 1, 5, 5)}, [1, 4, 4, 4], ORIN, "gpu"),
    ("Resize", {"mode": "nearest"}, {"": None, "s": (1, 2, 2, 2)}, [1, 4, 4, 4], ORIN, "gpu"),
    ("Div", {}, {"by": np.float32(2)}, [1, 4, 8, 8], ORIN, "gpu"),
    ("Div", {}, {"by": np.float32(2)}, [1, 4, 8, 8], NEWEST, "dla"),
    ("GlobalAveragePool", {}, {}, [1, 4, 8, 8], ORIN, "gpu"),
    ("Tanh", {}, {}, [1, 4, 8, 8], ORIN, "dla"),
    ("DepthToSpace", {"blocksize": 2}, {}, [1, 4, 8, 8], ORIN, "gpu"),
    ("Relu", {}, {}, [1, 4, 8, 8], {**ORIN, "dla_cores": 0}, "gpu"),
    ("Relu", {}, {}, [1, 4, 8, 8], {**ORIN, "tensorrt": "10.7"}, "dla"),
    ("Relu", {}, {}, [1, 4, 8, 8], {**ORIN, "tensorrt": "10.8"}, "gpu"),
    ("Relu", {}, {}, [1, 4, 8, 8], {**ORIN, "tensorrt": "11.3"}, "gpu"),
    ("Relu", {}, {}, [1, 4, 8, 8], {**ORIN, "tensorrt": "11.4"}, "dla"),
]


@pytest.mark.parametrize(("op", "attributes", "constants", "shape", "parameters", "unit"), OTHERS)
def test_limits_of_other_operators_on_the_dla(place, op, attributes, constants, shape, parameters, unit):
    node = helper.make_node(op, ["x", *constants], ["y"], **attributes)
    values = {name: np.asarray(v, np.float32) for name, v in constants.items() if name}
    placed = place("dla", parameters, [node], shape, values)
    assert placed.unit == unit, placed.reason
    assert placed.unit == "dla" or placed.reason


@pytest.mark.parametrize(("axis", "unit"), [(1, "dla"), (-3, "dla"), (2, "gpu")])
def test_the_dla_joins_channels(place, axis, unit):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Concat", ["x", "r"], ["y"], axis=axis),
    ]
    assert place("dla", ORIN, nodes, [1, 4, 8, 8]).unit == unit


def test_what_no_document_lists_for_the_dla_is_doubtful(place):
    placed = place("dla", ORIN, [helper.make_node("Mish", ["x"], ["y"])], [1, 4, 8, 8], opset=18)
    assert (placed.unit, placed.certain) == ("gpu", False)


@given(
    channels=st.integers(1, 2048),
    width=st.integers(1, 4096),
    kernel=st.tuples(st.integers(1, 32), st.integers(1, 32)),
    dilation=st.integers(1, 32),
)
def test_the_buffer_fills_with_every_size(channels, width, kernel, dilation):
    banks = buffer_banks(channels, width, kernel, dilation, 2)
    assert banks >= 2
    assert banks >= buffer_banks(channels, width, kernel, dilation, 1)
    more = (
        buffer_banks(channels + 1, width, kernel, dilation, 2),
        buffer_banks(channels, width + 1, kernel, dilation, 2),
        buffer_banks(channels, width, (kernel[0] + 1, kernel[1]), dilation, 2),
        buffer_banks(channels, width, kernel, dilation + 1, 2),
    )
    assert min(more) >= banks


def test_the_buffer_by_hand():
    # 64 channels of FP16: 3x3 weights 1,152 bytes, 1 bank; 4 atoms a pixel, 320 entries a row, 3 rows: 960, 4 banks
    assert buffer_banks(64, 320, (3, 3), 1, 2) == 1 + 4
    # 1,024 channels: 18,432 bytes, 1 bank; 64 atoms a pixel, 16 a pixel in entries: 896 a row, 2,688: 11 banks
    assert buffer_banks(1024, 56, (3, 3), 1, 2) == 1 + 11


IMPORTS = [  # operator, attributes, constants, shape, release, imported, certain
    ("LayerNormalization", {}, {"s": np.ones(4)}, [2, 4], "8.5", True, False),  # as simpler operators
    ("RoiAlign", {}, {"r": np.ones((1, 4)), "k": np.array([0])}, [1, 2, 4, 4], "8.4", False, True),
    ("LayerNormalization", {}, {"s": np.ones(4)}, [2, 4], "8.6", True, False),
    ("LayerNormalization", {}, {"s": np.ones(4)}, [2, 4], "10.3", True, True),
    ("Shrink", {}, {}, [2, 4], "8.2.1", False, True),
    ("Shrink", {}, {}, [2, 4], "8.4", True, True),
    ("Mish", {}, {}, [2, 4], "10.3", True, False),
    ("Mish", {}, {}, [2, 4], "10.15", True, True),
    ("Det", {}, {}, [2, 3, 3], "10.15", False, True),
    ("Det", {}, {}, [2, 3, 3], "11.4", False, False),
    ("MaxPool", {"kernel_shape": [2, 2]}, {}, [1, 2, 4, 4], "10.15", True, True),
    ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, {}, [1, 2, 4, 4], "10.15", False, True),
    ("MaxPool", {"kernel_shape": [2]}, {}, [1, 2, 4], "10.15", False, True),
    ("Conv", {}, {"w": np.ones((2, 2, 3))}, [1, 2, 4], "8.4", False, True),
    ("Conv", {}, {"w": np.ones((2, 2, 3))}, [1, 2, 4], "8.5", True, True),
    ("Resize", {"mode": "linear"}, {"": None, "s": (1, 1, 2, 2)}, [1, 2, 4, 4], "10.3", True, True),
    ("Resize", {"mode": "cubic"}, {"": None, "s": (1, 1, 2, 2)}, [1, 2, 4, 4], "10.3", False, True),
    ("TopK", {}, {"k": np.array([3839])}, [1, 5000], "10.3", True, True),
    ("TopK", {}, {"k": np.array([3840])}, [1, 5000], "10.3", False, True),
    ("ReduceMean", {}, {"axes": np.array([1])}, [1, 5], "10.3", True, True),
]


@pytest.mark.parametrize(
    ("op", "attributes", "constants", "shape", "release", "imported", "certain"), IMPORTS
)
def test_limits_of_the_importer(place, op, attributes, constants, shape, release, imported, certain):
    outputs = ["y", "i"] if op == "TopK" else ["y"]
    node = helper.make_node(op, ["x", *constants], outputs, **attributes)
    values = {
        name: np.asarray(v, np.int64 if name in ("k", "axes") else np.float32)
        for name, v in constants.items()
        if name
    }
    placed = place("tensorrt", {"tensorrt": release, "sm": 87}, [node], shape, values, opset=18)
    assert (placed.reason is None) == imported, placed.reason
    assert placed.certain == certain
    assert placed.unit == ("gpu" if imported else "cpu")


def test_types_that_tensorrt_has_not(place):
    node = helper.make_node("Abs", ["x"], ["y"])
    double = place("tensorrt", ORIN, [node], [4], dtype=TensorProto.DOUBLE)
    assert double.unit == "gpu" and "float32" in double.note
    text = place(
        "tensorrt", ORIN, [helper.make_node("Identity", ["x"], ["y"])], [4], dtype=TensorProto.STRING
    )
    assert text.unit == "cpu" and "type" in text.reason


def test_the_lists_of_operators_are_of_the_standard_and_apart():
    import onnx

    names = [name for listed in ADDED.values() for name in listed.split()]
    assert len(names) == len(set(names))
    old = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}  # from before there was a standard
    newest = {"TensorScatter", "RotaryEmbedding", "Attention", "RMSNormalization"}
    assert set(names) - old - newest <= {schema.name for schema in onnx.defs.get_all_schemas()}


@given(numbers=st.tuples(st.integers(8, 12), st.integers(0, 20)))
def test_a_newer_release_imports_no_less(numbers):
    old = table(Board(release=numbers))
    new = table(Board(release=(numbers[0], numbers[1] + 1)))
    assert set(old.operators) <= set(new.operators)


def _counts(model, name, parameters):
    return Counter(placed.unit for placed in _place(model, name, parameters))


@pytest.mark.parametrize("parameters", [NANO, XAVIER, ORIN], ids=["nano", "xavier", "orin"])
def test_resnet20_runs_on_the_gpu_of_every_board(resnet20, apply, parameters):
    placements = _place(apply(resnet20, "clean", "fuse"), "tensorrt", parameters)
    assert {placed.unit for placed in placements} == {"gpu"}
    halves = [placed.note for placed in placements if placed.note]
    if parameters is NANO:
        assert len(halves) == len(placements) and "no INT8" in halves[0]
    else:
        assert len(halves) < 4


def test_resnet20_on_the_dla_needs_fixed_sizes_and_float(resnet20, apply, cifar10):
    plain = apply(resnet20, "clean", "fuse")
    assert all("not fixed" in p.reason for p in _place(plain, "dla", XAVIER) if p.certain and p.reason)
    context = passes.Context(
        arithmetic=ARITHMETICS["tensorrt"], calibration=lambda: iter([{"images": cifar10[0][:8]}])
    )
    quantized = apply(plain, "int8", context=context)
    assert {p.reason for p in _place(quantized, "dla", XAVIER)} == {
        "the DLA of TensorRT 8.5 takes no graph with quantizers: build fp16 for it"
    }


def test_ultraface_splits_between_dla_and_gpu(shared_data, apply):
    from farrier_converters.model import load

    [path] = (shared_data / "ultraface").rglob("version-RFB-320_without_postprocessing.onnx")
    model = apply(load(path), "clean", "fuse")
    placements = _place(model, "dla", XAVIER)
    placed = list(zip(Graph(model).build().proto.graph.node, placements, strict=True))
    assert {"Conv", "Relu", "Add"} <= {node.op_type for node, p in placed if p.unit == "dla"}
    assert {node.op_type for node, p in placed if p.unit == "gpu"} == {
        "Conv",
        "Reshape",
        "Softmax",
        "Transpose",
    }
    moved = [(node, p.reason) for node, p in placed if node.op_type == "Conv" and p.unit == "gpu"]
    for node, reason in moved:  # the dilated ones of its first branch pad by more than their kernel
        assert max(attribute(node, "pads")) >= 3 and "as much as its kernel is wide" in reason
    assert len(moved) < sum(node.op_type == "Conv" for node, _ in placed) / 4
    assert _counts(model, "tensorrt", XAVIER) == {"gpu": len(placements)}
    raw = load(path)  # its batch norms are still there, and part of the convolutions
    halves = {
        node.op_type
        for node, p in zip(Graph(raw).nodes, _place(raw, "tensorrt", XAVIER), strict=True)
        if p.note is not None
    }
    assert not halves & {"Conv", "BatchNormalization"}


@pytest.mark.parametrize("name", ["jetson-nano", "jetson-xavier", "jetson-orin"])
def test_check_predicts_for_the_boards(resnet20, tmp_path, name):
    path = tmp_path / "resnet20.onnx"
    save(resnet20, path)
    target = get(name)
    found = predict(Source(path, ModelSettings()), target, target.toolchains[0])
    assert found.accelerated.ops == 1.0
    assert any("DLA" in note for note in found.notes) == (name != "jetson-nano")
