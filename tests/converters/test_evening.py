"""Channels in front of depthwise convolutions get one size: the same function, nearer to float in INT8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper, numpy_helper

from farrier_contracts.targets import Arithmetic
from farrier_converters import compare, data, model, passes
from farrier_converters.graph import run
from farrier_converters.graph.edit import Graph
from farrier_converters.passes.int8 import Int8Options
from farrier_converters.quantize import datafree
from farrier_converters.quantize.nearest import distances
from farrier_converters.quantize.repair import evening

CHANNELS = 16
ROWS = np.random.default_rng(1).standard_normal((32, 3, 12, 12)).astype(np.float32)


def net(*, norms: bool = False) -> model.Model:
    """A convolution whose channels differ by up to 30 in size, a depthwise one, and one that puts them together."""
    rng = np.random.default_rng(0)
    sizes = np.geomspace(1, 30, CHANNELS).astype(np.float32)
    constants = {
        "w0": rng.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32) / 5,
        "b0": rng.normal(size=CHANNELS).astype(np.float32) / 5,
        "gamma": sizes,
        "beta": sizes * 0.3,
        "mean": np.zeros(CHANNELS, np.float32),
        "variance": np.ones(CHANNELS, np.float32),
        "w1": rng.normal(size=(CHANNELS, 1, 3, 3)).astype(np.float32) / sizes[:, None, None, None] / 3,
        "b1": rng.normal(size=CHANNELS).astype(np.float32),
        "w2": rng.normal(size=(8, CHANNELS, 1, 1)).astype(np.float32) / 4,
        "b2": rng.normal(size=8).astype(np.float32),
    }
    norm = [helper.make_node("BatchNormalization", ["c0", "gamma", "beta", "mean", "variance"], ["n0"])]
    if not norms:
        constants["w0"] *= sizes[:, None, None, None]
        constants["b0"] *= sizes
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="first"),
        *(norm if norms else []),
        helper.make_node("Relu", ["n0" if norms else "c0"], ["r0"], name="relu"),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], name="depthwise", group=CHANNELS),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["y"], name="last"),
    ]
    value = helper.make_tensor_value_info
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", 1, ["N", 3, 12, 12])],
        [value("y", 1, None)],
        [numpy_helper.from_array(v, k) for k, v in constants.items() if k in used],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.from_proto(proto, "net")


def batches():
    return iter([{"x": ROWS[:16]}, {"x": ROWS[16:]}])


def quantized(source: model.Model, context: passes.Context, **options) -> model.Model:
    for name in ("clean", "fuse"):
        source = passes.get(name).run(source, passes.get(name).options(), context)
    return passes.get("int8").run(source, Int8Options(**options), context)


def values(source: model.Model, names: list[str]) -> list[np.ndarray]:
    session = run.session(run.up_to(source.proto, names))
    return [np.asarray(v) for v in session.run(names, {"x": ROWS})]


def error(form: model.Model) -> float:
    return distances(net(), {"form": form}, batches)["form"]


shares = arrays.arrays(np.float64, CHANNELS, elements=st.floats(0, 1))


@given(shares)
@settings(max_examples=20, deadline=None)
def test_the_function_stays_and_every_tensor_is_divided_by_what_is_said(found: np.ndarray) -> None:
    source = net()
    evened, divided = evening.even(source, {"r0": found})
    assert set(divided) == {"c0", "r0"}
    names = ["c0", "r0", "y"]
    before, after = values(source, names), values(evened, names)
    graph = Graph(evened)
    for name, x, y in zip(names, before, after, strict=True):
        divisor = evening.divisor(graph, name)
        assert (divisor is None) == (name == "y")
        back = y if divisor is None else y * divisor.reshape(1, -1, 1, 1)
        assert np.abs(back - x).max() <= 1e-5 * np.abs(x).max()
    divisor = divided["r0"].ravel()
    assert (divisor >= np.minimum(found, 1) * (1 - 1e-6)).all(), (
        "a channel would reach beyond the largest one"
    )
    assert (divisor <= np.maximum(found * 2**0.25 * (1 + 1e-6), 1 / 64)).all(), "a channel is left small"


def test_even_channels_come_nearer_to_float_where_weights_have_a_scale_per_channel() -> None:
    context = passes.Context(Arithmetic("u8"), batches)
    plain = {"bias_correction": False}
    assert error(quantized(net(), context, **plain)) < 0.5 * error(
        quantized(net(), context, even=False, **plain)
    )
    single = passes.Context(Arithmetic("u8", per_channel=False), batches)
    assert quantized(net(), single, **plain) == quantized(net(), single, even=False, **plain)


def test_statistics_of_even_and_uneven_forms_do_not_mix() -> None:
    shared = passes.Context(Arithmetic("u8"), batches, statistics={})
    for options in ({}, {"even": False}, {}, {"even": False, "method": "mse"}, {"method": "mse"}):
        alone = passes.Context(Arithmetic("u8"), batches)
        assert quantized(net(), shared, **options) == quantized(net(), alone, **options)


def test_a_twin_is_even_too() -> None:
    """Without data, the ranges of even channels are those of the twin, divided."""
    source = net(norms=True)
    made = datafree.imagine(source)
    twin = datafree.twin(source, lambda: (feeds for feeds, _ in made.batches(8)))
    assert twin is not None
    divided = {"r0": np.geomspace(0.1, 1, CHANNELS).astype(np.float32).reshape(1, -1, 1, 1)}
    names = ["r0", "c1", "y"]
    before, after = values(twin, names), values(evening.follow(twin, divided), names)
    assert np.allclose(after[0] * divided["r0"], before[0], rtol=1e-5)
    assert all(np.array_equal(x, y) for x, y in zip(before[1:], after[1:], strict=True))


def test_a_comparison_knows_what_was_divided() -> None:
    """Every layer is looked at, and none is called wrong for the sizes of its channels."""
    context = passes.Context(Arithmetic("u8"), batches)
    found = compare.drop_report(
        net(), quantized(net(), context), data.from_arrays({"x": ROWS}, net().inputs, source=Path("rows"))
    )
    report = found.to_document()
    assert not report["causes"]
    assert {"r0", "r1", "y"} <= {layer["tensor"] for layer in report["layers"]}


def test_without_data_mean_errors_of_weights_are_taken_back() -> None:
    source = net(norms=True)
    made = datafree.imagine(source)
    stream = lambda: (feeds for feeds, _ in made.batches(8))  # noqa: E731
    context = passes.Context(Arithmetic("u8"), stream, twin=datafree.twin(source, stream))
    coarse = {"weight_bits": 4, "weight_method": "max"}
    corrected, plain = (quantized(source, context, bias_correction=each, **coarse) for each in (True, False))
    assert error(corrected) < error(plain)
