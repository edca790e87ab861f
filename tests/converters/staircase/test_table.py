"""The table of what widths cost: numbers in, milliseconds out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier_converters.pruning.staircase import Curve, Staircase, default
from farrier_converters.pruning.staircase.layers import KINDS
from farrier_converters.pruning.staircase.table import PERIOD, TOLERANCE, between, effective, worth

STEPS = st.dictionaries(st.integers(1, 80), st.floats(0.25, 500), min_size=1, max_size=80)


@given(st.integers(0, 5000))
def test_without_steps_every_channel_costs_the_same(width: int) -> None:
    assert effective({}, width) == width


@given(STEPS, st.integers(1, 300), st.integers(1, 5))
def test_beyond_the_widest_the_last_steps_repeat(steps: dict[int, float], width: int, periods: int) -> None:
    width = max(width, max(steps) - PERIOD + 1)
    assert effective(steps, width + periods * PERIOD) == pytest.approx(
        effective(steps, width) + periods * PERIOD
    )


@given(STEPS, st.integers(1, 80))
def test_between_measured_widths_the_next_one_above_counts(steps: dict[int, float], width: int) -> None:
    above = [known for known in steps if known >= width]
    if above:
        assert effective(steps, width) == steps[min(above)]


@given(STEPS, STEPS, st.integers(1, 200))
def test_good_widths_are_the_right_edges_of_the_steps(
    outputs: dict[int, float], inputs: dict[int, float], most: int
) -> None:
    table = Staircase("engine", "fp32", "machine", {"conv": Curve(outputs, inputs)})

    def cost(width: int) -> float:
        return effective(outputs, width) + effective(inputs, width)

    good = table.good_widths("conv", most)
    assert good[-1] == most
    assert good == sorted(set(good))
    for width in range(1, most):
        wider = min(w for w in good if w > width)
        assert (width in good) == (cost(width) < cost(wider) * worth(width, wider))
        assert width not in good or cost(width) < min(cost(w) for w in good if w > width) * (
            1 - TOLERANCE / 2
        )


def test_an_engine_that_fills_up_blocks_has_only_their_multiples() -> None:
    table = default("onnxruntime", "fp32", "x86_64")
    assert table.good_widths("conv", 64) == [16, 32, 48, 64]
    assert table.good_widths("depthwise", 40) == [16, 32, 40]
    assert default("litert", "int8", "aarch64").good_widths("pointwise", 24) == [8, 16, 24]
    assert set(table.curves) == set(KINDS)
    assert table.measured == ""


def test_a_layer_costs_its_work_at_the_widths_that_count() -> None:
    blocks = {width: float(-(-width // 16) * 16) for width in range(1, 65)}
    curve = Curve(blocks, blocks, {100: 0.5}, element_ns=2.0, call_ns=300.0)
    table = Staircase("e", "fp32", "m", {"conv": curve, "depthwise": Curve(blocks, {}, {100: 0.5})})
    found = table.layer_cost("conv", outputs=30, inputs=17, positions=100, kernel=9, groups=1)
    assert found == pytest.approx((100 * 9 * 32 * 32 * 0.5 + 100 * 32 * 2.0 + 300.0) / 1e6)
    alone = table.layer_cost("depthwise", outputs=30, inputs=30, positions=100, kernel=9, groups=30)
    assert alone == pytest.approx(100 * 9 * 32 * 0.5 / 1e6)
    halves = table.layer_cost("conv", outputs=30, inputs=34, positions=100, kernel=9, groups=2)
    assert halves == pytest.approx((100 * 9 * 32 * 32 * 0.5 + 100 * 32 * 2.0 + 300.0) / 1e6)
    assert table.layer_cost("conv", outputs=0, inputs=8, positions=1, kernel=1, groups=1) == 0.0


def test_a_large_kernel_on_few_channels_costs_what_its_further_positions_do() -> None:
    curve = Curve({64: 64.0}, {1: 4.0, 3: 4.0, 64: 64.0}, {100: 0.5}, call_ns=300.0, taps={1: 1.5, 3: 3.0})
    table = Staircase("e", "int8", "m", {"strided": curve})

    def cost(inputs: int, kernel: int) -> float:
        size = {"outputs": 64, "inputs": inputs, "positions": 100, "kernel": kernel, "groups": 1}
        return 1e6 * table.layer_cost("strided", **size) - 300.0

    assert cost(1, 9) == pytest.approx(100 * 64 * 9 * 4.0 * 0.5)
    assert cost(1, 40) == pytest.approx(100 * 64 * (9 * 4.0 + 31 * 1.5) * 0.5)
    assert cost(2, 49) == pytest.approx(100 * 64 * (9 * 4.0 + 40 * 3.0) * 0.5)
    assert cost(64, 49) == pytest.approx(100 * 64 * 49 * 64.0 * 0.5)  # many channels: all positions alike


def test_a_kind_that_was_not_measured_counts_as_the_one_most_like_it() -> None:
    conv = Curve({16: 16.0, 32: 32.0}, {}, {1: 1.0})
    table = Staircase("e", "fp32", "m", {"conv": conv})
    assert table.curve("transposed") == table.curve("strided") == conv
    assert table.good_widths("transposed", 32) == [16, 32]
    assert table.curve("recurrent") == Curve()


def test_many_weights_cost_besides_their_multiply_adds() -> None:
    table = Staircase("e", "fp32", "m", {"dense": Curve()}, weights_ns={100: 0.0, 10_000: 2.0})
    size = {"outputs": 10, "inputs": 10, "positions": 1, "kernel": 1, "groups": 1}
    small, middle, large = (table.of_size(n).layer_cost("dense", **size) for n in (50, 1000, 10**7))
    assert middle - small == pytest.approx(100 * 1.0 / 1e6)
    assert large - small == pytest.approx(100 * 2.0 / 1e6)


@given(
    st.dictionaries(st.integers(1, 10**6), st.floats(0, 100), min_size=1, max_size=8), st.integers(1, 10**7)
)
def test_values_between_known_ones_lie_between_them(known: dict[int, float], at: int) -> None:
    assert min(known.values()) - 1e-9 <= between(known, at) <= max(known.values()) + 1e-9
    assert all(between(known, key) == pytest.approx(value) for key, value in known.items())
