"""ONNX files as they were written over the years: operator sets 7 to 12, weights among inputs, data files beside."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from farrier_converters.graph import run
from farrier_converters.graph.upgrade import upgrade
from farrier_converters.model import from_proto, load, opset

# Bodies in the notation of the operator set that is named; every one reads x and makes y.
NETS = {
    "convolutions": (
        7,
        "float[N, 4, 8, 8] x",
        """
        a = Conv <pads = [1, 1, 1, 1]> (x, w)
        b = BatchNormalization (a, s, s, s, s)
        c = Relu (b)
        d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
        e = Dropout (d)
        f = GlobalAveragePool (e)
        g = Flatten (f)
        y = Gemm <transB = 1> (g, v, s)
        """,
        {"w": (4, 4, 3, 3), "s": (4,), "v": (4, 4)},
    ),
    "softmax over the rest": (
        8, "float[N, 3, 5] x", "y = Softmax <axis = 1> (x)", {},
    ),
    "attributes that became inputs": (
        9,
        "float[N, 4, 8, 8] x",
        """
        a = Pad <mode = "constant", pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 0.5> (x)
        b = Slice <axes = [2, 3], starts = [1, 2], ends = [9, 9]> (a)
        c = Clip <min = -0.5, max = 0.75> (b)
        d = ReduceSum <axes = [3], keepdims = 0> (c)
        e = Unsqueeze <axes = [1]> (d)
        f = Squeeze <axes = [1]> (e)
        g, h = Split <axis = 1, split = [1, 3]> (f)
        y = ReduceMean <axes = [2]> (h)
        """,
        {},
    ),
    "upsampling": (
        9, "float[N, 2, 4, 4] x", 'y = Upsample <mode = "nearest"> (x, scales)', {"scales": [1.0, 1.0, 2.0, 2.0]},
    ),
    "slices with inputs": (
        10, "float[N, 6] x", "y = Slice (x, start, end, axis)", {"start": [1], "end": [5], "axis": [1]},
    ),
    "gathering and concatenation": (
        11,
        "float[N, 6] x",
        """
        a = Gather <axis = 1> (x, where)
        b = Concat <axis = -1> (x, a)
        c = LogSoftmax <axis = 1> (b)
        d = ReduceL2 <axes = [1], keepdims = 1> (c)
        e = Div (c, d)
        y = Hardmax <axis = 1> (e)
        """,
        {"where": [0, 5]},
    ),
    "reductions and selections": (
        12,
        "float[N, 6] x",
        """
        a = ReduceMax <axes = [1]> (x)
        b = Less (x, a)
        c = Where (b, x, a)
        d = Einsum <equation = "ij,ij->ij"> (c, x)
        y = ArgMax <axis = 1> (d)
        """,
        {},
    ),
}  # fmt: skip


def _value(name, what):
    if isinstance(what, list):
        return np.array(what, np.float32 if isinstance(what[0], float) else np.int64)
    return np.abs(np.random.default_rng(len(name)).standard_normal(what)).astype(np.float32)


def _model(name, *, weights_are_inputs=False):
    version, inputs, body, constants = NETS[name]
    result = "int64[N, 1]" if "ArgMax" in body else "float"
    text = f'<ir_version: 3, opset_import: ["" : {version}]> agraph ({inputs}) => ({result} y) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    for key, what in constants.items():
        tensor = onnx.numpy_helper.from_array(_value(key, what), key)
        proto.graph.initializer.append(tensor)
        if weights_are_inputs:
            proto.graph.input.append(onnx.helper.make_tensor_value_info(key, tensor.data_type, tensor.dims))
    proto.ir_version = 3 if weights_are_inputs else 4
    proto = onnx.shape_inference.infer_shapes(proto)
    del proto.graph.value_info[:]
    return from_proto(proto, name.replace(" ", "-"))


def _feeds(model, seed=0):
    shape = [3, *model.inputs[0].shape[1:]]
    return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("version", [13, 17, 21])
def test_an_old_operator_set_is_raised_and_computes_the_same(name, version, outputs):
    model = _model(name)
    raised = upgrade(model, version, feeds=_feeds(model))
    assert opset(raised.proto) == version
    onnx.checker.check_model(raised.proto)
    feeds = _feeds(model, seed=1)
    assert run.same(outputs(raised, feeds), outputs(model, feeds), tolerance=1e-4)


@pytest.mark.parametrize("weights_are_inputs", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_an_old_file_is_read_and_fused(name, weights_are_inputs, tmp_path, apply, outputs):
    model = _model(name, weights_are_inputs=weights_are_inputs)
    path = tmp_path / "old.onnx"
    path.write_bytes(model.proto.SerializeToString())
    read = load(path)
    assert [spec.name for spec in read.inputs] == ["x"]
    fused = apply(read, "clean", "fuse")
    assert opset(fused.proto) == NETS[name][0]
    assert [value.name for value in fused.proto.graph.input] == ["x"]
    assert run.same(outputs(fused, _feeds(model)), outputs(model, _feeds(model)), tolerance=1e-4)


def test_weights_in_a_file_beside_the_model(tmp_path, outputs):
    model = _model("convolutions")
    path = tmp_path / "model.onnx"
    onnx.save(
        model.proto,
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=False,
    )
    read = load(path)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    assert run.same(outputs(read, _feeds(model)), outputs(_model("convolutions"), _feeds(model)), tolerance=0)
