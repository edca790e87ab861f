"""Every operator with an integer kernel: what TFLite answers, within one quantum of the graph with its quantizers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import parser

from farrier_contracts.targets import ARITHMETICS
from farrier_converters import passes
from farrier_converters.compilers.tflite import Lowered, lower_model
from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto
from farrier_converters.tflite.write import write

pytest.importorskip("ai_edge_litert")

IMAGE, ROW = "float[n,4,6,6] x", "float[n,8] x"
IMAGES, ROWS = f"{IMAGE}, float[n,4,6,6] z", f"{ROW}, float[n,8] z"


@dataclass(frozen=True)
class Case:
    """A graph as text (inputs, constants, nodes that make y), and the TFLite operators that it has to become."""

    inputs: str
    body: str
    operators: str
    constants: str = ""


CASES = {
    "conv": Case(IMAGE, "y = Conv <pads=[1,1,1,1]> (x, w, b)", "CONV_2D", "w[8,4,3,3] b[8]"),
    "conv-no-bias": Case(IMAGE, "y = Conv (x, w)", "CONV_2D", "w[8,4,3,3]"),
    "conv-uneven-pads": Case(IMAGE, "y = Conv <pads=[1,0,0,2]> (x, w)", "PAD CONV_2D", "w[8,4,3,3]"),
    "conv-stride": Case(
        IMAGE, "y = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w, b)", "PAD CONV_2D", "w[8,4,3,3] b[8]"
    ),
    "conv-dilated": Case(IMAGE, "y = Conv <dilations=[2,2]> (x, w)", "CONV_2D", "w[8,4,3,3]"),
    "conv-1d": Case("float[n,4,9] x", "y = Conv (x, w, b)", "RESHAPE CONV_2D RESHAPE", "w[8,4,3] b[8]"),
    "conv-groups": Case(
        IMAGE,
        "y = Conv <group=2> (x, w, b)",
        "SPLIT CONV_2D CONV_2D CONCATENATION",
        "w[8,2,3,3] b[8]",
    ),
    "depthwise": Case(
        IMAGE, "y = Conv <group=4, pads=[1,1,1,1]> (x, w, b)", "DEPTHWISE_CONV_2D", "w[4,1,3,3] b[4]"
    ),
    "depthwise-multiplier": Case(
        IMAGE, "y = Conv <group=4> (x, w, b)", "DEPTHWISE_CONV_2D", "w[8,1,3,3] b[8]"
    ),
    "conv-relu": Case(IMAGE, "t = Conv (x, w, b) y = Relu (t)", "CONV_2D", "w[8,4,3,3] b[8]"),
    "conv-relu6": Case(
        IMAGE, "t = Conv (x, w, b) y = Clip (t, lo, hi)", "CONV_2D", "w[8,4,3,3] b[8] lo=0 hi=6"
    ),
    "transposed": Case(
        "float[2,4,6,6] x", "y = ConvTranspose <strides=[2,2]> (x, w, b)", "TRANSPOSE_CONV", "w[4,8,2,2] b[8]"
    ),
    "gemm": Case(ROW, "y = Gemm <transB=1> (x, w, b)", "FULLY_CONNECTED", "w[5,8] b[5]"),
    "matmul": Case("float[n,3,8] x", "y = MatMul (x, w)", "FULLY_CONNECTED", "w[8,5]"),
    "matmul-of-two": Case("float[n,3,8] x, float[n,8,5] z", "y = MatMul (x, z)", "BATCH_MATMUL"),
    "flatten-gemm": Case(
        IMAGE,
        "t = Conv (x, w, b) f = Flatten (t) y = Gemm (f, v, c)",
        "CONV_2D RESHAPE FULLY_CONNECTED",
        "w[8,4,3,3] b[8] v[128,5] c[5]",
    ),
    "add": Case(IMAGES, "y = Add (x, z)", "ADD"),
    "sub": Case(IMAGES, "y = Sub (x, z)", "SUB"),
    "mul": Case(IMAGES, "y = Mul (x, z)", "MUL"),
    "add-constant": Case(IMAGE, "y = Add (x, c)", "ADD", "c[4,1,1]"),
    "mul-number": Case(IMAGE, "y = Mul (x, c)", "MUL", "c=0.37"),
    "max": Case(IMAGES, "y = Max (x, z)", "QUANTIZE? MAXIMUM"),
    "min": Case(IMAGES, "y = Min (x, z)", "QUANTIZE? MINIMUM"),
    "concat": Case(IMAGES, "y = Concat <axis=1> (x, z)", "QUANTIZE? CONCATENATION"),
    "sigmoid": Case(IMAGE, "y = Sigmoid (x)", "LOGISTIC"),
    "tanh": Case(IMAGE, "y = Tanh (x)", "TANH"),
    "hard-sigmoid": Case(IMAGE, "y = HardSigmoid <alpha=0.1667> (x)", "ADD MUL"),
    "hard-swish": Case(IMAGE, "y = HardSwish (x)", "HARD_SWISH"),
    "softmax": Case(ROW, "y = Softmax (x)", "SOFTMAX"),
    "softmax-channels": Case(IMAGE, "y = Softmax <axis=1> (x)", "TRANSPOSE? SOFTMAX"),
    "log-softmax": Case(ROW, "y = LogSoftmax (x)", "LOG_SOFTMAX"),
    "leaky-relu": Case(IMAGE, "y = LeakyRelu <alpha=0.2> (x)", "LEAKY_RELU"),
    "prelu": Case(IMAGE, "y = PRelu (x, s)", "PRELU", "s[4,1,1]"),
    "elu": Case(IMAGE, "y = Elu (x)", "ELU"),
    "relu": Case(IMAGE, "y = Relu (x)", "QUANTIZE"),
    "clip": Case(IMAGE, "y = Clip (x, lo, hi)", "QUANTIZE", "lo=-0.3 hi=0.5"),
    "max-pool": Case(
        IMAGE, "y = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1], strides=[1,1]> (x)", "MAX_POOL_2D"
    ),
    "average-pool": Case(IMAGE, "y = AveragePool <kernel_shape=[2,2], strides=[2,2]> (x)", "AVERAGE_POOL_2D"),
    "global-average": Case(IMAGE, "y = GlobalAveragePool (x)", "MEAN RESHAPE?"),
    "mean": Case("float[n,3,8] x", "y = ReduceMean <axes=[2], keepdims=0> (x)", "MEAN"),
    "reduce-max": Case("float[n,3,8] x", "y = ReduceMax <axes=[2]> (x)", "REDUCE_MAX"),
    "transpose": Case("float[n,3,8] x", "y = Transpose <perm=[0,2,1]> (x)", "TRANSPOSE"),
    "pad": Case(IMAGE, "y = Pad (x, p)", "PAD", "p:0,0,1,1,0,0,2,0"),
    "tile": Case(IMAGE, "y = Tile (x, p)", "TILE", "p:1,1,2,1"),
    "gather": Case(IMAGE, "y = Gather <axis=1> (x, p)", "GATHER", "p:2,0,3"),
    "slice": Case(IMAGE, "y = Slice (x, p, q, a)", "STRIDED_SLICE", "p:1 q:4 a:2"),
    "split": Case(IMAGE, "s, t = Split <axis=1> (x) y = Add (s, t)", "SPLIT ADD"),
    "resize-nearest": Case(
        IMAGE,
        'y = Resize <mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"> (x, , s)',
        "RESIZE_NEAREST_NEIGHBOR",
        "s=1,1,2,2",
    ),
    "resize-bilinear": Case(IMAGE, 'y = Resize <mode="linear"> (x, , s)', "RESIZE_BILINEAR", "s=1,1,2,2"),
    "depth-to-space": Case(IMAGE, "y = DepthToSpace <blocksize=2> (x)", "DEPTH_TO_SPACE RESHAPE?"),
    "space-to-depth": Case(IMAGE, "y = SpaceToDepth <blocksize=2> (x)", "SPACE_TO_DEPTH"),
    "silu": Case(IMAGE, "s = Sigmoid (x) y = Mul (x, s)", "LOGISTIC MUL"),
    "residual": Case(
        IMAGE,
        "t = Conv <pads=[1,1,1,1]> (x, w, b) s = Add (t, x) y = Relu (s)",
        "CONV_2D ADD",
        "w[4,4,3,3] b[4]",
    ),
}
STEPS = {"flatten-gemm": 2, "silu": 2, "residual": 2, "split": 1}  # operators that round, one after the other
NOT_IN_REFERENCE = ("elu", "tile", "depth-to-space")  # LiteRT 2.3 has no such reference kernels


def model_of(case: Case, seed: int = 0) -> Model:
    """Build the graph; constants are random (name[shape]), numbers (name=values) or integers (name:values)."""
    rng = np.random.default_rng(seed)
    declared = []
    for text in case.constants.split():
        if "[" in text:
            name, _, shape = text.rstrip("]").partition("[")
            values = rng.normal(0, 0.3, [int(s) for s in shape.split(",")])
            numbers = ", ".join(f"{v:.6f}" for v in values.ravel())
            declared.append(f"float[{shape}] {name} = {{{numbers}}}")
        elif "=" in text:
            name, _, numbers = text.partition("=")
            shape = f"[{numbers.count(',') + 1}]" if "," in numbers else ""
            declared.append(
                f"float{shape} {name} = {{{', '.join(str(float(n)) for n in numbers.split(','))}}}"
            )
        else:
            name, _, numbers = text.partition(":")
            declared.append(f"int64[{numbers.count(',') + 1}] {name} = {{{numbers}}}")
    kept = f" <{', '.join(declared)}>" if declared else ""
    text = (
        f'<ir_version: 8, opset_import: ["": 17]> g ({case.inputs}) => (float[*] y){kept} {{ {case.body} }}'
    )
    return from_proto(parser.parse_model(text.replace("float[*] y", "float y")), "g")


def feeds_of(model: Model, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.normal(0.2, 1 + i, [2 if s <= 0 else s for s in spec.shape]).astype(np.float32)
        for i, spec in enumerate(model.inputs)
    }


def quantized(model: Model, arithmetic: str = "integer-npu") -> Model:
    def batches() -> Iterator[dict[str, np.ndarray]]:
        yield feeds_of(model, 1)

    context = passes.Context(arithmetic=ARITHMETICS[arithmetic], calibration=batches)
    step = passes.get("int8")
    return step.run(model, step.options(method="minmax", bias_correction=False, even=False), context)


def answers(lowered: Lowered, feeds: dict[str, np.ndarray], folder: Path, *, plain: bool) -> np.ndarray:
    """Return y in real numbers, from XNNPACK or from LiteRT's own kernels."""
    from farrier_converters.measure.litert import LiteRtSession

    path = folder / "model.tflite"
    path.write_bytes(write(lowered.file))
    session = LiteRtSession(path, threads=1, reference=plain, options=lowered.options)
    return session.run(feeds)["y"]


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_within_a_quantum_of_the_graph(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = quantized(model_of(case))
    lowered = lower_model(model, integer_ends=True)
    assert lowered.floats == {}
    made = [operator.name for operator in lowered.file.operators]
    wanted = case.operators.split()
    assert made in ([w.rstrip("?") for w in wanted], [w for w in wanted if not w.endswith("?")])
    (output,) = [t for t in lowered.file.tensors if t.name == "y"]
    assert output.dtype == "int8"
    feeds = feeds_of(model, 2)
    exact = np.asarray(run.session(model.proto, optimize=False).run(None, feeds)[0])
    for plain in (False,) if name in NOT_IN_REFERENCE else (False, True):
        found = answers(lowered, feeds, tmp_path, plain=plain)
        steps = np.abs(found - exact) / float(output.scales[0])
        assert steps.max() <= STEPS.get(name, 1) + 0.01, (name, plain)


FAST = {  # what stands between two convolutions -> what a processor gets for it
    "a = AveragePool <kernel_shape=[2,2]> (t)": "DEPTHWISE_CONV_2D",
    "a = HardSwish (t)": "DEQUANTIZE HARD_SWISH QUANTIZE",
    "a = PRelu (t, s)": "DEQUANTIZE PRELU QUANTIZE",
    "a = Tanh (t)": "TANH",
}


@pytest.mark.parametrize("between", FAST)
def test_a_processor_gets_what_is_fast_there(between: str, tmp_path: Path) -> None:
    body = f"t = Conv (x, w, b) {between} y = Conv (a, v, c)"
    constants = "w[8,4,3,3] b[8] v[4,8,1,1] c[4]" + (" s[8,1,1]" if "PRelu" in between else "")
    model = quantized(model_of(Case(IMAGE, body, "", constants)), "xnnpack")
    lowered = lower_model(model)
    made = [operator.name for operator in lowered.file.operators]
    assert made == ["QUANTIZE", "CONV_2D", *FAST[between].split(), "CONV_2D", "DEQUANTIZE"]
    feeds = feeds_of(model, 2)
    exact = np.asarray(run.session(model.proto, optimize=False).run(None, feeds)[0])
    step = float(lowered.file.tensors[lowered.file.operators[-1].inputs[0]].scales[0])
    steps = np.abs(answers(lowered, feeds, tmp_path, plain=False) - exact) / step
    assert steps.max() <= 8  # means lie between two integers, and the convolution adds eight of them up
    assert steps.mean() <= 1


def test_products_of_activations_are_floats_on_a_processor() -> None:
    text = "a = MatMul (x, w) d = MatMul (x, v) e = Transpose <perm=[0,2,1]> (d) y = MatMul (a, e)"
    model = quantized(model_of(Case("float[n,3,8] x", text, "", "w[8,8] v[8,8]")), "xnnpack")
    lowered = lower_model(model)
    made = [operator.name for operator in lowered.file.operators]
    assert made.count("FULLY_CONNECTED") == 2
    product = lowered.file.operators[made.index("BATCH_MATMUL")]
    assert {lowered.file.tensors[i].dtype for i in product.inputs} == {"float32"}


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    """Any convolution over an image, with or without bias and activation."""
    kernel, stride, dilation = (draw(st.tuples(st.integers(1, n), st.integers(1, n))) for n in (3, 2, 2))
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
    group, multiplier = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (4, 1), (4, 2)]))
    channels = 4 * multiplier
    attributes = f"strides={list(stride)}, dilations={list(dilation)}, pads={list(pads)}, group={group}"
    bias = draw(st.booleans())
    after = draw(st.sampled_from(["y = Identity (t)", "y = Relu (t)", "y = Clip (t, lo, hi)"]))
    constants = f"w[{channels},{4 // group},{kernel[0]},{kernel[1]}] lo=-0.2 hi=0.9"
    body = f"t = Conv <{attributes}> (x, w{', b' if bias else ''}) {after}"
    return Case(IMAGE, body, "", f"{constants} b[{channels}]" if bias else constants)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=convolutions(), seed=st.integers(0, 1 << 16))
def test_any_convolution_is_within_a_quantum(case: Case, seed: int, tmp_path: Path) -> None:
    model = quantized(model_of(case, seed))
    lowered = lower_model(model, integer_ends=True)
    assert lowered.floats == {}
    (output,) = [t for t in lowered.file.tensors if t.name == "y"]
    feeds = feeds_of(model, seed)
    exact = np.asarray(run.session(model.proto, optimize=False).run(None, feeds)[0])
    for plain in (False, True):
        steps = np.abs(answers(lowered, feeds, tmp_path, plain=plain) - exact) / float(output.scales[0])
        assert steps.max() <= 1.01


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_a_model_of_integers_keeps_its_ends(kind: str, tmp_path: Path) -> None:
    centre = 0 if kind == "int8" else 128
    nodes = "r = DequantizeLinear (x, s, z) m = MaxPool <kernel_shape=[2,2]> (r) y = QuantizeLinear (m, s, z)"
    text = (
        f'<ir_version: 8, opset_import: ["": 17]> g ({kind}[n,2,4,4] x) => ({kind}[n,2,3,3] y) '
        f"<float s = {{0.5}}, {kind} z = {{{centre + 3}}}> {{ {nodes} }}"
    )
    model = from_proto(parser.parse_model(text), "g")
    lowered = lower_model(model, integer_ends=True)
    assert "quantized" not in lowered.options
    assert {lowered.file.tensors[i].dtype for i in (*lowered.file.inputs, *lowered.file.outputs)} == {kind}
    limits = np.iinfo(kind)
    x = np.random.default_rng(0).integers(limits.min, limits.max + 1, (2, 2, 4, 4)).astype(kind)
    wanted = run.once(model.proto, {"x": x})[0]
    np.testing.assert_array_equal(answers(lowered, {"x": x}, tmp_path, plain=False), wanted)
