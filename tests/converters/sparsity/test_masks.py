"""Masks: the pattern, the ratio, and no output that falls silent, whatever the scores."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.compilers.tensorrt.sparsity import follows_pattern
from farrier_converters.sparsity import allocate, patterns, schedules
from farrier_converters.sparsity.patterns import Blocks, NofM
from farrier_converters.sparsity.report import conforms
from farrier_converters.sparsity.view import convolution

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 9]))
ratios = st.floats(0, 0.99)


def scores_of(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Scores with many ties."""
    return np.random.default_rng(seed).integers(0, 5, shape).astype(np.float32)


@given(st.lists(shapes, min_size=1, max_size=4), ratios, st.sampled_from(allocate.SCOPES), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_without_a_pattern_the_ratio_is_met_and_every_output_keeps_a_weight(layers, ratio, scope, seed):
    scores = {str(i): scores_of(shape, seed + i) for i, shape in enumerate(layers)}
    views = {n: convolution((s.shape[0], s.shape[1], s.shape[2]), 1) for n, s in scores.items()}
    total, outputs = sum(s.size for s in scores.values()), sum(len(s) for s in scores.values())
    if outputs > (1 - ratio) * total + 1:
        with pytest.raises(InputError, match="would empty whole outputs"):
            allocate.masks(scores, views, patterns.UNSTRUCTURED, ratio, scope)
        return
    masks = allocate.masks(scores, views, patterns.UNSTRUCTURED, ratio, scope)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert all(mask.any((1, 2)).all() for mask in masks.values())
    assert all(mask.shape == scores[n].shape for n, mask in masks.items())
    if scope in (allocate.GLOBAL, allocate.LAMP):
        assert kept == max(outputs, math.ceil((1 - ratio) * total - 1e-6))
    elif scope in (allocate.LAYER, allocate.OUTPUT):
        assert kept >= (1 - ratio) * total - 1e-6
        assert kept <= (1 - ratio) * total + (len(scores) if scope == allocate.LAYER else outputs) + outputs


@given(shapes, st.integers(1, 4), st.integers(1, 5), st.floats(0, 0.9), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_blocks_are_kept_or_removed_whole(shape, rows, columns, ratio, seed):
    pattern, scores = Blocks(rows, columns), scores_of(shape, seed)
    views = {"": convolution(shape, 1)}
    try:
        mask = allocate.masks({"": scores}, views, pattern, ratio, allocate.LAYER)[""]
    except InputError:
        least = sum(int(sizes.min()) for sizes in pattern.sizes(shape))
        assert least > (1 - ratio) * scores.size
        return
    matrix = mask.reshape(shape[0], -1)
    for top in range(0, matrix.shape[0], rows):
        for left in range(0, matrix.shape[1], columns):
            block = matrix[top : top + rows, left : left + columns]
            assert block.all() or not block.any()
        assert matrix[top : top + rows].any()
    assert conforms(mask, pattern)


@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from([(2, 4), (1, 4), (1, 2), (3, 8)]),
    st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_n_of_m_keeps_the_n_best_along_the_inputs(outputs, groups, form, seed):
    pattern = NofM(*form)
    scores = scores_of((outputs, groups * pattern.among, 9), seed)
    mask = pattern.mask(scores)
    for output in range(outputs):
        for pixel in range(9):
            for start in range(0, scores.shape[1], pattern.among):
                group = (output, slice(start, start + pattern.among), pixel)
                assert mask[group].sum() == pattern.kept
                assert scores[group][mask[group]].sum() == np.sort(scores[group])[-pattern.kept :].sum()
    assert conforms(mask, pattern)
    if form == (2, 4):
        assert follows_pattern(mask.astype(np.float32), 1)  # what TensorRT's compiler looks for


@given(st.floats(0, 1))
def test_a_part_of_the_groups_has_the_pattern_already(share):
    pattern, scores = NofM(2, 4), scores_of((4, 8, 3), 0)
    mask = pattern.partial(scores, share)
    sparse = (pattern.groups(mask).sum(-1) == 2).sum()
    assert sparse == round(share * pattern.lost(scores).size)
    assert (mask | ~pattern.mask(scores)).all() or share == 1


def test_lamp_is_each_square_over_those_that_are_not_smaller():
    scores = np.array([[3.0, 1.0], [2.0, 5.0]])
    expected = np.array([[9 / 34, 1 / 39], [4 / 38, 1.0]])
    assert np.allclose(allocate.lamp(scores), expected)


@given(st.lists(shapes, min_size=1, max_size=5), st.floats(0.1, 0.95))
@settings(max_examples=80, deadline=None)
def test_erk_meets_the_ratio_and_leaves_small_layers_denser(layers, ratio):
    views = {str(i): convolution(shape, 1) for i, shape in enumerate(layers)}
    found = allocate.erk(views, ratio)
    total = sum(v.size for v in views.values())
    assert math.isclose(sum(found[n] * v.size for n, v in views.items()), ratio * total, abs_tol=1e-6 * total)
    assert all(0 <= one <= 1 for one in found.values())


def test_a_ratio_that_would_empty_outputs_names_the_layer_and_the_most_that_works():
    scores = {"wide": np.ones((4, 16, 1), np.float32), "depthwise": np.ones((64, 1, 9), np.float32)}
    views = {"wide": convolution((4, 16, 1), 1), "depthwise": convolution((64, 1, 3, 3), 64)}
    with pytest.raises(InputError, match=r"first of 'depthwise'; at most 89\.4%"):
        allocate.masks(scores, views, patterns.UNSTRUCTURED, 0.95, allocate.GLOBAL)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("4:2", "removes nothing"),
        ("2:2", "removes nothing"),
        ("4", "unknown pattern"),
        ("0x4", "unknown pattern"),
    ],
)
def test_patterns_that_mean_nothing_are_refused(text, says):
    with pytest.raises(UsageError, match=says):
        patterns.parse(text)


def test_patterns_are_written_as_they_are_read():
    for text in ("unstructured", "2:4", "1:4", "4x1", "1x16"):
        assert str(patterns.parse(text)) == text
    assert str(patterns.parse("1x1")) == "unstructured"


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_schedules_rise_to_one(name):
    values = [schedules.get(name)(share) for share in np.linspace(0, 1, 50)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))
    assert math.isclose(values[-1], 1)
    assert name in (schedules.ONE_SHOT, schedules.CONSTANT) or values[0] < 0.01
