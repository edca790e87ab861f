"""INT8 where some operators compute in float: what they read is stored in eight bits all the same."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.ledger import ledger

WIDTH, HIDDEN = 24, 32
ROWS = np.random.default_rng(5).integers(0, 64, (128, 12))


@pytest.fixture(scope="module")
def tagger(make_model):
    """A table, an LSTM and a dense layer: [N, 12] tokens in, [12, N, 64] scores out."""
    rng = np.random.default_rng(4)
    shapes = {
        "table": (64, WIDTH),
        "w": (1, 4 * HIDDEN, WIDTH),
        "r": (1, 4 * HIDDEN, HIDDEN),
        "dense": (HIDDEN, 64),
        "last": (64, 64),
    }
    constants = {name: (rng.standard_normal(shape) / 4).astype(np.float32) for name, shape in shapes.items()}
    constants["axes"] = np.array([1], np.int64)
    nodes = [
        helper.make_node("Cast", ["x"], ["tokens"], to=7),
        helper.make_node("Gather", ["table", "tokens"], ["e"], name="embed"),
        helper.make_node("Transpose", ["e"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r"], ["h"], name="lstm", hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["h", "axes"], ["s"]),
        helper.make_node("MatMul", ["s", "dense"], ["m"], name="dense"),
        helper.make_node("Relu", ["m"], ["a"]),
        helper.make_node("MatMul", ["a", "last"], ["y"], name="last"),
    ]
    return make_model(nodes, {"x": ["N", 12]}, ["y"], constants=constants)


@pytest.fixture(scope="module")
def context():
    return passes.Context(
        Arithmetic("u8"), lambda: ({"x": ROWS[i : i + 32].astype(np.float32)} for i in range(0, 64, 32))
    )


@pytest.mark.parametrize(("way", "least"), [("int8", 3.0), ("int8-dynamic", 2.0)])
def test_tables_and_recurrent_weights_are_stored_as_integers(tagger, context, apply, outputs, way, least):
    feeds = {"x": ROWS[64:].astype(np.float32)}
    (wanted,) = outputs(tagger, feeds)
    small = apply(tagger, "clean", "fuse", (way, {}), context=context)
    large = apply(tagger, "clean", "fuse", (way, {"store_rest": False}), context=context)
    sizes = [len(model.proto.SerializeToString()) for model in (tagger, large, small)]
    assert sizes[0] > least * sizes[2]
    assert sizes[1] > 1.2 * sizes[2]
    for model in (small, large):
        error = np.sqrt(np.mean(np.square(outputs(model, feeds)[0] - wanted)))
        assert error < 0.03 * wanted.std()
    stored = {e.name: e.precision for e in ledger(small, targets.get("x86-vnni"))}
    assert stored["embed"] == "int8-weights"
    assert {e.name: e.precision for e in ledger(large, targets.get("x86-vnni"))}["embed"] == "fp32"


def test_what_an_option_excludes_keeps_its_float_weights(tagger, context, apply):
    found = apply(tagger, "clean", "fuse", ("int8", {"exclude": ("lstm",)}), context=context)
    kept = {t.name for t in found.proto.graph.initializer if t.data_type == 1 and len(t.dims) == 3}
    assert kept == {"w", "r"}
    assert any(e.name == "lstm" and e.precision == "fp32" for e in ledger(found, targets.get("x86-vnni")))
