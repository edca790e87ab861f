"""SmoothQuant: the same function, and INT8 that outlier channels spoil less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.errors import InputError, UsageError
from farrier_converters import ledger, passes
from farrier_converters.model import Model
from farrier_converters.quantize.reasons import reason_of

CHANNELS, WIDTH, ROWS, WORDS = 32, 24, 16, 5
EPSILON = 1e-5


def _norm(how, gamma, beta):
    """Return nodes that normalise `x` into `n` in one of three ways, and their constants."""
    constants = {"gamma": gamma, "beta": beta}
    if how == "LayerNormalization":
        return [helper.make_node(how, ["x", "gamma", "beta"], ["n"], axis=-1)], constants
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[-1]),
        helper.make_node("Sub", ["x", "mean"], ["c"]),
        helper.make_node("Mul", ["c", "c"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["variance"], axes=[-1]),
        helper.make_node("Add", ["variance", "epsilon"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["deviation"]),
        helper.make_node("Div", ["c", "deviation"], ["unit"]),
    ]
    constants["epsilon"] = np.array(EPSILON, np.float32)
    if how == "Mul":
        return [*nodes, helper.make_node("Mul", ["gamma", "unit"], ["n"])], constants
    ends = [helper.make_node("Mul", ["unit", "gamma"], ["scaled"])]
    return [*nodes, *ends, helper.make_node("Add", ["beta", "scaled"], ["n"])], constants


def _net(
    make_model, how="LayerNormalization", *, gamma=None, readers=2, turned=False, residual=False, seed=0
) -> Model:
    """A layer norm that several matrices read, of which the first two share their weights.

    Weights are smaller where gamma is large, as trained networks have it.
    """
    rng = np.random.default_rng(seed)
    gamma = np.ones(CHANNELS, np.float32) if gamma is None else gamma
    nodes, constants = _norm(how, gamma, rng.standard_normal(CHANNELS).astype(np.float32) / 4)
    results = []
    for index in range(readers):
        weights = f"w{max(index - 1, 0)}"
        matrix = rng.standard_normal((CHANNELS, WIDTH)) / np.sqrt(np.maximum(np.abs(gamma), 1))[:, None]
        constants[weights] = matrix.astype(np.float32)
        nodes.append(helper.make_node("MatMul", ["n", weights], [f"m{index}"]))
        results.append(f"m{index}")
    if turned:
        constants["rows"] = np.array([-1, CHANNELS])
        constants["t"] = rng.standard_normal((WIDTH, CHANNELS)).astype(np.float32) / 5
        constants["tb"] = rng.standard_normal(WIDTH).astype(np.float32)
        nodes.append(helper.make_node("Gemm", ["n", "t", "tb"], ["g"], transB=1))
        results.append("g")
    if residual:
        nodes.append(helper.make_node("Identity", ["n"], ["rest"]))
        results.append("rest")
    shape = ["N", CHANNELS] if turned else ["N", WORDS, CHANNELS]
    return make_model(nodes, {"x": shape}, results, constants=constants)


def _feeds(model, seed=1):
    shape = (ROWS, *model.inputs[0].shape[1:])
    return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


def _context(*feeds):
    return passes.Context(targets.ARITHMETICS["x86-vnni"], lambda: iter(feeds))


def _ops(model):
    return [node.op_type for node in model.proto.graph.node]


def _outlier():
    gamma = np.ones(CHANNELS, np.float32)
    gamma[3], gamma[17] = 60.0, -90.0
    return gamma


@settings(max_examples=30, deadline=None)
@given(
    how=st.sampled_from(("LayerNormalization", "Mul+Add", "Mul")),
    readers=st.integers(1, 3),
    turned=st.booleans(),
    residual=st.booleans(),
    explicit=st.booleans(),
    strength=st.floats(0, 1),
    spread=st.floats(-3, 3),
    seed=st.integers(0, 99),
)
def test_smoothed_networks_compute_the_same(
    make_model, apply, outputs, how, readers, turned, residual, explicit, strength, spread, seed
):
    gamma = np.exp(spread * np.random.default_rng(seed).standard_normal(CHANNELS)).astype(np.float32)
    gamma[seed % CHANNELS] = 0  # a dead channel, but for the shift
    model = _net(make_model, how, gamma=gamma, readers=readers, turned=turned, residual=residual, seed=seed)
    feeds = _feeds(model)
    wanted = outputs(model, feeds)
    smooth = ("smooth", {"strength": strength, "explicit": explicit})
    found = outputs(apply(model, smooth, context=_context(feeds)), feeds)
    for a, b in zip(found, wanted, strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()


@pytest.mark.parametrize("how", ["LayerNormalization", "Mul+Add", "Mul"])
def test_int8_loses_less_with_outlier_channels(make_model, apply, outputs, how):
    model = _net(make_model, how, gamma=_outlier())
    feeds, wanted = _feeds(model, seed=2), outputs(model, _feeds(model, seed=2))
    context = _context(_feeds(model, seed=3), _feeds(model, seed=4))

    def error(*steps):
        found = outputs(apply(model, *steps, "int8", context=context), feeds)
        return np.sqrt(np.mean([np.square(a - b).mean() for a, b in zip(found, wanted, strict=True)]))

    assert error("smooth") < error() / 3
    assert _ops(apply(model, "smooth", context=context)) == _ops(model)  # at no cost


def test_what_others_read_too_is_smoothed_by_a_mul_that_was_asked_for(make_model, apply, outputs):
    model = _net(make_model, gamma=_outlier(), residual=True)
    context = _context(_feeds(model))
    left = apply(model, "smooth", context=context)
    assert _ops(left) == _ops(model)
    told = [reason_of(node) or "" for node in left.proto.graph.node if node.op_type == "MatMul"]
    assert all("not smoothed: nothing before its input n" in reason for reason in told)
    entries = ledger.ledger(left, targets.get("host"))
    assert told == [entry.reason for entry in entries if entry.op == "MatMul"]
    made = apply(model, ("smooth", {"explicit": True}), context=context)
    assert sorted(_ops(made)) == sorted([*_ops(model), "Mul"])
    feeds = _feeds(model, seed=5)
    assert np.array_equal(outputs(made, feeds)[-1], outputs(model, feeds)[-1])  # the other reader's


def test_all_readers_share_one_factor_and_others_keep_their_weights(make_model, apply, outputs):
    shared = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gamma"], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
        helper.make_node("Identity", ["gamma"], ["z"]),
    ]
    constants = {"gamma": _outlier(), "w": shared}
    model = make_model(nodes, {"x": ["N", CHANNELS]}, ["y", "z"], constants=constants)
    feeds = _feeds(model)
    smoothed = apply(model, "smooth", context=_context(feeds))
    for found, wanted in zip(outputs(smoothed, feeds), outputs(model, feeds), strict=True):
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    names = {name for node in smoothed.proto.graph.node for name in node.input}
    assert {"w", "gamma"} <= names


def test_a_network_without_dense_layers_comes_back_itself(make_model, apply):
    relu = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, ["y"])
    assert apply(relu, "smooth", context=_context(_feeds(relu))) is relu


def test_what_cannot_be_done_is_one_sentence(make_model, apply):
    model = _net(make_model)
    with pytest.raises(UsageError, match="smoothing needs calibration data"):
        apply(model, "smooth")
    for strength in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="strength has to be 0 to 1"):
            passes.get("smooth").options(strength=strength)
    with pytest.raises(InputError, match="holds no samples"):
        apply(model, "smooth", context=_context())
    with pytest.raises(InputError, match="does not fit the model"):
        apply(model, "smooth", context=_context({"x": np.zeros((1, 3), np.float32)}))
    wild = np.full((1, WORDS, CHANNELS), np.nan, np.float32)
    with pytest.raises(InputError, match="not finite"):
        apply(model, "smooth", context=_context({"x": wild}))
