"""The INT8 pass: its arithmetic, its placement, and what it costs real models."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, numpy_helper

from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.model import load
from farrier_converters.quantize import scales
from farrier_converters.quantize.calibrate import CalibrationSettings, observe
from farrier_converters.quantize.observe import METHODS, Observer
from farrier_converters.quantize.scales import Range

AVX2 = Arithmetic("u8", weight_bits=7)
finite = st.floats(-1e4, 1e4, width=32)


def _context(feeds, arithmetic=AVX2):
    return passes.Context(arithmetic=arithmetic, calibration=lambda: iter(feeds))


def _noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(low=finite, high=finite, symmetric=st.booleans(), values=hnp.arrays(np.float32, 20, elements=finite))
def test_activation_error_is_half_a_step_inside_the_range(low, high, symmetric, values):
    extent = Range(min(low, high), max(low, high))
    affine = scales.activation(extent, symmetric=symmetric)
    assert 0 <= affine.zero_point <= 255
    zero = np.zeros(1, np.float32)
    assert scales.dequantize(scales.quantize(zero, affine), affine)[0] == 0
    span = (np.array([0, 255]) - affine.zero_point) * float(affine.scale)
    inside = np.clip(values, *span).astype(np.float32)
    error = np.abs(scales.dequantize(scales.quantize(inside, affine), affine) - inside.astype(np.float64))
    assert (error <= float(affine.scale) * 0.5001 + 1e-6 * np.abs(inside)).all()
    if symmetric:
        assert affine.zero_point == 128


@given(high=st.floats(2.0**-20, 2.0**20, width=32))
def test_a_range_from_zero_never_exceeds_its_top(high):
    affine = scales.activation(Range(0.0, high))
    assert affine.zero_point == 0
    assert float(affine.scale) * 255 <= high
    assert float(affine.scale) * 255 >= high * (1 - 1e-6)


@given(
    values=hnp.arrays(np.float32, (4, 3, 2), elements=finite),
    bits=st.sampled_from([7, 8]),
    axis=st.sampled_from([0, 1, None]),
)
def test_weights_are_within_their_range(values, bits, axis):
    integers, scale = scales.weights(values, bits=bits, axis=axis)
    limit = {7: 63, 8: 127}[bits]
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() <= limit
    assert (scale > 0).all()
    shape = [1, 1, 1]
    if axis is not None:
        assert scale.shape == (values.shape[axis],)
        shape[axis] = -1
    step = scale.reshape(shape).astype(np.float64)
    assert (np.abs(integers * step - values) <= step * 0.5001).all()


@given(
    bias=hnp.arrays(np.float32, 5, elements=finite),
    weight=hnp.arrays(np.float32, (5, 4), elements=st.floats(-1, 1, width=32) | st.just(1e-30)),
    input_scale=st.floats(2.0**-20, 2.0**10, width=32),
)
def test_bias_fits_and_has_the_scale_of_its_accumulator(bias, weight, input_scale):
    input_scale = np.float32(input_scale)
    floor = scales.bias_floor(bias, input_scale=input_scale)
    _, weight_scale = scales.weights(weight, bits=8, axis=0, floor=floor)
    integers, scale = scales.bias(bias, input_scale=input_scale, weight_scale=weight_scale)
    assert (scale == input_scale * weight_scale).all()
    assert (scale > 0).all()
    assert np.abs(integers.astype(np.int64)).max() <= scales.BIAS_LIMIT * 1.001
    assert (np.abs(integers * scale.astype(np.float64) - bias) <= 0.501 * scale + 1e-6 * np.abs(bias)).all()


@given(batches=st.lists(hnp.arrays(np.float32, st.integers(1, 40), elements=finite), min_size=1, max_size=6))
def test_observer_has_exact_extremes_and_counts_everything(batches):
    observer = Observer("t")
    for batch in batches:
        observer.add(batch)
    values = np.concatenate(batches)
    assert observer.counts.sum() == values.size == observer.seen
    assert observer.range("minmax") == Range(min(values.min(), 0), max(values.max(), 0))
    for method in METHODS:
        extent = observer.range(method)
        assert observer.low <= extent.low <= 0 <= extent.high <= observer.high


def test_observer_clips_outliers_and_refuses_what_is_not_finite():
    observer = Observer("t")
    observer.add(np.concatenate([_noise(100_000), np.array([300.0], np.float32)]))
    assert observer.range("minmax").high == 300
    assert observer.range("percentile", percentile=99.9).high < 5
    assert observer.range("mse").high < 300
    with pytest.raises(InputError, match="'t' is not finite"):
        observer.add(np.array([np.nan], np.float32))


def test_calibration_memory_does_not_grow_with_the_data(make_model):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    model = make_model(nodes, {"x": ["N", 100_000]}, ["y"])

    def peak(count):
        tracemalloc.start()
        observe(
            model,
            ["x", "a"],
            batches=lambda: ({"x": _noise((4, 100_000), seed=i)} for i in range(count)),
            progress=lambda *_: None,
        )
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(2)
    assert peak(24) < peak(3) * 1.3


def test_calibration_in_chunks_sees_the_same(make_model):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    model = make_model(nodes, {"x": ["N", 8]}, ["y"])
    starts = []

    def batches():
        starts.append(1)
        return ({"x": _noise((2, 8), seed=i)} for i in range(3))

    heard = []
    whole, parts = (
        observe(
            model,
            ["x", "a", "y"],
            batches=batches,
            progress=lambda stage, share: heard.append((stage, share)),
            settings=CalibrationSettings(chunk_elements=elements),
        )
        for elements in (1000, 8)
    )
    assert len(starts) == 1 + 3
    assert heard[-1] == ("calibrate", 1.0)
    for name, observer in whole.items():
        assert (observer.counts == parts[name].counts).all()


def _kernels_are_integer(found, float_ops=("Conv", "Gemm", "Add", "BatchNormalization")):
    return not set(float_ops) & set(found)


@pytest.fixture(scope="module")
def quantized_resnet20(resnet20, cifar10, apply):
    images = cifar10[0][:512]
    batches = [{"images": images[i : i + 32]} for i in range(0, 512, 32)]
    return apply(resnet20, "clean", "fuse", "int8", context=_context(batches))


def test_resnet20_loses_at_most_a_point(resnet20, quantized_resnet20, cifar10, outputs):
    images, labels = cifar10[0][512:], cifar10[1][512:]
    expected = outputs(resnet20, {"images": images})[0].argmax(1) == labels
    found = outputs(quantized_resnet20, {"images": images})[0].argmax(1) == labels
    assert expected.mean() > 0.83
    assert expected.mean() - found.mean() <= 0.01
    assert quantized_resnet20.proto.ByteSize() < resnet20.proto.ByteSize() / 3


def test_resnet20_runs_on_integer_kernels_only(quantized_resnet20, integer_kernels):
    found = integer_kernels(quantized_resnet20)
    assert _kernels_are_integer(found)
    assert (found["QLinearConv"], found["QLinearAdd"], found["QGemm"]) == (19, 9, 1)
    assert found.get("QuantizeLinear") == 1
    assert "DequantizeLinear" not in found


def test_weights_of_seven_bits_and_bias_scales(quantized_resnet20):
    constants = {t.name: numpy_helper.to_array(t) for t in quantized_resnet20.proto.graph.initializer}
    producer = {name: n for n in quantized_resnet20.proto.graph.node for name in n.output}
    checked = 0
    for node in quantized_resnet20.proto.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            x, w, b = (producer[name] for name in node.input)
            weights = constants[w.input[0]]
            assert weights.dtype == np.int8
            assert np.abs(weights.astype(int)).max() == 63
            np.testing.assert_array_equal(
                constants[x.input[1]] * constants[w.input[1]], constants[b.input[1]]
            )
            checked += 1
    assert checked == 20


def test_signed_and_symmetric_arithmetic(resnet20, cifar10, apply, outputs):
    images = cifar10[0]
    batches = [{"images": images[:64]}]
    model = apply(resnet20, "clean", "fuse")
    expected = outputs(model, {"images": images[64:128]})[0].argmax(1)
    for arithmetic in (
        Arithmetic("s8"),
        Arithmetic("s8", symmetric_activations=True),
        Arithmetic("u8", weight_bits=7, per_channel=False),
    ):
        quantized = apply(model, "int8", context=_context(batches, arithmetic))
        found = outputs(quantized, {"images": images[64:128]})[0].argmax(1)
        assert (found == expected).mean() >= 0.9
        kinds = {t.data_type for t in quantized.proto.graph.initializer if t.name.startswith("zero_point_")}
        wanted = onnx.TensorProto.INT8 if arithmetic.activations == "s8" else onnx.TensorProto.UINT8
        assert kinds == {wanted}


def _pictures(shared_data):
    from PIL import Image

    pictures = []
    for name in ("grace_hopper.bmp", "cat.bmp", "bird.bmp", "parrot.jpg", "hot_dog.jpg"):
        with Image.open(shared_data / "coral" / name) as image:
            pixels = np.asarray(image.convert("RGB").resize((320, 240)), np.float32)
        pictures.append({"input": (pixels.transpose(2, 0, 1)[None] - 127) / 128})
    return pictures


@pytest.mark.parametrize("name", ["version-RFB-320.onnx", "version-RFB-320_without_postprocessing.onnx"])
def test_ultraface_stays_close(shared_data, apply, outputs, integer_kernels, name):
    model = load(shared_data / "ultraface" / "models" / "onnx" / name)
    pictures = _pictures(shared_data)
    quantized = apply(model, "clean", "fuse", "int8", context=_context(pictures))
    assert [spec.name for spec in quantized.outputs] == ["scores", "boxes"]
    kernels = integer_kernels(quantized)
    assert kernels["QLinearConv"] == 52
    assert "Conv" not in kernels
    for number, feeds in enumerate(pictures):
        expected, found = outputs(model, feeds), outputs(quantized, feeds)
        assert np.abs(found[0] - expected[0]).mean() < 0.01
        if "without" not in name:
            assert np.abs(found[1] - expected[1]).mean() < 0.02
        faces = found[0][0, :, 1].max() > 0.7
        assert faces == (number == 0)


def test_silero_keeps_control_flow_in_float(shared_data, apply, outputs):
    model = load(shared_data / "silero_vad/src/silero_vad/data/silero_vad_16k_op15.onnx")

    def feeds(seed):
        state = np.zeros((2, 1, 128), np.float32)
        return {"input": _noise((1, 576), seed) / 20, "state": state, "sr": np.array(16000, np.int64)}

    quantized = apply(model, "clean", "fuse", "int8", context=_context([feeds(i) for i in range(4)]))
    reasons = {n.op_type: n.metadata_props[0].value for n in quantized.proto.graph.node if n.metadata_props}
    assert "no integer kernel" in reasons["If"]
    assert any(n.op_type == "QuantizeLinear" for n in quantized.proto.graph.node)
    expected, found = outputs(model, feeds(9)), outputs(quantized, feeds(9))
    assert abs(expected[0] - found[0]).max() < 0.2
    batch = {
        "input": _noise((3, 576)) / 20,
        "state": np.zeros((2, 3, 128), np.float32),
        "sr": np.array(16000),
    }
    assert outputs(quantized, batch)[0].shape == (3, 1)


def _conv_model(make_model, weight, bias, **more):
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    constants = {"w": weight, "b": bias}
    return make_model(nodes, {"x": ["N", weight.shape[1], 4, 4]}, ["y"], constants=constants, **more)


def test_dead_channels_and_large_biases(make_model, apply, outputs):
    weight = _noise((4, 3, 1, 1))
    weight[1] = 0
    weight[2] *= 1e-12
    bias = np.array([0, 5, -7, 100], np.float32)
    model = _conv_model(make_model, weight, bias)
    feeds = {"x": _noise((2, 3, 4, 4))}
    found = outputs(apply(model, "int8", context=_context([feeds])), feeds)[0]
    expected = outputs(model, feeds)[0]
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_eight_bits_saturate_where_seven_do_not(make_model, apply):
    """The reason for `weight_bits`: pairs of products are summed in 16 bits by `vpmaddubsw`."""
    for bits, fits in ((8, False), (7, True)):
        weight = np.full((4, 64, 1, 1), 3, np.float32)
        model = _conv_model(make_model, weight, np.zeros(4, np.float32))
        context = _context([{"x": np.ones((1, 64, 4, 4), np.float32)}], Arithmetic("u8", weight_bits=bits))
        quantized = apply(model, "int8", context=context)
        stored = next(
            numpy_helper.to_array(t) for t in quantized.proto.graph.initializer if t.name == "w_quantized"
        )
        assert (2 * 255 * int(stored.max()) <= np.iinfo(np.int16).max) == fits


def test_dead_activations(make_model, apply, outputs):
    model = _conv_model(make_model, np.zeros((2, 3, 1, 1), np.float32), np.zeros(2, np.float32))
    feeds = {"x": np.zeros((1, 3, 4, 4), np.float32)}
    found = outputs(apply(model, "int8", context=_context([feeds])), feeds)[0]
    assert not found.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(make_model, apply, value):
    weight = _noise((2, 3, 1, 1))
    model = _conv_model(make_model, weight, np.array([0, value], np.float32))
    with pytest.raises(InputError, match="not finite"):
        apply(model, "int8", context=_context([{"x": _noise((1, 3, 4, 4))}]))


def test_data_that_does_not_fit(make_model, apply):
    model = _conv_model(make_model, _noise((2, 3, 1, 1)), np.zeros(2, np.float32))
    with pytest.raises(UsageError, match="calibration data"):
        apply(model, "int8")
    with pytest.raises(InputError, match="no samples"):
        apply(model, "int8", context=_context([]))
    with pytest.raises(InputError, match="does not fit"):
        apply(model, "int8", context=_context([{"x": _noise((1, 2, 4, 4))}]))
    with pytest.raises(UsageError, match="range method"):
        apply(model, ("int8", {"method": "guess"}), context=_context([]))
    old = _conv_model(make_model, _noise((2, 3, 1, 1)), np.zeros(2, np.float32), opset=11)
    with pytest.raises(InputError):
        apply(old, "int8", context=_context([{"x": _noise((1, 2, 4, 4))}]))


def test_shared_scales_excluded_nodes_and_stems(make_model, apply, outputs, integer_kernels):
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem"),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="left"),
        helper.make_node("MaxPool", ["b"], ["d"], kernel_shape=[1, 1]),
        helper.make_node("Concat", ["c", "d"], ["e"], axis=1),
        helper.make_node("Transpose", ["e"], ["f"], perm=[0, 1, 3, 2]),
        helper.make_node("Conv", ["f", "w3"], ["y"], name="last"),
    ]
    constants = {
        "w1": _noise((8, 3, 1, 1)) * 4,
        "w2": _noise((8, 8, 1, 1), 1),
        "w3": _noise((2, 16, 1, 1), 2),
        "zero": np.zeros((), np.float32),
        "six": np.array(6, np.float32),
    }
    model = make_model(nodes, {"x": ["N", 3, 4, 4]}, ["y"], constants=constants)
    feeds = {"x": _noise((2, 3, 4, 4))}
    context = _context([feeds])
    whole = apply(model, "int8", context=context)
    kernels = integer_kernels(whole)
    assert _kernels_are_integer(kernels, ("Conv", "Clip", "Concat"))
    producer = {name: n for n in whole.proto.graph.node for name in n.output}
    pairs = [producer[name] for name in (*producer["e_float"].input, "e", "f")]
    assert len({tuple(pair.input[1:]) for pair in pairs}) == 1
    expected = outputs(model, feeds)[0]
    assert np.abs(outputs(whole, feeds)[0] - expected).max() < 0.05 * np.abs(expected).max()
    excluded = apply(model, ("int8", {"exclude": ("left",)}), context=context)
    assert integer_kernels(excluded)["Conv"] == 1
    stemless = apply(model, ("int8", {"stem": False}), context=context)
    floats = Counter(n.name for n in stemless.proto.graph.node if n.metadata_props)
    assert floats["stem"] == 1
    assert integer_kernels(stemless)["QLinearConv"] == 2


def test_attention_with_two_activations(make_model, apply, outputs):
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"]),
        helper.make_node("MatMul", ["x", "wk"], ["k"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "x"], ["y"]),
    ]
    constants = {"wq": _noise((8, 8)) / 3, "wk": _noise((8, 8), 1) / 3}
    model = make_model(nodes, {"x": ["N", 5, 8]}, ["y"], constants=constants)
    feeds = {"x": _noise((3, 5, 8))}
    quantized = apply(model, "int8", context=_context([feeds]))
    expected = outputs(model, feeds)[0]
    assert np.abs(outputs(quantized, feeds)[0] - expected).max() < 0.1 * np.abs(expected).max()
    assert run.same(
        outputs(quantized, {"x": feeds["x"][:1]}), [outputs(quantized, feeds)[0][:1]], tolerance=1e-6
    )


def test_same_inputs_give_the_same_bytes(make_model, apply):
    model = _conv_model(make_model, _noise((2, 3, 1, 1)), np.zeros(2, np.float32))
    feeds = [{"x": _noise((1, 3, 4, 4))}]
    first, second = (
        apply(model, "int8", context=_context(feeds)).proto.SerializeToString(deterministic=True)
        for _ in "ab"
    )
    assert first == second


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 4),
    transposed=st.booleans(),
    biased=st.booleans(),
    relu=st.booleans(),
)
def test_any_pair_of_gemms_stays_close(seed, rows, transposed, biased, relu, make_model, apply, outputs):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(7, 6)).astype(np.float32)
    constants = {
        "w1": first.T.copy() if transposed else first,
        "w2": rng.normal(size=(6, 3)).astype(np.float32),
    }
    inputs = ["x", "w1"]
    if biased:
        constants["b"] = rng.normal(size=6).astype(np.float32)
        inputs.append("b")
    nodes = [helper.make_node("Gemm", inputs, ["a"], transB=int(transposed), alpha=0.5)]
    nodes.append(helper.make_node("Relu" if relu else "Identity", ["a"], ["r"]))
    nodes.append(helper.make_node("Gemm", ["r", "w2"], ["y"]))
    model = make_model(nodes, {"x": ["N", 7]}, ["y"], constants=constants)
    feeds = {"x": rng.normal(size=(rows, 7)).astype(np.float32)}
    context = _context([feeds], Arithmetic("u8", weight_bits=7))
    quantized = apply(model, "clean", "fuse", ("int8", {"method": "minmax"}), context=context)
    expected = outputs(model, feeds)[0]
    bound = 0.04 * (np.abs(constants["w2"]).sum(0).max() + 1) * (np.abs(feeds["x"]).max() + 1)
    assert np.abs(outputs(quantized, feeds)[0] - expected).max() < bound


def test_spectra_stay_in_float(make_model, apply, outputs):
    """Magnitudes span orders: what makes the parts of a spectrum and what reads its roots has no scale of 8 bits."""
    nodes = [
        helper.make_node("Conv", ["x", "basis"], ["parts"], name="transform"),
        helper.make_node("Split", ["parts"], ["real", "imaginary"], axis=1),
        helper.make_node("Pow", ["real", "two"], ["r2"]),
        helper.make_node("Pow", ["imaginary", "two"], ["i2"]),
        helper.make_node("Add", ["r2", "i2"], ["power"]),
        helper.make_node("Sqrt", ["power"], ["magnitude"]),
        helper.make_node("Conv", ["magnitude", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["y"], name="second"),
    ]
    constants = {
        "basis": _noise((16, 2, 8)),
        "two": np.array(2, np.float32),
        "w1": _noise((8, 8, 3), 1),
        "w2": _noise((4, 8, 3), 2),
    }
    model = make_model(nodes, {"x": ["N", 2, 32]}, ["y"], constants=constants)
    feeds = {"x": _noise((2, 2, 32))}
    quantized = apply(model, "int8", context=_context([feeds]))
    reasons = {n.name: n.metadata_props[0].value for n in quantized.proto.graph.node if n.metadata_props}
    assert "Pow spreads" in reasons["transform"]
    assert "Sqrt spreads" in reasons["first"]
    assert "second" not in reasons


def test_arithmetic_without_integer_kernels_is_written_in_arithmetic_with(
    make_model, apply, outputs, integer_kernels
):
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"]),
        helper.make_node("PRelu", ["a", "slope"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"]),
        helper.make_node("Sum", ["b", "c"], ["d"]),
        helper.make_node("Sub", ["d", "map"], ["e"]),
        helper.make_node("Div", ["e", "map2"], ["f"]),
        helper.make_node("DepthToSpace", ["f"], ["g"], blocksize=2),
        helper.make_node("Conv", ["g", "w3"], ["y"]),
    ]
    constants = {
        "w1": _noise((8, 3, 1, 1)),
        "slope": np.full((8, 1, 1), 0.25, np.float32),
        "w2": _noise((8, 8, 1, 1), 1) / 3,
        "map": _noise((8, 6, 6), 2),
        "map2": np.abs(_noise((8, 6, 6), 3)) + 1,
        "w3": _noise((4, 2, 1, 1), 4),
    }
    model = make_model(nodes, {"x": ["N", 3, 6, 6]}, ["y"], constants=constants)
    feeds = {"x": _noise((2, 3, 6, 6))}
    fused = apply(model, "clean", "fuse")
    assert run.same(outputs(fused, feeds), outputs(model, feeds), tolerance=1e-5)
    quantized = apply(fused, "int8", context=_context([feeds]))
    kernels = integer_kernels(quantized)
    assert kernels["QLinearConv"] == 3
    assert kernels["QLinearAdd"] == 2
    assert kernels["QLinearMul"] == kernels["QLinearLeakyRelu"] == 1
    assert not {"Sub", "Div", "Sum", "PRelu", "Conv"} & set(kernels)
    assert kernels["DequantizeLinear"] == kernels["QuantizeLinear"] == 1
    expected = outputs(model, feeds)[0]
    assert np.abs(outputs(quantized, feeds)[0] - expected).mean() < 0.05 * np.abs(expected).mean()
