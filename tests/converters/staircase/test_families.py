"""From the times of small networks to curves: what an engine of known costs would take leads back to these."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farrier_converters.model import Model
from farrier_converters.pruning.staircase import Curve, Staircase, node_costs, predict
from farrier_converters.pruning.staircase.families import Family, families
from farrier_converters.pruning.staircase.layers import (
    CONV,
    DENSE,
    DEPTHWISE,
    POINTWISE,
    PRODUCT,
    RECURRENT,
    STRIDED,
)  # fmt: skip
from farrier_converters.pruning.staircase.table import OTHER, effective

WIDTHS = (1, 3, 8, 15, 16, 17, 24, 31, 32, 48, 63, 64, 65, 80, 96)
OUT = {w: float(-(-w // 16) * 16) for w in range(1, 257)}
IN = {w: float(-(-w // 4) * 4) for w in range(1, 257)}
EXACT = {w: float(w) for w in range(1, 257)}
TAPS = {1: 1.5, 3: 3.0}  # of a kernel beyond 9: less is filled up there
RATES = {16: 0.03, 64: 0.02, 256: 0.015, 1024: 0.016}
ENGINE = Staircase(
    "made up", "fp32", "nowhere",
    {
        CONV: Curve(OUT, IN, RATES, call_ns=500, taps=TAPS),
        STRIDED: Curve(OUT, IN, {p: 2 * ns for p, ns in RATES.items()}, call_ns=500, taps=TAPS),
        POINTWISE: Curve(OUT, IN, RATES, call_ns=500),
        DEPTHWISE: Curve(OUT, {}, RATES, call_ns=500),
        OTHER: Curve(EXACT, {}, {1: 0.002}),
        PRODUCT: Curve(OUT, OUT, {64: 0.02}),
        DENSE: Curve(OUT, OUT, {1: 0.05}),
        RECURRENT: Curve(OUT, {}, {16: 0.04}),
    },
    run_ns=7000,
    weights_ns={589_824: 0.0, 1_179_648: 0.1, 2_359_296: 0.2, 4_718_592: 0.3},
)  # fmt: skip


def nanoseconds(model: Model) -> float:
    return 1e6 * predict(model, ENGINE)


@pytest.mark.parametrize("family", families(WIDTHS), ids=lambda family: family.name)
def test_known_costs_are_found_again(family: Family) -> None:
    times = {name: nanoseconds(build()) for name, build in family.networks.items()}
    for kind, found in family.curves(times).items():
        wanted = ENGINE.curves[kind]
        for width in WIDTHS[kind == DEPTHWISE :]:  # one channel is no group
            assert found.outputs[width] == pytest.approx(effective(wanted.outputs, width), rel=0.03), (
                kind,
                width,
            )
            if wanted.inputs:
                assert found.inputs[width] == pytest.approx(effective(wanted.inputs, width), rel=0.03), kind
        for positions, rate in found.macs_ns.items():
            assert rate == pytest.approx(wanted.rate(positions), rel=0.03), (kind, positions)
        assert found.call_ns == pytest.approx(wanted.call_ns, abs=30)
        assert found.taps == pytest.approx(wanted.taps, rel=0.05)
    for name, value in family.whole(times).items():
        wanted = getattr(ENGINE, name)
        if isinstance(value, dict):
            assert all(v == pytest.approx(wanted.get(k, 0.0), abs=0.01) for k, v in value.items())
        else:
            assert value == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("family", families((64,)), ids=lambda family: family.name)
def test_times_without_any_sense_still_make_a_table(family: Family) -> None:
    """A machine may be so loaded that differences turn negative."""
    for ns in (1000.0, 0.0):
        times = {name: ns / (1 + index) for index, name in enumerate(family.networks)}
        for curve in family.curves(times).values():
            assert all(
                width > 0 for width in (*curve.outputs.values(), *curve.inputs.values(), *curve.taps.values())
            )
            assert all(rate > 0 for rate in curve.macs_ns.values())
            assert curve.call_ns >= 0


def test_each_network_is_named_by_what_it_holds() -> None:
    names = [name for family in families(WIDTHS) for name in family.networks]
    assert len(names) > 10 * len(WIDTHS) / 2
    model = families(WIDTHS)[0].networks["pair 48"]()
    kinds = [cost.layer for cost in node_costs(model, replace(ENGINE, run_ns=0.0))]
    assert [(layer.inputs, layer.outputs) for layer in kinds[:2]] == [(64, 48), (48, 64)]
