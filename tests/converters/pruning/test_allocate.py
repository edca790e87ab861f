"""How many units go: on steps, by price, within limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.pruning.allocate import Allocation, Goal, Limits, allocate
from farrier_converters.pruning.allocate.costs import Costs
from farrier_converters.pruning.apply import carried, remove
from farrier_converters.pruning.blocks import blocks, drop
from farrier_converters.pruning.cut import cut
from farrier_converters.pruning.group import Groups, groups_of
from farrier_converters.pruning.importance import importance
from farrier_converters.pruning.procedure import totals
from farrier_converters.pruning.staircase import Staircase, default
from tests.support import prunable as networks

STEPS = default("", "fp32", "x86_64")  # of 16


def _sizes(groups: Groups, found: Allocation) -> dict[str, int]:
    return {group.name: group.size - int(np.isin(group.units, found.units).sum()) for group in groups.groups}


def _allocate(
    groups: Groups, keep: float, *, measure: str = "multiply-adds", **options: object
) -> Allocation:
    scores = importance(groups, "l2")
    return allocate(groups, scores, Goal(measure, keep), STEPS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [0.9, 0.6, 0.4, 0.2])
def test_counts_end_on_steps(keep: float) -> None:
    groups = groups_of(networks.chain(64))
    found = _allocate(groups, keep)
    assert all(size % 16 == 0 for size in _sizes(groups, found).values())
    assert found.after.ms < found.before.ms


def test_counts_of_tensors_that_gather_groups_end_on_steps() -> None:
    groups = groups_of(networks.gathered(24, 24))
    found = _allocate(groups, 0.7)
    sizes = _sizes(groups, found)
    assert (sizes["left"] + sizes["right"]) % 16 == 0
    assert sizes["left"] + sizes["right"] < 48


@settings(max_examples=25, deadline=None)
@given(
    keep=st.floats(0.15, 0.95),
    on_steps=st.booleans(),
    scope=st.sampled_from(["global", "layer"]),
    measure=st.sampled_from(["multiply-adds", "ms", "parameters"]),
)
def test_the_goal_is_reached_or_said_not_to_be(keep: float, on_steps: bool, scope: str, measure: str) -> None:
    groups = groups_of(networks.residual(32))
    limits = Limits(on_steps=on_steps, keep_least=0.0)
    try:
        found = _allocate(groups, keep, measure=measure, limits=limits, scope=scope)
    except InputError:
        assert not on_steps
        return
    left = {"multiply-adds": "multiply_adds", "ms": "ms", "parameters": "parameters"}[measure]
    share = getattr(found.after, left) / getattr(found.before, left)
    assert found.reached == (share <= keep * (1 + 1e-9))
    assert min(_sizes(groups, found).values()) >= 1
    if on_steps:
        assert found.after.ms <= found.before.ms


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0, 0.9))
def test_costs_are_those_of_the_model_that_is_left(seed: int, share: float) -> None:
    """What the bookkeeping says of any removal is what a look at the cut model says."""
    rng = np.random.default_rng(seed)
    for model in (networks.residual(16), networks.gathered(16, 8)):
        groups = groups_of(model)
        gone = np.concatenate(
            [rng.choice(group.units, int(group.size * share), replace=False) for group in groups.groups]
        )
        costs = Costs(groups, STEPS)
        mask = np.isin(np.concatenate([group.units for group in groups.groups]), gone)
        real = totals(cut(groups, gone), STEPS)
        told = costs.totals(mask)
        assert (told.multiply_adds, told.parameters) == (real.multiply_adds, real.parameters)
        assert told.ms == pytest.approx(real.ms)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0, 0.7))
def test_costs_without_blocks_are_those_of_the_model_that_is_left(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    model = networks.residual(16, blocks=4)
    groups, whole = groups_of(model), blocks(model)
    gone = np.concatenate(
        [rng.choice(group.units, int(group.size * share), replace=False) for group in groups.groups]
    )
    dropped = rng.choice(len(whole), 2, replace=False)
    mask = np.isin(np.concatenate([group.units for group in groups.groups]), gone)
    told = Costs(groups, STEPS, whole).totals(mask, dropped.tolist())
    real = totals(remove(groups, gone, [whole[number] for number in dropped]).model, STEPS)
    assert (told.multiply_adds, told.parameters) == (real.multiply_adds, real.parameters)


def test_blocks_compete_where_channels_cannot_help() -> None:
    model = networks.residual(16, blocks=4)
    groups = groups_of(model)
    alone = _allocate(groups, 0.6)
    assert not alone.reached and not len(alone.units)  # 16 channels are one step
    found = _allocate(groups, 0.6, blocks=blocks(model))
    assert found.reached and found.blocks
    assert not len(found.units)


def test_of_blocks_that_repeat_one_stays() -> None:
    model = networks.residual(16, blocks=4)
    found = _allocate(groups_of(model), 0.01, blocks=blocks(model), limits=Limits(keep_blocks=0.0))
    assert len(found.blocks) == 3


def test_units_are_found_again_without_the_blocks() -> None:
    model = networks.residual(16, blocks=3)
    groups, chosen = groups_of(model), blocks(model)[1:2]
    shorter = groups_of(drop(model, chosen))
    inner, stem = groups.named("b0.conv1").units[:5], groups.named("stem").units[3:7]
    found = carried(groups, np.concatenate([inner, stem]), shorter)
    np.testing.assert_array_equal(np.isin(shorter.named("b0.conv1").units, found).nonzero()[0], np.arange(5))
    np.testing.assert_array_equal(np.isin(shorter.named("stem").units, found).nonzero()[0], np.arange(3, 7))
    gone = groups.named("b1.conv1").units[:4]  # inside of the block
    assert not len(carried(groups, gone, shorter))
    assert (
        totals(remove(groups, inner, chosen).model, STEPS).parameters
        < totals(shorter.model, STEPS).parameters
    )


def test_what_is_excluded_stays() -> None:
    groups = groups_of(networks.chain(64))
    found = _allocate(groups, 0.7, limits=Limits(exclude=frozenset({"conv1"})))
    assert _sizes(groups, found)["conv1"] == 64


def test_the_least_stays() -> None:
    groups = groups_of(networks.chain(64))
    found = _allocate(groups, 0.3, limits=Limits(keep_least=0.5))
    assert min(_sizes(groups, found).values()) >= 32


def test_a_share_that_would_take_a_whole_layer_names_it() -> None:
    groups = groups_of(networks.chain(32))
    with pytest.raises(
        InputError, match=r"the 16 channels of 'conv\d' that have to stay; at most \d+% can go"
    ):
        _allocate(groups, 0.01, limits=Limits(keep_least=0.5, on_steps=False))


def test_the_cheapest_go_first() -> None:
    groups = groups_of(networks.chain(32))
    scores = importance(groups, "l2")
    scores = {name: values * (1000 if name != "conv1" else 1) for name, values in scores.items()}
    found = allocate(groups, scores, Goal("multiply-adds", 0.75), STEPS, limits=Limits(on_steps=False))
    sizes = _sizes(groups, found)
    assert sizes["conv1"] < 32
    assert sizes["conv0"] == sizes["conv2"] == 32
    gone = groups.named("conv1").units[np.isin(groups.named("conv1").units, found.units)]
    order = groups.named("conv1").units[np.argsort(scores["conv1"])]
    assert set(gone) == set(order[: len(gone)])


def test_a_staircase_without_steps_leaves_any_width() -> None:
    groups = groups_of(networks.chain(32))
    smooth = Staircase("", "fp32", "")
    found = allocate(groups, importance(groups, "l2"), Goal("ms", 0.7), smooth)
    assert found.reached
    assert any(size % 16 for size in _sizes(groups, found).values())


def test_names_and_shares_are_checked() -> None:
    groups = groups_of(networks.chain(16))
    with pytest.raises(UsageError, match="channels go global or layer"):
        _allocate(groups, 0.5, scope="each")
    with pytest.raises(UsageError, match="a share above 0"):
        Goal("ms", 0.0)
    with pytest.raises(UsageError, match="the goal of pruning is one of"):
        Goal("bytes", 0.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        replace(Limits(), keep_least=2.0)
