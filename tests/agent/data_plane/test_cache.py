"""The response cache: it never gives another request's answer, keeps its budget, and doubts itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier_agent import cache as caching
from farrier_agent.cache import ResponseCache
from farrier_agent.runtime import Runtime, RuntimeSettings


def make(**more):
    return ResponseCache("digest", **{"budget_bytes": 1 << 20, "verify_every": 0, **more})


arrays = st.tuples(
    st.sampled_from(["u1", "i1", "<u2", "<f4", "<i8", "?"]),
    st.sampled_from([(8,), (2, 4), (4, 2), (1, 8), (16,), (0,), (0, 3)]),
    st.integers(0, 2),
).map(lambda item: np.full(item[1], item[2]).astype(item[0]))


@given(st.tuples(st.sampled_from("xy"), arrays), st.tuples(st.sampled_from("xy"), arrays))
def test_keys_are_equal_only_for_equal_requests(one, other):
    cache = make()
    first, second = dict([one]), dict([other])
    equal = (
        one[0] == other[0]
        and one[1].dtype == other[1].dtype
        and one[1].shape == other[1].shape
        and one[1].tobytes() == other[1].tobytes()
    )
    assert (cache.key(first) == cache.key(second)) == equal


def test_forced_collisions_give_no_wrong_answer():
    """With keys that find by one byte, thousands of requests fall on each other: none gets another's answer."""
    cache = make(find_bytes=1)
    hits = 0
    for _ in range(2):
        for number in range(2000):
            key = cache.key({"x": np.array([number % 300])})
            found = cache.get(key)
            if found is not None:
                hits += 1
                assert found["y"] == number % 300
            cache.put(key, {"y": np.array([number % 300])})
    assert hits > 0
    assert len(cache) <= 256


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 400)), max_size=60))
def test_the_budget_holds_and_the_oldest_goes_first(requests):
    cache = make(budget_bytes=4000)
    order: dict[int, int] = {}
    for number, size in requests:
        cache.put(cache.key({"x": np.array([number])}), {"y": np.full(size, number, np.uint8)})
        order.pop(number, None)
        order[number] = size
        while sum(size + caching.ENTRY_OVERHEAD_BYTES for size in order.values()) > 4000:
            order.pop(next(iter(order)))
        assert cache.used_bytes == sum(size + caching.ENTRY_OVERHEAD_BYTES for size in order.values())
    for number in range(21):
        found = cache.get(cache.key({"x": np.array([number])}))
        assert (found is not None) == (number in order)


def test_an_answer_larger_than_the_budget_is_not_kept():
    cache = make(budget_bytes=1000)
    key = cache.key({"x": np.array([1])})
    cache.put(key, {"y": np.zeros(1000)})
    assert cache.get(key) is None


@pytest.mark.parametrize(
    ("hit_ns", "run_ns", "want"), [(10, 100, True), (100, 100, False), (100, 140, False)]
)
def test_a_hit_must_be_clearly_cheaper_than_a_run(hit_ns, run_ns, want):
    assert caching.worthwhile(hit_ns, run_ns) is want


def look_up(cache, numbers) -> int:
    """Ask for each number as a client would, and return how many were looked up."""
    looked = 0
    for number in numbers:
        if cache.wants():
            looked += 1
            key = cache.key({"x": np.array([number])})
            if cache.get(key) is None:
                cache.put(key, {"y": np.array([number])})
    return looked


def test_it_rests_while_nothing_comes_twice_and_tries_again():
    cache = make()
    cache.price(hit_ns=10, run_ns=100)
    trial, rest = caching.TRIAL_LOOKUPS, caching.REST_LOOKUPS
    assert look_up(cache, range(trial + rest)) == trial
    assert look_up(cache, [7] * 10_000) == 10_000  # the next trial pays


def test_it_goes_on_while_enough_comes_twice():
    cache = make()
    cache.price(hit_ns=10, run_ns=100)
    assert look_up(cache, (n // 2 for n in range(5000))) == 5000


@pytest.fixture
def slow_bundle(make_bundle, shared_data):
    """A model that costs many times a hit: the face detector."""
    from farrier_contracts.tensors import TensorSpec

    [model] = (shared_data / "ultraface").rglob("version-RFB-320_without_postprocessing.onnx")
    outputs = [TensorSpec("scores", "FP32", (1, 4420, 2)), TensorSpec("boxes", "FP32", (1, 4420, 4))]
    return make_bundle(model.read_bytes(), [TensorSpec("input", "FP32", (1, 3, 240, 320))], outputs)


def picture(seed: int) -> dict[str, np.ndarray]:
    return {"input": np.random.default_rng(seed).normal(size=(1, 3, 240, 320)).astype(np.float32)}


def test_equal_requests_share_one_run(slow_bundle):
    with Runtime(slow_bundle) as runtime:
        assert runtime.cache.enabled
        first, again, other = runtime.infer(picture(1)), runtime.infer(picture(1)), runtime.infer(picture(2))
        seen = runtime.stats.read()
    assert (seen.executions, seen.cache_hits, seen.cache_misses) == (2, 1, 2)
    np.testing.assert_array_equal(first["scores"], again["scores"])
    assert not np.array_equal(first["scores"], other["scores"])
    again["scores"][:] = 0  # a caller's own copy


def test_an_answer_that_a_second_run_does_not_confirm_switches_the_cache_off(slow_bundle):
    with Runtime(slow_bundle, settings=RuntimeSettings(cache_verify_every=2)) as runtime:
        honest = runtime.infer(picture(1))
        forged = {name: array + 1 for name, array in honest.items()}
        runtime.cache.put(runtime.cache.key(picture(1)), forged)
        np.testing.assert_array_equal(runtime.infer(picture(1))["scores"], forged["scores"])
        np.testing.assert_array_equal(runtime.infer(picture(1))["scores"], honest["scores"])
        seen = runtime.stats.read()
        assert (seen.cache_hits, seen.cache_mismatches, runtime.cache.enabled) == (2, 1, False)
        np.testing.assert_array_equal(runtime.infer(picture(1))["scores"], honest["scores"])


def test_confirmed_answers_keep_it_on(slow_bundle):
    with Runtime(slow_bundle, settings=RuntimeSettings(cache_verify_every=1)) as runtime:
        for _ in range(3):
            runtime.infer(picture(1))
        seen = runtime.stats.read()
        assert (seen.executions, seen.cache_mismatches, runtime.cache.enabled) == (3, 0, True)


def test_a_bundle_may_forbid_it_and_a_cheap_model_does_without(conv_bundle, make_bundle, slow_bundle):
    from farrier_contracts.tensors import TensorSpec

    specs = [TensorSpec("x", "UINT8", (1 << 20,))], [TensorSpec("y", "FP32", (1,))]
    with Runtime(conv_bundle) as forbidden, Runtime(make_bundle(b"", *specs, engine="null")) as cheap:
        assert not forbidden.cache.enabled
        assert not cheap.cache.enabled
    with Runtime(slow_bundle, settings=RuntimeSettings(cache_bytes=0)) as unwanted:
        assert not unwanted.cache.enabled
