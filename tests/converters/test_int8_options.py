"""The options of the INT8 pass: range methods, few bits, powers of two, per tensor, symmetric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, numpy_helper

from farrier_contracts.errors import UsageError
from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.model import from_proto
from farrier_converters.passes.int8 import Int8Options
from farrier_converters.quantize import scales
from farrier_converters.quantize.observe import METHODS, Observer
from farrier_converters.quantize.scales import Range

VNNI = Arithmetic("u8")
finite = st.floats(-1e4, 1e4, width=32)


@pytest.fixture(scope="module")
def context(cifar10):
    images = cifar10[0][:128]
    return passes.Context(VNNI, lambda: ({"images": images[i : i + 32]} for i in range(0, 128, 32)))


@pytest.fixture(scope="module")
def quantized(resnet20, apply, context):
    """Quantize the ResNet20 with these options of the pass."""
    fused = apply(resnet20, "clean", "fuse")
    return lambda **options: apply(fused, ("int8", options), context=context)


@pytest.fixture(scope="module")
def error(resnet20, cifar10, outputs):
    """Root mean square error of a model's logits against the float ResNet20's, on other pictures."""
    images = {"images": cifar10[0][512:768]}
    expected = outputs(resnet20, images)[0]
    return lambda model: float(np.sqrt(np.mean(np.square(outputs(model, images)[0] - expected))))


def _constants(model):
    return {t.name: numpy_helper.to_array(t) for t in model.proto.graph.initializer}


def _scales(model):
    constants = _constants(model)
    ops = ("QuantizeLinear", "DequantizeLinear")
    names = {n.input[1] for n in model.proto.graph.node if n.op_type in ops}
    return [constants[name] for name in sorted(names)]


def _integer_values(model, images):
    """Return what every quantizer of activations really hands on, as ONNX Runtime computes it."""
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    constants = set(_constants(model))
    kind = {"u8": 2, "s8": 3}
    names = [
        n.input[0]
        for n in proto.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] not in constants
    ]
    dtype = kind["u8"] if any(c.dtype == np.uint8 for c in _constants(model).values()) else kind["s8"]
    proto.graph.output.extend(helper.make_tensor_value_info(name, dtype, None) for name in names)
    return run.once(from_proto(proto, "probe").proto, {"images": images})[1:]


@pytest.mark.parametrize("method", METHODS)
def test_every_range_method_keeps_the_logits(quantized, error, method):
    assert error(quantized(method=method)) < 0.5


@given(
    batches=st.lists(hnp.arrays(np.float32, st.integers(1, 40), elements=finite), min_size=1, max_size=6),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    method=st.sampled_from(METHODS),
)
def test_ranges_stay_inside_the_extremes(batches, bits, symmetric, method):
    observer = Observer("t")
    for batch in batches:
        observer.add(batch)
    extent = observer.range(method, bits=bits, symmetric=symmetric)
    bound = max(-observer.low, observer.high)
    low, high = (-bound, bound) if symmetric else (observer.low, observer.high)
    slack = 1e-9 * bound
    assert low - slack <= extent.low <= 0 <= extent.high <= high + slack
    assert observer.zeros == sum(int((batch == 0).sum()) for batch in batches)


def test_the_average_forgets_one_wild_batch():
    observer = Observer("t")
    for scale in [1.0] * 9 + [100.0] + [1.0] * 30:
        observer.add(np.linspace(-scale, scale, 64, dtype=np.float32))
    assert observer.range("minmax") == Range(-100, 100)
    average = observer.range("average")
    assert 1 < average.high < 10
    assert average.low == pytest.approx(-average.high)


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_searches_clip_an_outlier_of_many_values(method):
    observer = Observer("t")
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    observer.add(np.append(values, np.float32(12)))
    assert observer.range(method).high < 8
    assert observer.range(method, bits=4).high <= observer.range(method).high


@pytest.mark.parametrize("bits", [2, 4, 6])
@pytest.mark.parametrize("activations", ["u8", "s8"])
def test_few_bit_activations_saturate_in_the_engine(resnet20, apply, cifar10, bits, activations):
    images = cifar10[0][:16]
    context = passes.Context(Arithmetic(activations), lambda: iter([{"images": images}]))
    model = apply(resnet20, "clean", "fuse", ("int8", {"activation_bits": bits}), context=context)
    values = _integer_values(model, images * 10)
    lowest = 0 if activations == "u8" else -(2 ** (bits - 1))
    assert len(values) > 20
    few = [v for v in values if lowest <= v.min() and v.max() < lowest + 2**bits]
    assert min(v.min() for v in few) == lowest
    assert max(v.max() for v in few) == lowest + 2**bits - 1
    assert len(values) - len(few) == 9 + 1, "all but a summand of each block and what is averaged at the end"


def test_few_bit_activations_still_run_on_integer_kernels(quantized, integer_kernels):
    found = integer_kernels(quantized(weight_bits=4, activation_bits=4))
    assert (found["QLinearConv"], found["QGemm"]) == (19, 1)
    assert not {"Conv", "Gemm"} & set(found)


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_have_no_more_levels_than_asked_for(quantized, bits):
    stored = [
        c for n, c in _constants(quantized(weight_bits=bits)).items() if c.ndim > 1 and c.dtype == np.int8
    ]
    assert len(stored) == 20
    limit = 2 ** (bits - 1) - 1
    assert max(np.abs(c.astype(int)).max() for c in stored) == limit
    assert np.unique(np.concatenate([c.ravel() for c in stored])).size == 2 * limit + 1


def test_more_bits_err_less(quantized, error):
    errors = [error(quantized(weight_bits=bits, activation_bits=bits)) for bits in (3, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)


@given(
    values=hnp.arrays(np.float32, (3, 24), elements=st.floats(-10, 10, width=32)),
    bits=st.integers(2, 8),
    axis=st.sampled_from([0, 1, None]),
)
def test_searched_weights_err_at_most_as_much(values, bits, axis):
    def squared(method):
        integers, scale = scales.weights(values, bits=bits, axis=axis, method=method)
        step = scale if axis is None else np.expand_dims(scale, 1 - axis)
        return np.square(integers * step.astype(np.float64) - values).sum()

    assert squared("mse") <= squared("max") * (1 + 1e-5) + 1e-9


@given(low=finite, high=finite, symmetric=st.booleans(), bits=st.integers(2, 8), power_of_two=st.booleans())
def test_affine_holds_the_range_in_its_levels(low, high, symmetric, bits, power_of_two):
    extent = Range(min(low, high, 0.0), max(low, high, 0.0))
    affine = scales.activation(extent, symmetric=symmetric, bits=bits, power_of_two=power_of_two)
    assert 0 <= affine.zero_point <= affine.levels == 2**bits - 1
    step = float(affine.scale)
    if power_of_two:
        assert np.frexp(step)[0] == 0.5
    reach = ((0 - affine.zero_point) * step, (affine.levels - affine.zero_point) * step)
    slack = step * 0.5001 + 1e-6 * max(abs(low), abs(high))
    assert reach[0] - slack <= extent.low
    assert reach[1] + slack >= extent.high
    integers = scales.quantize(np.array([low, high, 0.0], np.float32), affine)
    assert integers.max() <= affine.levels
    assert integers[2] == affine.zero_point


@given(values=hnp.arrays(np.float32, (4, 6), elements=finite), bits=st.integers(2, 8))
def test_power_of_two_weight_scales_are_powers_of_two(values, bits):
    _, scale = scales.weights(values, bits=bits, axis=0, power_of_two=True)
    assert (np.frexp(scale)[0] == 0.5).all()


def test_power_of_two_scales_in_the_graph(quantized, error):
    model = quantized(power_of_two=True)
    assert all((np.frexp(scale)[0] == 0.5).all() for scale in _scales(model))
    assert error(model) < 0.6


def test_a_target_may_ask_for_powers_of_two(resnet20, apply, context):
    asked = passes.Context(Arithmetic("u8", power_of_two_scales=True), context.calibration)
    model = apply(resnet20, "clean", "fuse", "int8", context=asked)
    assert all((np.frexp(scale)[0] == 0.5).all() for scale in _scales(model))


def test_per_tensor_weights_have_one_scale(quantized, error):
    model = quantized(per_channel=False)
    assert all(scale.ndim == 0 for scale in _scales(model))
    assert error(model) < 0.6


def test_symmetric_activations_have_a_middle_zero(quantized, error):
    model = quantized(symmetric=True)
    constants = _constants(model)
    zeros = {int(constants[n.input[2]]) for n in model.proto.graph.node if n.op_type == "QuantizeLinear"}
    assert zeros == {128}
    assert error(model) < 0.6


@pytest.mark.parametrize(
    "options",
    [{"method": "best"}, {"weight_method": "best"}, {"weight_bits": 9}, {"activation_bits": 1}],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(UsageError):
        Int8Options(**options)
