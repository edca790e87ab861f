"""Blocks against channels: what both matter is measured alike, and outlives the blocks that have gone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from onnx import numpy_helper

from farrier_converters.model import Model, from_proto
from farrier_converters.passes import Context
from farrier_converters.passes.prune import PruneOptions, prune
from farrier_converters.pruning.allocate import Goal, allocate
from farrier_converters.pruning.apply import remove
from farrier_converters.pruning.blocks import blocks, drop
from farrier_converters.pruning.blocks import importance as effects
from farrier_converters.pruning.blocks.effect import answers, change
from farrier_converters.pruning.blocks.exchange import worths
from farrier_converters.pruning.group import Groups, groups_of
from farrier_converters.pruning.importance import importance
from farrier_converters.pruning.importance.carry import carry
from farrier_converters.pruning.procedure import Resources, procedure
from farrier_converters.pruning.staircase import Curve, Staircase, default
from tests.support import prunable

STEPS = default("", "fp32", "x86_64")  # of 16
ROWS = [{"x": prunable.rows(16)}]


def _quiet(model: Model, layer: str, factor: float) -> Model:
    """Return the model with a layer's weights and bias made small."""
    proto = type(model.proto).FromString(model.proto.SerializeToString())
    node = next(node for node in proto.graph.node if node.name == layer)
    for tensor in proto.graph.initializer:
        if tensor.name in node.input[1:]:
            values = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return from_proto(proto, model.name)


def _first_channels(groups: Groups, keep: float) -> np.ndarray:
    scores = importance(groups, "l2")
    return allocate(groups, scores, Goal("multiply-adds", keep), STEPS).units


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_block_matters_as_much_as_the_channels_that_move_the_outputs_as_far(scale: float) -> None:
    model = prunable.residual(64, blocks=4)
    groups, found = groups_of(model), blocks(model)
    scores = {name: scale * values for name, values in importance(groups, "l2").items()}
    asked: list[float] = []

    def choose(keep: float) -> np.ndarray:
        asked.append(keep)
        return _first_channels(groups, keep)

    worth = worths(groups, scores, found, choose, ROWS)
    units = _first_channels(groups, asked[-1])
    lost = sum(float(scores[g.name][np.isin(g.units, units)].sum()) for g in groups.groups)
    moved = change(answers(model, ROWS), answers(remove(groups, units).model, ROWS))
    np.testing.assert_allclose(
        [worth[n] / lost for n in range(len(found))], np.array(effects(model, found, ROWS)) / moved, rtol=1e-6
    )


def test_where_no_channels_can_go_blocks_are_weighed_among_themselves() -> None:
    model = prunable.residual(16, blocks=4)
    groups, found = groups_of(model), blocks(model)
    worth = worths(groups, importance(groups, "l2"), found, lambda _keep: np.array([], np.int64), ROWS)
    assert list(worth.values()) == pytest.approx(effects(model, found, ROWS))


@pytest.mark.parametrize("rows", [True, False])
def test_a_block_that_does_next_to_nothing_goes_before_any_channel(rows: bool) -> None:
    """Also without data: made-up rows show it."""
    model = _quiet(prunable.residual(64, blocks=4), "b2.conv2", 1e-3)
    context = Context(calibration=(lambda: iter(ROWS)) if rows else None, staircase=STEPS)
    found = prune(model, PruneOptions(ratio=0.15), context)
    assert len(found.blocks) == 1
    assert found.blocks[0] in {block.name for block in blocks(model)[2:3]}
    assert all(change.after in (change.before, 0) for change in found.changes)


def test_importance_is_found_again_where_a_block_has_gone() -> None:
    model = prunable.residual(32, blocks=3)
    groups = groups_of(model)
    scores = importance(groups, "l2")
    shorter = groups_of(drop(model, blocks(model)[1:2]))
    found = carry(groups, scores, shorter)
    assert set(found) == {group.name for group in shorter.groups}
    for name, values in found.items():
        np.testing.assert_allclose(values, scores[name])


def test_what_falls_together_adds_up() -> None:
    model = prunable.chain(32)  # no shortcut: a block's input and output are channels of two groups
    groups, found = groups_of(model), blocks(model)
    scores = importance(groups, "l2")
    shorter = groups_of(drop(model, found[:1]))
    carried = carry(groups, scores, shorter)
    total = sum(float(values.sum()) for values in carried.values())
    assert total == pytest.approx(sum(float(values.sum()) for values in scores.values()))
    assert sum(group.size for group in shorter.groups) < sum(group.size for group in groups.groups)


def test_gradients_come_from_the_model_with_all_its_blocks() -> None:
    model = prunable.residual(32, blocks=4)
    looked: list[int] = []

    def gradients(groups: Groups, _name: str) -> Mapping[str, np.ndarray]:
        looked.append(len(blocks(groups.model)))
        return importance(groups, "l2")

    found = procedure(
        model,
        PruneOptions(ratio=0.6),
        Resources(staircase=STEPS, rows=lambda: iter(ROWS), gradients=gradients),
    )
    assert found.blocks and found.reached
    assert looked == [len(blocks(model))]


def test_what_saves_time_is_not_given_back_for_a_goal_that_is_no_time() -> None:
    """Channels of a slow layer go first; those that reach the goal alone do not bring them back."""
    groups = groups_of(prunable.chain(64))
    steps = {w: float(-(-w // 16) * 16) for w in range(1, 129)}
    rates = {"conv": 0.02, "dense": 1000.0, "other": 1e-4}
    kinds = {kind: Curve(steps, steps, {1: rate}) for kind, rate in rates.items()}
    target = Staircase("e", "fp32", "m", kinds)
    slow = np.where(np.arange(64) < 16, 3.0, 1000.0)  # of what the slow layer reads, sixteen may go
    scores = {"conv0": np.full(64, 1000.0), "conv1": np.ones(64), "conv2": slow}

    def left(goal: Goal) -> dict[str, int]:
        found = allocate(groups, scores, goal, target)
        assert found.reached
        return {g.name: g.size - int(np.isin(g.units, found.units).sum()) for g in groups.groups}

    assert left(Goal("multiply-adds", 0.88)) == {"conv0": 64, "conv1": 64, "conv2": 48}
    both = left(Goal("multiply-adds", 0.8))
    assert both["conv2"] == 48 and both["conv1"] < 64
