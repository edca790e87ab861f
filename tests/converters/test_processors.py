"""Pairs of products that saturate on other processors: named by the drop report, and cured by fewer bits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from farrier_contracts.targets import ARITHMETICS
from farrier_converters import passes
from farrier_converters.compare import CompareSettings, drop_report
from farrier_converters.data import Dataset
from farrier_converters.emulate import Emulator

ROWS = np.random.default_rng(8).uniform(0.5, 1, (48, 32)).astype(np.float32)
SETTINGS = CompareSettings(rows=16, batch=8)


@pytest.fixture(scope="module")
def positive(make_model):
    """Two dense layers whose weights all pull the same way, so that large products meet."""
    rng = np.random.default_rng(9)
    constants = {
        "first": rng.uniform(0.6, 1, (32, 16)).astype(np.float32),
        "second": rng.standard_normal((16, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], name="first_layer"),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "second"], ["y"], name="second_layer"),
    ]
    return make_model(nodes, {"x": ["N", 32]}, ["y"], constants=constants)


def _quantized(apply, model, **options):
    context = passes.Context(
        ARITHMETICS["x86-vnni"], lambda: ({"x": ROWS[i : i + 8]} for i in range(0, 32, 8))
    )
    return apply(model, "clean", "fuse", ("int8", options), context=context)


@pytest.fixture(scope="module")
def data(positive):
    return Dataset(positive.inputs, {"x": ROWS[32:]}, rows=np.arange(16))


def test_saturating_pairs_are_a_cause_and_seven_bits_cure_them(positive, data, apply):
    found = drop_report(positive, _quantized(apply, positive), data, settings=SETTINGS).findings
    (pairs,) = [f for f in found if f.cause == "16-bit saturation"]
    assert pairs.place.node == "first_layer"
    assert pairs.numbers["snr_db"] > pairs.numbers["snr_db_without_vnni"] + 3
    cured = _quantized(apply, positive, weight_bits=pairs.cure.weight_bits)
    after = drop_report(positive, cured, data, settings=SETTINGS).findings
    assert "16-bit saturation" not in [f.cause for f in after]
    outputs = [
        Emulator(cured, ARITHMETICS[name]).run({"x": ROWS[32:]})["y"] for name in ("x86-vnni", "x86-avx2")
    ]
    assert (outputs[0] == outputs[1]).all()


def test_what_cannot_saturate_is_not_accused(positive, data, apply):
    signed = passes.Context(ARITHMETICS["arm"], lambda: iter([{"x": ROWS[:32]}]))
    model = apply(positive, "clean", "fuse", ("int8", {}), context=signed)
    found = drop_report(positive, model, data, settings=SETTINGS).findings
    assert "16-bit saturation" not in [f.cause for f in found]


def test_one_tensor_may_have_a_range_method_of_its_own(positive, apply):
    plain = _quantized(apply, positive, method="minmax")
    mixed = _quantized(apply, positive, method="minmax", methods={"a": "percentile"}, percentile=80.0)
    same = _quantized(apply, positive, method="minmax", methods={"x": "minmax"})
    assert same.proto == plain.proto
    assert mixed.proto != plain.proto
