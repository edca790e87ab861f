"""Blockwise grids, packed bits, GPTQ and AWQ: what must hold for any weights and inputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from farrier_converters.weights import floats, packing
from farrier_converters.weights.awq import awq, search_scales
from farrier_converters.weights.gptq import GptqSettings, gptq, output_error
from farrier_converters.weights.grid import NF4, Grid, round_to_nearest
from farrier_converters.weights.scales import HalfScales, LogScales, SingleScales, log_scales

finite = st.floats(-1e3, 1e3, width=32)
FORMS = (HalfScales(), SingleScales(), log_scales([np.array([1e-3, 10.0], np.float32)]))


@given(
    bits=st.sampled_from((2, 4, 8)),
    codes=hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 40))),
)
def test_packed_codes_come_back(bits, codes):
    codes = codes & np.uint8((1 << bits) - 1)
    packed = packing.pack(codes, bits)
    assert packed.shape[-1] == -(-codes.shape[-1] * bits // 8)
    np.testing.assert_array_equal(packing.unpack(packed, bits, codes.shape[-1]), codes)


@given(codes=hnp.arrays(np.uint8, st.integers(1, 100), elements=st.integers(0, 7)))
def test_three_bits_take_three_bits(codes):
    planes = packing.pack_threes(codes)
    assert planes.size == -(-codes.size // 8) * 3
    np.testing.assert_array_equal(packing.unpack_threes(planes, codes.size), codes)


@given(
    values=hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 50)), elements=finite),
    bits=st.sampled_from((2, 3, 4, 8)),
    symmetric=st.booleans(),
    form=st.sampled_from((SingleScales(), HalfScales())),
)
def test_no_weight_moves_more_than_a_step(values, bits, symmetric, form):
    q = round_to_nearest(values, Grid(bits, symmetric, scale_form=form), 16)
    step = np.repeat(np.abs(q.scales), 16, axis=1)[:, : values.shape[1]]
    largest = np.abs(values).max(-1, keepdims=True)
    # the side away from the extreme has one level less, hence a whole step; float16 scales may clip a little
    assert (np.abs(q.values() - values) <= step * 1.001 + largest * 2e-3).all()
    assert q.codes.max(initial=0) < 1 << bits


@given(values=hnp.arrays(np.float32, (2, 32), elements=finite), form=st.sampled_from(FORMS))
def test_zero_stays_zero(values, form):
    values[:, ::2] = 0
    for grid in (
        Grid(4, scale_form=form),
        Grid(3, symmetric=False, scale_form=form),
        Grid(4, codebook=NF4, scale_form=form),
    ):
        assert not round_to_nearest(values, grid, 16).values()[:, ::2].any()


@given(values=hnp.arrays(np.float32, (3, 64), elements=finite), bits=st.sampled_from((2, 3, 4)))
def test_the_search_for_scales_never_errs_more(values, bits):
    grid = Grid(bits)
    plain, searched = (round_to_nearest(values, grid, 32, search=s).values() for s in (False, True))
    errors = [((v - values).astype(np.float64) ** 2).reshape(3, 2, 32).sum(-1) for v in (plain, searched)]
    assert (errors[1] <= errors[0] * (1 + 1e-5)).all()


@given(
    scales=hnp.arrays(np.float32, 20, elements=st.floats(2.0**-10, 8.0, width=32)),
    sign=st.sampled_from((-1, 1)),
)
def test_log_scales_are_near_and_keep_their_sign(scales, sign):
    form = log_scales([scales])
    stored = form.values(form.codes(scales * np.float32(sign)))
    assert (np.sign(stored) == sign).all()
    assert (np.abs(np.log(np.abs(stored) / scales)) <= form.step * 0.5001 + 1e-5).all()
    np.testing.assert_array_equal(form.round(stored), stored)


def test_scales_of_nothing():
    form = log_scales([np.zeros(3, np.float32)])
    assert isinstance(form, LogScales)
    assert np.isfinite(
        round_to_nearest(np.zeros((2, 16), np.float32), Grid(4, scale_form=form), 16).values()
    ).all()


@pytest.mark.parametrize("kind", [floats.E4M3, floats.E5M2], ids=lambda kind: kind.name)
def test_fp8_is_what_onnx_calls_fp8(kind):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, s, 300) for s in (1e-3, 1, 100)]).astype(np.float32)
    values = np.concatenate([values, [0, 448, 1e9, -1e9], floats.fp8_levels(kind), -floats.fp8_levels(kind)])
    tensor = onnx.TensorProto(
        data_type=kind.onnx_type, dims=[len(values)], raw_data=floats.to_fp8(values, kind).tobytes()
    )
    decoded = onnx.numpy_helper.to_array(tensor).astype(np.float32)
    np.testing.assert_array_equal(decoded, floats.from_fp8(floats.to_fp8(values, kind), kind))
    inside = np.clip(values, -kind.largest, kind.largest)
    levels = np.concatenate([-floats.fp8_levels(kind), floats.fp8_levels(kind)])
    nearest = np.abs(levels[None] - inside[:, None]).min(1)
    np.testing.assert_allclose(np.abs(decoded - inside), nearest)


@given(values=hnp.arrays(np.float32, 30, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_bfloat16_keeps_eight_bits(values):
    back = floats.from_bfloat16(floats.to_bfloat16(values))
    assert (np.abs(back - values) <= np.abs(values) * 2.0**-8 + 1e-38).all()
    np.testing.assert_array_equal(floats.from_bfloat16(floats.to_bfloat16(back)), back)


def _layer(seed, rows, columns, rank):
    """Weights with outliers, and inputs whose channels depend on each other."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_t(4, (rows, columns)).astype(np.float32)
    mixing = rng.standard_normal((rank, columns)) * rng.lognormal(0, 1, columns)
    inputs = rng.standard_normal((4 * columns, rank)) @ mixing + 0.05 * rng.standard_normal(
        (4 * columns, columns)
    )
    return weights, inputs, (inputs.T @ inputs)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1 << 16),
    rows=st.integers(1, 12),
    columns=st.integers(2, 70),
    bits=st.sampled_from((2, 3, 4)),
    options=st.builds(
        GptqSettings, damping=st.sampled_from((0.0, 0.01, 0.1)), act_order=st.booleans(), search=st.booleans()
    ),
    symmetric=st.booleans(),
    nf4=st.booleans(),
)
def test_gptq_never_errs_more_than_rounding_to_nearest(seed, rows, columns, bits, options, symmetric, nf4):
    weights, inputs, hessian = _layer(seed, rows, columns, max(1, columns // 3))
    grid = Grid(4, codebook=NF4) if nf4 else Grid(bits, symmetric)
    found = gptq(weights, hessian, grid, 16, options).values()
    plain = round_to_nearest(weights, grid, 16).values()
    # measured on the inputs themselves, row by row
    errors = [((inputs @ (w - weights).T.astype(np.float64)) ** 2).sum(0) for w in (found, plain)]
    assert (errors[0] <= errors[1] * (1 + 1e-6) + 1e-9).all()


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("columns", [128, 200])
def test_gptq_at_least_halves_the_error_on_correlated_inputs(act_order, columns):
    weights, _, hessian = _layer(3, 16, columns, columns // 4)
    errors = []
    for found in (
        gptq(weights, hessian, Grid(4), 64, GptqSettings(act_order=act_order)),
        round_to_nearest(weights, Grid(4), 64),
    ):
        errors.append(output_error(found.values() - weights, hessian).sum())
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("hessian", [np.zeros((40, 40)), np.full((40, 40), 1e-320), np.ones((40, 40))])
def test_gptq_of_inputs_that_tell_nothing_is_rounding(hessian):
    weights = _layer(0, 4, 40, 3)[0]
    found = gptq(weights, hessian, Grid(4), 16)
    assert np.abs(found.values() - weights).max() <= np.abs(found.scales).max() * 40


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1 << 16), bits=st.sampled_from((3, 4)), count=st.integers(1, 3))
def test_awq_never_errs_more_than_rounding_to_nearest(seed, bits, count):
    weights, _, hessian = _layer(seed, 9, 48, 12)
    matrices = np.array_split(weights, count)
    grid = Grid(bits)
    factors = search_scales(matrices, hessian, grid, 16)
    scaled = hessian / np.outer(factors, factors)
    errors = np.zeros(2)
    for matrix in matrices:
        found = awq(matrix * factors, scaled, grid, 16).values() / factors
        plain = round_to_nearest(matrix, grid, 16).values()
        errors += [output_error(w - matrix, hessian).sum() for w in (found, plain)]
    assert errors[0] <= errors[1] * (1 + 1e-5)


def test_awq_helps_a_channel_of_large_activations():
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((32, 64)).astype(np.float32)
    inputs = rng.standard_normal((500, 64))
    inputs[:, 7] *= 50
    hessian = inputs.T @ inputs
    factors = search_scales([weights], hessian, Grid(4), 32)
    assert factors.argmax() == 7
    found = awq(weights * factors, hessian / np.outer(factors, factors), Grid(4), 32).values() / factors
    plain = round_to_nearest(weights, Grid(4), 32).values()
    assert output_error(found - weights, hessian).sum() < output_error(plain - weights, hessian).sum() / 2
