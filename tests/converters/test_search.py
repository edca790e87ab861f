"""The budget and the no-regret rules, as pure functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.errors import UsageError
from farrier_converters import passes, search
from farrier_converters.search import Budget, Figures
from farrier_converters.search.choose import SIZE_TOLERANCE

TOLERANCE = search.LATENCY_TOLERANCE

figures = st.builds(
    Figures,
    name=st.sampled_from("abcdef"),
    drop=st.one_of(st.floats(-0.1, 0.1), st.just(float("nan"))),
    latency_ms=st.floats(0.01, 100),
    size_bytes=st.integers(1, 10_000),
)
originals = st.builds(
    Figures,
    name=st.just("original"),
    drop=st.just(0.0),
    latency_ms=st.floats(0.01, 100),
    size_bytes=st.integers(1, 10_000),
)
budgets = st.builds(
    Budget,
    max_drop=st.floats(0, 0.2),
    max_latency_ms=st.none() | st.floats(0.01, 100),
    max_size_bytes=st.none() | st.integers(1, 10_000),
)


@given(originals, st.lists(figures, max_size=6, unique_by=lambda f: f.name), budgets)
def test_the_delivered_one_keeps_the_budget_is_no_regret_and_is_not_dominated(original, others, budget):
    choice = search.choose(original, others, budget)
    by_name = {f.name: f for f in [original, *others]}
    assert set(by_name) == {v.name for v in choice.verdicts}
    assert all(v.reason for v in choice.verdicts)
    kept = [v for v in choice.verdicts if v.kept]
    if choice.delivered is None:
        assert not kept
        assert not any(v.feasible for v in choice.verdicts)
        return
    assert [v.name for v in kept] == [choice.delivered]
    chosen = by_name[choice.delivered]
    assert chosen.drop <= budget.max_drop + 1e-9
    assert chosen.latency_ms <= (budget.max_latency_ms or float("inf"))
    assert chosen.size_bytes <= (budget.max_size_bytes or float("inf"))
    assert chosen.latency_ms <= original.latency_ms * (1 + TOLERANCE)
    assert chosen.size_bytes <= original.size_bytes
    for verdict in choice.verdicts:
        other = by_name[verdict.name]
        if verdict.feasible:
            smaller = other.size_bytes * (1 + SIZE_TOLERANCE) < chosen.size_bytes
            assert not (other.latency_ms < chosen.latency_ms and smaller)
            assert chosen.latency_ms <= other.latency_ms * (1 + TOLERANCE)


@given(originals, st.lists(figures, max_size=6, unique_by=lambda f: f.name), st.floats(0, 0.2))
def test_without_explicit_limits_something_is_always_delivered(original, others, drop):
    assert search.choose(original, others, Budget(max_drop=drop)).delivered is not None


def test_reasons_name_the_limit():
    original = Figures("original", 0.0, 10.0, 1000)
    others = [
        Figures("bad", 0.05, 1.0, 100),
        Figures("slow", 0.0, 20.0, 100),
        Figures("large", 0.0, 1.0, 2000),
        Figures("good", 0.005, 5.0, 300),
        Figures("tie", 0.0, 4.9, 400),
    ]
    choice = search.choose(original, others, Budget())
    reasons = {v.name: v.reason for v in choice.verdicts}
    assert choice.delivered == "good"
    assert "5.00%" in reasons["bad"]
    assert "slower than the original" in reasons["slow"]
    assert "larger than the original" in reasons["large"]
    assert "not smaller" in reasons["tie"]
    choice = search.choose(original, others, Budget(max_latency_ms=1.0))
    assert choice.delivered is None
    assert choice.best == "tie"


def test_what_is_for_an_absent_accelerator_goes_first_and_a_baseline_without_engine_is_not_delivered():
    original = Figures("original", 0.0, 10.0, 1000, deliverable=False)
    small = Figures("small", 0.0, 500.0, 250, timed=False)
    large = Figures("large", 0.0, 20.0, 900, timed=False)
    here = Figures("here", 0.0, 5.0, 300)
    choice = search.choose(original, [here, large, small], Budget(max_latency_ms=8.0))
    reasons = {v.name: v.reason for v in choice.verdicts}
    assert choice.delivered == "small"
    assert "measured on the device alone" in reasons["small"]
    assert reasons["large"] == "not smaller than small"
    assert "accelerator" in reasons["here"]
    assert "no engine" in reasons["original"]
    worse = replace(small, drop=0.5)
    assert search.choose(original, [here, worse], Budget()).delivered == "here"
    larger = replace(small, size_bytes=5000)
    assert search.choose(original, [larger], Budget()).delivered == "small"
    nothing = search.choose(original, [worse], Budget())
    assert nothing.delivered is None
    assert nothing.best == "small"


def test_of_files_about_as_fast_and_small_the_nearest_to_the_original_is_delivered():
    original = Figures("original", 0.0, 10.0, 1000)
    near, far = Figures("near", 0.001, 4.95, 288), Figures("far", 0.009, 4.9, 286)
    choice = search.choose(original, [far, near], Budget())
    reasons = {v.name: v.reason for v in choice.verdicts}
    assert choice.delivered == "near"
    assert "nearer to the original" in reasons["near"]
    assert "drops more" in reasons["far"]
    assert search.choose(original, [replace(far, size_bytes=250), near], Budget()).delivered == "far"


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), (" 2.5 % ", 0.025)])
def test_drops(text, value):
    assert search.parse_drop(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("8ms", 8.0), ("500us", 0.5), ("1.5 s", 1500.0)])
def test_latencies(text, value):
    assert search.parse_latency(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("4MB", 4_000_000), ("4MiB", 4 << 20), ("100 b", 100)])
def test_sizes(text, value):
    assert search.parse_size(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (search.parse_drop, "5"),
        (search.parse_drop, "-1%"),
        (search.parse_drop, "lots"),
        (search.parse_latency, "8"),
        (search.parse_latency, "8MB"),
        (search.parse_latency, "0ms"),
        (search.parse_size, "4"),
        (search.parse_size, "1e9MB"),
    ],
)
def test_nonsense_is_refused(parse, text):
    with pytest.raises(UsageError):
        parse(text)


def test_a_budget_cannot_be_negative_or_infinite():
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UsageError):
            Budget(max_drop=value)


def test_the_plan_is_every_toolchain_in_every_precision():
    plan = search.plan(targets.get("x86-avx2"))
    engines = ("litert", "openvino", "executorch")
    others = [f"{engine}-{precision}" for engine in engines for precision in ("fp32", "int8")]
    assert [c.name for c in plan] == ["fp32", "fp16", "int8", "int8-fitted", *others, "iree-fp32"]
    assert all(c.toolchain.engine == "onnxruntime" for c in plan[:4])
    assert [step.name for step in plan[2].steps] == ["clean", "fuse", "int8"]
    assert len({c.steps[-1].options.get("fit", False) for c in plan[2:4]}) == 2


def test_one_scale_per_tensor_wants_equal_channels_first():
    npu = targets.ARITHMETICS["npu-per-tensor"]
    toolchain = replace(targets.get("arm64").toolchains[0], arithmetic=npu)
    for candidate in search.plan(replace(targets.get("arm64"), toolchains=(toolchain,)), ["int8", "fp16"]):
        names = [step.name for step in candidate.steps]
        if candidate.precision == "int8":
            assert names == ["clean", "fuse", "equalize", "centre", "int8"]
        else:
            assert names == ["clean", "fuse", "fp16"]


def test_precisions_that_were_asked_for_take_the_place_of_the_targets():
    plan = search.plan(targets.get("raspberry-pi-4"), ["int8-weights", "fp16", "fp16"])
    assert [c.name for c in plan] == ["int8-weights", "fp16", "litert-fp16"]
    with pytest.raises(UsageError, match="coral-usb takes none of nf4; it takes: int8, "):
        search.plan(targets.get("coral-usb"), ["nf4"])
    assert search.plan(targets.get("coral-usb"), ["nf4"], suggested=True) == ()
    with pytest.raises(UsageError, match="unknown precision 'int9'; choose among: fp32, "):
        search.plan(targets.get("host"), ["int9"])


@pytest.mark.parametrize("precision", search.WAYS)
def test_every_way_leads_through_known_passes(precision):
    for _suffix, steps in search.WAYS[precision]:
        for step in steps:
            technique = passes.get(step.name)
            technique.options(**step.options)


def test_rounding_at_run_time_and_smoothing_are_tried_where_dense_layers_dominate(make_model, resnet20):
    weights = {"w": np.ones((64, 64), np.float32)}
    dense = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [1, 64]}, ["y"], constants=weights
    )
    assert search.suited(dense) == ("int8-dynamic", "int8-smooth")
    assert search.suited(resnet20) == ()


cut_lists = st.lists(st.floats(1.01, 100), min_size=1, max_size=12, unique=True).map(sorted)


@given(cut_lists, st.floats(0.5, 120))
def test_the_least_cut_that_is_enough_is_found_with_few_questions(cuts, needed):
    asked = []

    def enough(cut):
        asked.append(cut)
        return cut >= needed

    found = search.least(enough, cuts)
    assert found == next((cut for cut in cuts if cut >= needed), None)
    assert len(asked) <= len(cuts).bit_length()
    assert len(asked) == len(set(asked))


@given(cut_lists, st.floats(0.5, 120), st.floats(1, 100))
def test_climbing_ends_at_the_largest_cut_that_holds(cuts, most, first):
    tried = {}
    while (cut := search.climb(tried, cuts, first=first)) is not None:
        assert cut not in tried
        tried[cut] = cut <= most
    held = [cut for cut in cuts if cut <= most]
    assert max((cut for cut, good in tried.items() if good), default=None) == (held[-1] if held else None)


def test_few_cuts_are_trained_in_a_climb():
    for most in (1.0, *search.CUTS, 10.0):
        tried = {}
        while (cut := search.climb(tried)) is not None:
            tried[cut] = cut <= most
        assert len(tried) <= 4
