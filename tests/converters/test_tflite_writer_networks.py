"""Real networks as TFLite files: the answers of ONNX Runtime, no transposes, and right for any batch."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from packaging.version import Version

from farrier_contracts import targets
from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain
from farrier_converters import compilers
from farrier_converters.compilers.tflite import Code, ConversionError, convert
from farrier_converters.graph import run
from farrier_converters.graph.bind import bind
from farrier_converters.measure import Child, engines
from farrier_converters.model import Model, from_proto, load
from farrier_converters.tflite.write import write

needs_litert = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="LiteRT is not installed"
)
TOLERANCE = 1e-4
MLPERF = "mlperf_tiny/benchmark/training"
NETWORKS = {
    "ultraface": "ultraface/models/onnx/version-RFB-320.onnx",
    "ultraface-raw": "ultraface/models/onnx/version-RFB-320_without_postprocessing.onnx",
    "autoencoder": f"{MLPERF}/anomaly_detection/trained_models/ad01_fp32.tflite",
    "resnet8": f"{MLPERF}/image_classification/trained_models/pretrainedResnet.tflite",
    "wake-words": f"{MLPERF}/visual_wake_words/trained_models/vww_96_float.tflite",
    "keywords": f"{MLPERF}/keyword_spotting/trained_models/kws_ref_model_float32.tflite",
}


def tensors(model: Model, rows: int) -> dict[str, np.ndarray]:
    """Standard normal noise, with this many rows where the batch is free."""
    rng = np.random.default_rng(5)
    shapes = {s.name: [rows if size < 1 else size for size in s.shape] for s in model.inputs}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def compare(model: Model, folder: Path, feeds: dict[str, np.ndarray], *, reference: Model | None = None):
    """Convert, run in LiteRT, and compare with ONNX Runtime; return how often each operator occurs."""
    file, options = convert(model)
    path = folder / "model.tflite"
    path.write_bytes(write(file))
    expected = run.once((reference or model).proto, feeds)
    with Child(path, "litert", options=options) as child:
        found = child.run(feeds)
    assert list(found) == [spec.name for spec in model.outputs]
    assert run.same(list(found.values()), expected, tolerance=TOLERANCE)
    return Counter(operator.name for operator in file.operators)


@needs_litert
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [1, 3])
def test_network(name, rows, shared_data, tmp_path):
    model = load(shared_data / NETWORKS[name])
    counts = compare(model, tmp_path, tensors(model, rows))
    assert counts["TRANSPOSE"] == 0


@needs_litert
@pytest.mark.parametrize("rows", [1, 4])
def test_resnet20(resnet20, rows, tmp_path):
    counts = compare(resnet20, tmp_path, tensors(resnet20, rows))
    assert counts["TRANSPOSE"] == 0
    assert counts["CONV_2D"] == 19
    assert counts.total() <= 38


@needs_litert
@pytest.mark.parametrize("rows", [1, 3])
def test_silero_with_a_state_whose_batch_is_its_second_axis(rows, shared_data, tmp_path):
    """A branch on a constant, an LSTM, and one name for the batch wherever it occurs."""
    whole = load(shared_data / "silero_vad" / "src" / "silero_vad" / "data" / "silero_vad_16k_op15.onnx")
    proto = onnx.ModelProto()
    proto.CopyFrom(whole.proto)
    sizes = {"input": ("batch", 576), "state": (2, "batch", 128), "sr": ()}
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes[value.name], strict=True):
            dim.CopyFrom(onnx.TensorShapeProto.Dimension())
            setattr(dim, "dim_param" if isinstance(size, str) else "dim_value", size)
    model = bind(from_proto(proto, "silero"), {"sr": np.array(16_000)})
    rng = np.random.default_rng(2)
    feeds = {
        "input": rng.standard_normal((rows, 576)).astype(np.float32) * np.float32(0.1),
        "state": rng.standard_normal((2, rows, 128)).astype(np.float32),
    }
    file, options = convert(model)
    assert [file.tensors[i].signature for i in file.inputs] == [(-1, 576), (2, -1, 128)]
    path = tmp_path / "silero.tflite"
    path.write_bytes(write(file))
    with Child(path, "litert", options=options) as child:
        found = child.run(feeds)
    expected = run.once(whole.proto, {**feeds, "sr": np.array(16_000)})
    assert run.same(list(found.values()), expected, tolerance=TOLERANCE)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_in_the_older_runtime(name, shared_data, tmp_path):
    """The same answers from tflite-runtime 2.14, whose kernels know fewer versions."""
    if (why := engines.missing("tflite-runtime")) is not None:
        pytest.skip(why)
    model = load(shared_data / NETWORKS[name])
    file, options = convert(model)
    oldest = dict(file.metadata)["min_runtime_version"].rstrip(b"\0").decode()
    assert Version(oldest) <= Version("2.14")
    path = tmp_path / "model.tflite"
    path.write_bytes(write(file))
    for rows in (1, 2):
        feeds = tensors(model, rows)
        with Child(path, "tflite-runtime", options=options) as child:
            found = child.run(feeds)
            assert child.engine_version == "tflite-runtime 2.14.0"
        assert run.same(list(found.values()), run.once(model.proto, feeds), tolerance=TOLERANCE)


def relu(source: str, result: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [result])


def test_image_inputs_are_channels_last_and_said_so(make_model):
    weight = np.ones((4, 3, 3, 3), np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), relu("c", "y")]
    file, options = convert(make_model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], constants={"w": weight}))
    assert options == {"layouts": {"x": [0, 2, 3, 1], "y": [0, 2, 3, 1]}}
    assert file.tensors[file.inputs[0]].signature == (-1, 8, 8, 3)
    (operator,) = file.operators  # the activation is fused, the padding is SAME
    assert (operator.name, operator.options["activation"], operator.options["padding"]) == ("CONV_2D", 1, 0)
    assert file.signatures[0].inputs == (("x", file.inputs[0]),)


def test_a_flattened_image_permutes_weights_instead_of_itself(make_model):
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "d": rng.standard_normal((5 * 6 * 6, 7)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["y"]),
    ]
    file, _ = convert(make_model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], constants=constants))
    assert [operator.name for operator in file.operators] == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]


def test_a_channel_shuffle_costs_one_transpose(make_model):
    constants = {
        "w": np.ones((6, 6, 1, 1), np.float32),
        "cut": np.array([0, 2, 3, 8, 8]),
        "join": np.array([0, 6, 8, 8]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Reshape", ["a", "cut"], ["b"]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["c", "join"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"]),
    ]
    file, _ = convert(make_model(nodes, {"x": ["N", 6, 8, 8]}, ["y"], constants=constants))
    assert Counter(o.name for o in file.operators)["TRANSPOSE"] == 1


def test_every_node_in_the_way_is_named(make_model):
    nodes = [
        helper.make_node("Det", ["x"], ["a"]),
        relu("a", "b"),
        helper.make_node("NonZero", ["b"], ["y"]),
        helper.make_node("Unique", ["x"], ["z"], name="distinct"),
    ]
    with pytest.raises(ConversionError) as caught:
        convert(make_model(nodes, {"x": [2, 2, 2]}, ["y", "z"]))
    assert [(f.code, f.op) for f in caught.value.failures] == [
        (Code.OPERATOR, "Det"),
        (Code.OPERATOR, "Unique"),
    ]
    assert "TFL001 Unique 'distinct'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_free_sizes_besides_the_batch_are_refused_with_the_cure(make_model):
    model = make_model([relu("x", "y")], {"x": ["N", "T", 4]}, ["y"])
    with pytest.raises(InputError, match=r"'x' .* free size at axis 1.*fixed sizes"):
        convert(model)


def test_a_graph_that_computes_with_the_number_of_rows_gets_a_batch_of_one(make_model):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceProd", ["f"], ["p"], keepdims=0),
        helper.make_node("Div", ["x", "p"], ["y"]),
    ]
    model = make_model(nodes, {"x": ["N", 4]}, ["y"])
    file, _ = convert(model)
    assert file.tensors[file.inputs[0]].signature == (1, 4)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_a_value_beside_the_number_of_rows_is_seen_too(op):
    """The last index along the batch is the number of rows less one."""
    nodes = [helper.make_node(op, ["x"], ["y"], axis=0, select_last_index=1)]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT64, None)],
    )
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "test")
    file, _ = convert(model)
    assert file.tensors[file.inputs[0]].signature == (1, 4)


def test_constants_that_are_no_numbers_of_rows_pass(make_model):
    """Infinities, not-a-number and large integers are none of them."""
    constants = {"a": np.array([np.inf, -np.inf, np.nan, 3e38], np.float32), "b": np.float32(-np.inf)}
    nodes = [helper.make_node("Max", ["x", "a"], ["m"]), helper.make_node("Max", ["m", "b"], ["y"])]
    file, _ = convert(make_model(nodes, {"x": ["N", 4]}, ["y"], constants=constants))
    assert file.tensors[file.inputs[0]].signature == (-1, 4)


def test_the_compiler_writes_what_litert_opens(make_model, tmp_path):
    toolchain = Toolchain(
        "tflite", "tflite", "litert", ("fp32",), targets.get("x86-avx2").toolchains[0].arithmetic
    )
    model = make_model([relu("x", "y")], {"x": ["N", 4]}, ["y"])
    compiled = compilers.get("tflite").compile(model, toolchain, tmp_path)
    assert compiled.path == tmp_path / "test.tflite"
    assert compiled.path.read_bytes()[4:8] == b"TFL3"


@needs_litert
def test_half_precision_is_weights_of_16_bits_and_arithmetic_of_32(resnet20, apply, tmp_path):
    fused = apply(resnet20, "clean", "fuse")
    rounded = onnx.ModelProto()
    rounded.CopyFrom(fused.proto)
    for tensor in rounded.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            wide = onnx.numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    half = apply(fused, "fp16")
    counts = compare(half, tmp_path, tensors(resnet20, 2), reference=from_proto(rounded, "rounded"))
    assert counts["DEQUANTIZE"] >= 19
    assert counts["TRANSPOSE"] == counts["CAST"] == 0
    small, whole = len(write(convert(half)[0])), len(write(convert(fused)[0]))
    assert small < 0.58 * whole


def test_half_precision_inputs_are_refused(make_model):
    model = make_model([relu("x", "y")], {"x": [1, 4]}, ["y"], dtype=onnx.TensorProto.FLOAT16)
    with pytest.raises(ConversionError, match="TFL003 input 'x'"):
        convert(model)
