"""Emulated integer arithmetic: its rules, and bit for bit what ONNX Runtime's and LiteRT's own kernels answer."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from farrier_contracts import targets
from farrier_contracts.targets import ARITHMETICS, PAIRS, Arithmetic
from farrier_converters import passes
from farrier_converters.emulate import Emulator, Saturation, recast, rounding, saturation
from farrier_converters.emulate.rounding import Params
from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto, save
from farrier_converters.tflite import file as tflite

QEMU_LIMIT_S = 120
RUN = """
import sys, numpy as np, onnxruntime as ort
for model, feeds, results in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    np.savez(results, *session.run(None, dict(np.load(feeds))))
"""
CONVS = {  # input channels, output channels, kernel, then attributes
    "channels of four": (16, 24, (3, 3), {"pads": [1, 1, 1, 1]}),
    "image": (3, 8, (3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "odd channels": (5, 8, (3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "pointwise": (16, 16, (1, 1), {}),
    "odd pointwise": (7, 7, (1, 1), {}),
    "groups": (16, 16, (3, 3), {"group": 2, "pads": [1, 0, 1, 2]}),
    "odd groups": (6, 8, (3, 3), {"group": 2}),
    "depthwise": (16, 16, (3, 3), {"group": 16, "pads": [1, 1, 1, 1]}),
    "odd depthwise": (5, 5, (3, 3), {"group": 5}),
    "multiplied depthwise": (4, 8, (3, 3), {"group": 4}),
    "dilated": (8, 8, (3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    "one axis": (6, 8, (5,), {"pads": [2, 2]}),
}


def conv_model(
    channels: int, outputs: int, kernel: tuple[int, ...], attributes: dict, *, seed: int = 0
) -> Model:
    """A u8s8 convolution with weights at the ends of their range, where pairs of products overflow."""
    rng = np.random.default_rng(seed)
    shape = (outputs, channels // attributes.get("group", 1), *kernel)
    weights = np.where(
        rng.random(shape) < 0.5, rng.choice([-127, 127], shape), rng.integers(-127, 128, shape)
    )
    scale = np.float32(0.02)
    weight_scale = rng.uniform(0.001, 0.01, outputs).astype(np.float32)
    constants = {
        "x_scale": scale,
        "x_zero": np.uint8(100),
        "w": weights.astype(np.int8),
        "w_scale": weight_scale,
        "w_zero": np.zeros(outputs, np.int8),
        "b": rng.integers(-3000, 3000, outputs).astype(np.int32),
        "b_scale": (scale * weight_scale).astype(np.float32),
        "b_zero": np.zeros(outputs, np.int32),
        "y_scale": np.float32(0.02 * 0.005 * 127 * 127 * np.sqrt(np.prod(shape[1:])) / 60),
        "y_zero": np.uint8(120),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bd"], axis=0),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["y"], name="conv", **attributes),
        helper.make_node("QuantizeLinear", ["y", "y_scale", "y_zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "y_scale", "y_zero"], ["out"]),
    ]
    return build(nodes, {"x": [None, channels, *[None] * len(kernel)]}, {"out": 2 + len(kernel)}, constants)


def build(nodes: list, inputs: dict, outputs: dict, constants: dict, dtype: int = TensorProto.FLOAT) -> Model:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
            for name, rank in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "test"
    )


def conv_feeds(channels: int, rank: int) -> dict[str, np.ndarray]:
    integers = np.random.default_rng(1).integers(0, 256, (2, channels, *[9] * rank))
    return {"x": ((integers - 100) * 0.02).astype(np.float32)}


def own() -> Arithmetic:
    """This machine's arithmetic in ONNX Runtime."""
    arithmetic = targets.host().toolchains[0].arithmetic
    assert arithmetic is not None
    return arithmetic


def emulate(model: Model, arithmetic: Arithmetic, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(Emulator(model, arithmetic).run(feeds).values())


# the rules


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_saturating_sums_are_those_of_pairs_clipped_to_16_bits(outputs: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.choice([-127, -126, -64, 0, 1, 64, 127], (outputs, k)).astype(np.int8)
    values = rng.choice([0, 1, 128, 254, 255], (6, k)).astype(np.uint8)
    sums = values.astype(np.int64) @ weights.T.astype(np.int64)
    count = 0
    for which, lost, found in saturation.excess(weights, values.max(axis=0), lambda i: values[:, i]):
        sums[:, which] -= lost.T
        count += found
    wanted, clipped = np.zeros_like(sums), 0
    for row in range(6):
        for output in range(outputs):
            products = [int(values[row, i]) * int(weights[output, i]) for i in range(k)] + [0]
            pairs = [products[i] + products[i + 1] for i in range(0, k, 2)]
            wanted[row, output] = sum(min(max(pair, -32768), 32767) for pair in pairs)
            clipped += sum(not -32768 <= pair <= 32767 for pair in pairs)
    assert np.array_equal(sums, wanted)
    assert count == clipped


@given(st.integers(-(2**26), 2**26), st.floats(1e-7, 1.5))
def test_fixed_point_is_tflites_double_rounding(value: int, factor: float) -> None:
    mantissa, exponent = np.frexp(factor)
    multiplier = math.floor(Fraction(float(mantissa)) * 2**31 + Fraction(1, 2))
    exact = Fraction(value) * 2 ** max(int(exponent), 0) * multiplier / 2**31
    high = math.floor(exact + Fraction(1, 2))  # the first rounding: ties go up
    shifted = Fraction(high, 2 ** max(-int(exponent), 0))
    away = math.floor(abs(shifted) + Fraction(1, 2))  # the second: half away from zero
    found = rounding.fixed_point(np.array([value]), np.asarray(factor))
    assert int(found[0]) == (away if shifted >= 0 else -away)
    assert abs(int(found[0]) - value * factor) <= 1


def test_the_two_roundings_differ_at_ties() -> None:
    sums = 2 * np.arange(-40, 41)
    quarter = np.asarray(0.25, np.float32)
    even, away = (rounding.scaled(sums, quarter, rule) for rule in (targets.HALF_EVEN, targets.FIXED_POINT))
    assert np.array_equal(even, np.rint(sums / 4))
    assert np.array_equal(away, np.sign(sums) * ((np.abs(sums) + 2) // 4))
    assert np.array_equal(even != away, np.abs(sums) % 8 == 2)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_quantize_undoes_dequantize(seed: int) -> None:
    rng = np.random.default_rng(seed)
    params = Params(
        rng.uniform(1e-6, 10, 1).astype(np.float32), np.array(rng.integers(256), np.uint8), np.dtype("u1")
    )
    integers = np.arange(256, dtype=np.uint8)
    assert np.array_equal(rounding.quantize(rounding.dequantize(integers, params), params), integers)


def test_sums_beyond_what_float32_holds_stay_exact(make_model) -> None:
    """65,536 products of 255 and 127 are more than 2^24."""
    size = 1 << 16
    model = build(
        [
            helper.make_node("DequantizeLinear", ["x", "one", "x_zero"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "one", "w_zero"], ["wd"]),
            helper.make_node("MatMul", ["xd", "wd"], ["y"]),
        ],
        {"x": [1, size]},
        {"y": 2},
        {
            "one": np.float32(1),
            "x_zero": np.uint8(0),
            "w_zero": np.int8(0),
            "w": np.stack([np.full(size, 127), np.arange(size) % 255 - 127], 1).astype(np.int8),
        },
        TensorProto.UINT8,
    )
    x = np.full((1, size), 255, np.uint8)
    x[0, 0] = 254
    (y,) = emulate(model, ARITHMETICS["x86-vnni"], {"x": x})
    weights = onnx.numpy_helper.to_array(model.proto.graph.initializer[-1]).astype(np.int64)
    assert np.array_equal(y, (x.astype(np.int64) @ weights).astype(np.float32))


# ONNX Runtime's kernels


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of u8 activations are those of x86")
@pytest.mark.parametrize("name", CONVS)
def test_convolutions_are_those_of_this_machine_bit_for_bit(name: str) -> None:
    channels, _, kernel, _ = CONVS[name]
    model, feeds = conv_model(*CONVS[name]), conv_feeds(channels, len(kernel))
    (found,) = emulate(model, own(), feeds)
    (wanted,) = run.once(model.proto, feeds)
    assert np.array_equal(found, wanted)
    assert len(np.unique(found)) > 50


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of u8 activations are those of x86")
def test_add_mul_pools_and_matrices_are_those_of_this_machine_bit_for_bit(apply, make_model) -> None:
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.normal(0, 0.3, (8, 8, 3, 3)).astype(np.float32),
        "v": rng.normal(0, 0.3, (16, 8, 1, 1)).astype(np.float32),
        "fc": rng.normal(0, 0.3, (16, 12)).astype(np.float32),
        "bias": rng.normal(0, 0.3, 12).astype(np.float32),
        "last": rng.normal(0, 0.3, (12, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("Add", ["m", "x"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["p", "p"], ["cat"], axis=1),
        helper.make_node("Split", ["cat"], ["left", "right"], axis=1),
        helper.make_node("Conv", ["left", "v"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "bias"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "last"], ["y"]),
    ]
    model = make_model(nodes, {"x": ["n", 8, 12, 12]}, ["y"], constants=constants)
    batches = [{"x": rng.normal(size=(8, 8, 12, 12)).astype(np.float32)} for _ in range(3)]
    context = passes.Context(arithmetic=own(), calibration=lambda: iter(batches))
    quantized = apply(model, "int8", context=context)
    (found,) = emulate(quantized, own(), batches[0])
    (wanted,) = run.once(quantized.proto, batches[0])
    assert np.array_equal(found, wanted)


@pytest.fixture(scope="module")
def eight_bits(resnet20: Model, cifar10, apply) -> Model:
    """ResNet20 quantized with 8-bit weights, as for x86 with VNNI."""
    batches = [{"images": cifar10[0][i : i + 32]} for i in range(0, 128, 32)]
    context = passes.Context(arithmetic=ARITHMETICS["x86-vnni"], calibration=lambda: iter(batches))
    return apply(resnet20, "clean", "fuse", "int8", context=context)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of u8 activations are those of x86")
def test_a_whole_network_is_that_of_this_machine_bit_for_bit(eight_bits: Model, cifar10) -> None:
    feeds = {"images": cifar10[0][512:640]}
    (found,) = emulate(eight_bits, own(), feeds)
    (wanted,) = run.once(eight_bits.proto, feeds)
    assert np.array_equal(found, wanted)


def test_kernels_without_vnni_bit_for_bit(eight_bits: Model, cifar10, program, tmp_path: Path) -> None:
    """ONNX Runtime itself, on an emulated processor that has AVX2 and no VNNI."""
    if platform.machine() != "x86_64":
        pytest.skip("this Python does not run on an emulated x86 processor")
    qemu = program("qemu-x86_64")
    cases = {
        name: (conv_model(*CONVS[name]), conv_feeds(CONVS[name][0], len(CONVS[name][2]))) for name in CONVS
    }
    cases["resnet20"] = (eight_bits, {"images": cifar10[0][512:515]})
    arguments = []
    for name, (model, feeds) in cases.items():
        files = [tmp_path / f"{name}{end}" for end in (".onnx", ".npz", ".out.npz")]
        save(model, files[0])
        np.savez(files[1], **feeds)  # type: ignore[arg-type]
        arguments += map(str, files)
    packages = str(Path(onnxruntime.__file__).parent.parent)
    command = [qemu, "-cpu", "Haswell", os.path.realpath(sys.executable), "-c", RUN, *arguments]
    environment = {**os.environ, "PYTHONPATH": packages, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=QEMU_LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]
    saturated = 0
    for name, (model, feeds) in cases.items():
        emulator = Emulator(model, ARITHMETICS["x86-avx2"])
        (found,) = emulator.run(feeds).values()
        with np.load(tmp_path / f"{name}.out.npz") as wanted:
            assert np.array_equal(found, wanted["arr_0"]), name
        saturated += sum(s.saturated for s in emulator.saturation.values())
    assert saturated > 10_000


def test_signed_activations_score_as_unsigned_ones(
    eight_bits: Model, resnet20: Model, cifar10, apply
) -> None:
    batches = [{"images": cifar10[0][i : i + 32]} for i in range(0, 128, 32)]
    context = passes.Context(arithmetic=ARITHMETICS["arm"], calibration=lambda: iter(batches))
    signed = apply(resnet20, "clean", "fuse", "int8", context=context)
    feeds = {"images": cifar10[0][512:544]}
    assert np.array_equal(
        emulate(signed, ARITHMETICS["arm"], feeds)[0], emulate(eight_bits, ARITHMETICS["x86-vnni"], feeds)[0]
    )
    assert np.array_equal(  # ONNX Runtime on x86 makes them unsigned, and saturates
        emulate(signed, ARITHMETICS["x86-avx2"], feeds)[0],
        emulate(eight_bits, ARITHMETICS["x86-avx2"], feeds)[0],
    )


# saturation is flagged, and fewer bits remove it


def test_a_planted_layer_that_saturates_is_flagged_and_seven_bits_remove_it(apply, make_model) -> None:
    rng = np.random.default_rng(5)
    tame = np.zeros((8, 8, 3, 3), np.float32)
    tame[:, :, 1, 1] = rng.normal(0, 0.05, (8, 8))
    tame[np.arange(8), np.arange(8), 0, 0] = 1.0  # one large weight a channel: never two in a pair
    wild = rng.choice([-1.0, 1.0], (8, 8, 3, 3)).astype(np.float32)
    wild[:, 1::2] = wild[:, ::2]  # neighbours pull the same way
    model = make_model(
        [
            helper.make_node("Conv", ["x", "a"], ["h"], name="tame"),
            helper.make_node("Conv", ["h", "b"], ["i"], name="wild"),
            helper.make_node("Conv", ["i", "a"], ["y"], name="last"),
        ],
        {"x": ["n", 8, 16, 16]},
        ["y"],
        constants={"a": tame, "b": wild},
    )
    batches = [{"x": rng.uniform(0, 1, (4, 8, 16, 16)).astype(np.float32)} for _ in range(2)]
    found = {}
    for bits in (8, 7):
        context = passes.Context(
            arithmetic=Arithmetic("u8", weight_bits=bits), calibration=lambda: iter(batches)
        )
        emulator = Emulator(apply(model, "int8", context=context), ARITHMETICS["x86-avx2"])
        emulator.run(batches[0])
        found[bits] = {name: s.saturated for name, s in emulator.saturation.items()}
    assert [name for name, count in found[8].items() if count] == ["wild"]
    assert found[8]["wild"] > 1000
    assert set(found[7].values()) == {0}
    assert Saturation(4, 1) + Saturation(2, 1) == Saturation(6, 2)


def test_seven_bits_score_the_same_with_and_without_vnni(resnet20: Model, cifar10, apply) -> None:
    batches = [{"images": cifar10[0][i : i + 32]} for i in range(0, 64, 32)]
    context = passes.Context(arithmetic=ARITHMETICS["x86-avx2"], calibration=lambda: iter(batches))
    model = apply(resnet20, "clean", "fuse", "int8", context=context)
    feeds = {"images": cifar10[0][512:544]}
    answers = [emulate(model, ARITHMETICS[name], feeds)[0] for name in ("x86-vnni", "x86-avx2", "arm")]
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_four_bits_between_wide_edges_saturate_nowhere(resnet20: Model, cifar10, apply) -> None:
    pictures = cifar10[0][:32]
    context = passes.Context(ARITHMETICS["x86-vnni"], lambda: iter([{"images": pictures}]))
    bits = {"weight_bits": 4, "wide_edges": True}
    quantized = apply(resnet20, "clean", "fuse", ("int8", bits), context=context)
    emulators = [Emulator(quantized, ARITHMETICS[name]) for name in ("x86-vnni", "x86-avx2")]
    one, two = (emulator.run({"images": pictures[:8]})["logits"] for emulator in emulators)
    assert np.array_equal(one, two)
    assert not sum(emulators[1].saturation.values(), Saturation()).saturated


def test_arithmetics_have_names_and_sources() -> None:
    for name, arithmetic in ARITHMETICS.items():
        assert arithmetic.name == name
        assert arithmetic.sources
        assert (arithmetic.weight_bits < 8) == (arithmetic.accumulator == PAIRS)
    for target in targets.TARGETS.values():
        used = [t.arithmetic for t in target.toolchains if t.arithmetic is not None]
        assert all(arithmetic.name in ARITHMETICS for arithmetic in used)


# LiteRT's reference kernels


@pytest.mark.parametrize(
    "file",
    [
        "image_classification/trained_models/pretrainedResnet_quant.tflite",
        "keyword_spotting/trained_models/kws_ref_model.tflite",
        "anomaly_detection/trained_models/ad01_int8.tflite",
    ],
)
def test_tflites_rounding_is_that_of_its_reference_kernels(shared_data: Path, file: str) -> None:
    """Each operator alone, fed with LiteRT's own inputs."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    path = shared_data / "mlperf_tiny" / "benchmark" / "training" / file
    graph = tflite.read(path, max_bytes=1 << 24)
    interpreter = litert.Interpreter(
        str(path),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    rows = np.random.default_rng(2).integers(-128, 128, given["shape"]).astype(given["dtype"])
    interpreter.set_tensor(given["index"], rows)
    interpreter.invoke()
    compared = 0
    for operator in graph.operators:
        model = operator_model(graph, operator)
        if model is None:
            continue
        arrays = [
            interpreter.get_tensor(i) for i in operator.inputs if i >= 0 and graph.tensors[i].data is None
        ]
        wanted = interpreter.get_tensor(operator.outputs[0])
        turned = [np.moveaxis(a, -1, 1) if a.ndim == 4 else a for a in arrays]
        feeds = {spec.name: array for spec, array in zip(model.inputs, turned, strict=True)}
        (real,) = emulate(model, ARITHMETICS["tflite-reference"], feeds)
        result = graph.tensors[operator.outputs[0]]
        integers = np.rint(real / result.scales[0]).astype(np.int64) + result.zero_points[0]
        integers = np.moveaxis(integers, 1, -1) if integers.ndim == 4 else integers
        assert np.array_equal(integers.reshape(wanted.shape), wanted), operator.name
        compared += wanted.size
    assert compared > 1000


def operator_model(graph: tflite.TfliteFile, operator: tflite.Operator) -> Model | None:
    """The ONNX graph of one TFLite operator on int8 inputs, None for kinds that this test leaves out."""
    kinds = {"CONV_2D": "Conv", "DEPTHWISE_CONV_2D": "Conv", "FULLY_CONNECTED": "Gemm", "ADD": "Add"}
    if operator.name not in kinds:
        return None
    nodes, constants, inputs, names = [], {}, {}, []
    for position, index in enumerate(i for i in operator.inputs if i >= 0):
        tensor = graph.tensors[index]
        name, axis = f"t{position}", 0
        data = tensor.data
        if data is None:
            inputs[name] = [None] * len(tensor.shape)
        else:
            if operator.name == "DEPTHWISE_CONV_2D" and data.ndim == 4:
                data = data.transpose(3, 0, 1, 2)
            elif data.ndim == 4:
                data = data.transpose(0, 3, 1, 2)
            constants[name] = data
        many = tensor.scales.size > 1
        constants[f"{name}_scale"] = (
            tensor.scales.astype(np.float32) if many else np.float32(tensor.scales[0])
        )
        zero = tensor.zero_points.astype(tensor.dtype)
        constants[f"{name}_zero"] = zero if many else zero[0]
        nodes.append(
            helper.make_node(
                "DequantizeLinear", [name, f"{name}_scale", f"{name}_zero"], [f"{name}d"], axis=axis
            )
        )
        names.append(f"{name}d")
    result, clipped = graph.tensors[operator.outputs[0]], activation_of(operator)
    constants["y_scale"] = np.float32(result.scales[0])
    constants["y_zero"] = np.int8(result.zero_points[0])
    nodes += [
        helper.make_node(
            kinds[operator.name], names, ["y" if clipped else "z"], **attributes_of(graph, operator)
        ),
        *clipped,
        helper.make_node("QuantizeLinear", ["z", "y_scale", "y_zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "y_scale", "y_zero"], ["out"]),
    ]
    return build(nodes, inputs, {"out": len(result.shape)}, constants, TensorProto.INT8)


def attributes_of(graph: tflite.TfliteFile, operator: tflite.Operator) -> dict:
    if operator.name == "FULLY_CONNECTED":
        return {"transB": 1}
    if operator.name == "ADD":
        return {}
    options = operator.options
    found = {
        "strides": [options["stride_h"], options["stride_w"]],
        "auto_pad": "SAME_UPPER" if options["padding"] == 0 else "VALID",
    }
    if operator.name == "DEPTHWISE_CONV_2D":
        found["group"] = graph.tensors[operator.inputs[0]].shape[-1]
    return found


def activation_of(operator: tflite.Operator) -> list[onnx.NodeProto]:
    return [helper.make_node("Relu", ["y"], ["z"])] if operator.options["activation"] == 1 else []


@pytest.mark.parametrize("end", ["Relu", "Identity"])
def test_an_operator_left_in_float_between_integers_is_float_in_the_engine(
    end, make_model, apply, outputs, integer_kernels
):
    """ONNX Runtime would quantize its weights itself, with one scale for channels that differ a hundredfold."""
    rng = np.random.default_rng(3)
    weights = [rng.standard_normal((8, 8, 3, 3)).astype(np.float32) / 9 for _ in range(3)]
    weights[1][0] *= 100
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["a", "w1"], ["b"], pads=[1] * 4, name="left"),
        helper.make_node(end, ["b"], ["c"]),
        helper.make_node("Conv", ["c", "w2"], ["y"], pads=[1] * 4),
    ]
    constants = {f"w{i}": weight for i, weight in enumerate(weights)}
    model = make_model(nodes, {"x": ["n", 8, 9, 9]}, ["y"], constants=constants)
    feeds = conv_feeds(8, 2)
    context = passes.Context(arithmetic=own(), calibration=lambda: iter([feeds]))
    made = apply(model, "clean", ("int8", {"exclude": ("left",)}), "shrink", context=context)
    assert (integer_kernels(made)["QLinearConv"], integer_kernels(made)["Conv"]) == (2, 1)
    assert np.abs(emulate(made, own(), feeds)[0] - outputs(made, feeds)[0]).max() < 1e-3


def test_what_was_left_in_float_is_recast_with_its_quantizer(make_model, apply, outputs):
    weights = [np.random.default_rng(i).standard_normal((8, 8, 1, 1)).astype(np.float32) for i in range(3)]
    nodes = [
        helper.make_node("Conv", [name, f"w{i}", f"b{i}"], [made], name=f"n{i}")
        for i, (name, made) in enumerate(zip("xab", "aby", strict=True))
    ]
    constants = {f"w{i}": weight for i, weight in enumerate(weights)}
    constants |= {f"b{i}": weight[0, :, 0, 0] for i, weight in enumerate(weights)}
    model, feeds = make_model(nodes, {"x": ["n", 8, 9, 9]}, ["y"], constants=constants), conv_feeds(8, 2)
    context = passes.Context(arithmetic=own(), calibration=lambda: iter([feeds]))
    made = apply(model, ("int8", {"exclude": ("n1",)}), context=context)
    symmetric = Arithmetic("u8", symmetric_activations=True)
    for form in (made, apply(made, "shrink")):
        (found,) = emulate(recast(form, symmetric), symmetric, feeds)
        (expected,) = outputs(model, feeds)
        assert np.abs(found - expected).mean() < 0.03 * np.abs(expected).max()
