"""The rules that name causes: pure, on made-up facts whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_converters.compare.causes import (
    ActivationFacts,
    BiasFacts,
    JoinFacts,
    Place,
    activation_cause,
    bias_cause,
    join_cause,
    weight_cause,
    whole_cause,
)
from farrier_converters.compare.causes import model as causes
from farrier_converters.compare.facts import weight_facts
from farrier_converters.compare.quantizers import ConstantQuantizer
from farrier_converters.compare.sketch import Sketch

LEVELS = 255


def facts(
    values: np.ndarray, low: float, high: float, *, tensor: str = "t", share: float = 1.0, **more: object
) -> ActivationFacts:
    """What is known of a tensor with these values and this range."""
    sketch = Sketch()
    sketch.add(values)
    cost, best = sketch.cost(low, high, LEVELS), sketch.best(LEVELS)
    given_facts = ActivationFacts(
        place=Place(tensor, f"node_{tensor}", "Conv", share),
        extent=(low, high),
        levels=LEVELS,
        cost=cost,
        best=best,
        best_cost=sketch.cost(*best, LEVELS),
        data=(sketch.low, sketch.high),
        bulk=sketch.percentile(0.999),
        own=cost.total,
    )
    return replace(given_facts, **more)  # type: ignore[arg-type]


@pytest.fixture
def relu() -> np.ndarray:
    return np.maximum(np.random.default_rng(0).normal(size=20_000), 0)


def test_a_fitting_range_has_no_cause(relu: np.ndarray) -> None:
    assert activation_cause(facts(relu, 0.0, float(relu.max()))) is None


@pytest.mark.parametrize(
    ("low", "high", "cause"),
    [
        (0.0, 0.8, causes.SATURATION),
        (0.0, 200.0, causes.DEAD_RANGE),
        (-4.0, 1.0, causes.DAMAGED_ZERO_POINT),
    ],
)
def test_a_wrong_range_is_named(relu: np.ndarray, low: float, high: float, cause: str) -> None:
    found = activation_cause(facts(relu, low, high))
    assert found is not None
    assert found.cause == cause
    assert found.weight > 0.5
    assert found.cure.methods == {"t": "mse"}


def test_few_large_values_are_an_outlier(relu: np.ndarray) -> None:
    relu[:3] = 400.0
    found = activation_cause(facts(relu, 0.0, 400.0, own=1e9))
    assert found is None or found.cause == causes.ACTIVATION_OUTLIER
    bounds = np.array([1.0, 1.2, 0.9, 60.0])
    found = activation_cause(facts(relu, 0.0, 60.0, channel_bounds=bounds))
    assert found is not None
    assert (found.cause, found.numbers["channel"]) == (causes.ACTIVATION_OUTLIER, 3)


def test_both_ways_must_agree(relu: np.ndarray) -> None:
    fitting = facts(relu, 0.0, float(relu.max()))
    scale = activation_cause(replace(fitting, back_ratio=1.5))
    shift = activation_cause(replace(fitting, back_shift=7.0))
    assert scale is not None
    assert shift is not None
    assert (scale.cause, shift.cause) == (causes.DAMAGED_SCALE, causes.DAMAGED_ZERO_POINT)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-4, 1e4), st.sampled_from([0.1, 0.2, 1.0, 30.0, 60.0]))
def test_units_do_not_matter(unit: float, times: float) -> None:
    values = np.maximum(np.random.default_rng(1).normal(size=500), 0)
    plain = activation_cause(facts(values, 0.0, float(values.max()) * times))
    scaled = activation_cause(facts(values * unit, 0.0, float(values.max()) * times * unit))
    assert (plain and plain.cause) == (scaled and scaled.cause)


def test_many_short_ranges_are_thin_calibration(relu: np.ndarray) -> None:
    top = float(relu.max())
    few = [facts(relu, 0.0, top * s, tensor=str(i), share=0.2) for i, s in enumerate((0.5, 0.6, 0.7, 0.5))]
    found = whole_cause([facts(relu, 0.0, top, tensor="x", is_input=True), *few])
    assert found is not None
    assert found.cause == causes.THIN_CALIBRATION
    one = [few[0], *(facts(relu, 0.0, top, tensor=str(i)) for i in range(5))]
    assert whole_cause(one) is None


def test_a_wrong_input_range_is_preprocessing(relu: np.ndarray) -> None:
    top = float(relu.max())
    wide = [facts(relu, 0.0, top * 40, tensor=str(i), share=0.2) for i in range(4)]
    found = whole_cause([facts(relu, 0.0, top * 255, tensor="x", share=0.2, is_input=True), *wide])
    assert found is not None
    assert (found.cause, found.place.tensor) == (causes.PREPROCESSING, "x")


def test_branches_that_share_a_scale_clash(relu: np.ndarray) -> None:
    top = float(relu.max())
    small, large = (
        facts(relu / 50, 0.0, top, tensor="small"),
        facts(relu, 0.0, top, tensor="large", share=0.0),
    )
    place = Place("sum", "join", "Concat", 0.1)
    found = join_cause(JoinFacts(place, (small, large), shared=True, powers=(1.0, 2500.0), result_step=None))
    assert found is not None
    assert (found.cause, found.place.node) == (causes.CLASH, "join")
    alike = JoinFacts(place, (large, large), shared=True, powers=(1.0, 1.0), result_step=None)
    assert join_cause(alike) is None


def stored(weights: np.ndarray, scale: np.ndarray) -> ConstantQuantizer:
    shaped = scale.reshape(-1, 1) if scale.size > 1 else scale
    integers = np.clip(np.rint(weights / shaped), -127, 127).astype(np.int8)
    zero = np.zeros(scale.size, np.int8)
    return ConstantQuantizer(
        "w_quantized", "w", integers, scale.reshape(-1), zero, 0 if scale.size > 1 else None
    )


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(8, 64)).astype(np.float32)


def cause_of(quantized: ConstantQuantizer, weights: np.ndarray) -> str | None:
    found = weight_cause(weight_facts(quantized, weights, 0, place=Place("t", "n", "Conv", 1.0), name="w"))
    return None if found is None else found.cause


def test_weights(weights: np.ndarray) -> None:
    fitting = (np.abs(weights).max(axis=1) / 127).astype(np.float32)
    assert cause_of(stored(weights, fitting), weights) is None
    assert (
        cause_of(stored(weights, fitting[:1] * 1.3), weights) is None
    )  # one scale for channels that are alike
    one = replace(stored(weights, fitting), scale=fitting * np.array([1, 1, 2, 1, 1, 1, 1, 1], np.float32))
    assert cause_of(one, weights) == causes.DAMAGED_SCALE
    shifted = replace(stored(weights, fitting), zero_point=np.full(8, 9, np.int8))
    assert cause_of(shifted, weights) == causes.DAMAGED_ZERO_POINT
    assert cause_of(stored(weights, fitting / 4), weights) == causes.WEIGHT_SATURATION
    weights[5] *= 60
    assert cause_of(stored(weights, np.abs(weights).max(keepdims=True)[0] / np.float32(127)), weights) == (
        causes.WEIGHT_OUTLIER
    )


def test_biases() -> None:
    values = np.linspace(-1, 1, 8)
    fitting = BiasFacts(
        Place("t", "n", "Conv", 1.0), "b", values, values, np.full(8, 1e-6), np.full(8, 1e-6), 0, spread=1.0
    )
    assert bias_cause(fitting) is None
    overflow, damaged = (
        bias_cause(replace(fitting, at_limit=1)),
        bias_cause(replace(fitting, stored=values * 3)),
    )
    assert overflow is not None
    assert damaged is not None
    assert (overflow.cause, damaged.cause) == (causes.BIAS_OVERFLOW, causes.BIAS_DAMAGED)
    corrected = replace(fitting, stored=values * 1.5, drift=values * 0.05)
    assert bias_cause(corrected) is None
    assert bias_cause(replace(corrected, drift=values * 0.5)) is not None
    rescaled = bias_cause(replace(fitting, scale=np.full(8, 3e-6)))
    assert rescaled is not None
    assert rescaled.cause == causes.BIAS_DAMAGED
