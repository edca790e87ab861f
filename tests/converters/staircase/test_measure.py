"""Measuring: small networks in the engine's own process, each counted by its shortest call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from farrier_contracts.errors import InputError, UsageError
from farrier_converters import model
from farrier_converters.pruning.staircase import networks
from farrier_converters.pruning.staircase.measure import MeasureSettings, here, measure, timed, timing_plan
from farrier_converters.pruning.staircase.turns import shortest

QUICK = MeasureSettings(rounds=1, most_rounds=1, round_ns=1, min_calls=1, max_calls=1, widths=(16, 64))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_table_has_every_kind_of_layer(precision: str) -> None:
    stages: list[tuple[str, float]] = []
    table = measure(
        here("onnxruntime"),
        precision,
        settings=QUICK,
        progress=lambda stage, share: stages.append((stage, share)),
    )
    assert set(table.curves) >= {"conv", "strided", "pointwise", "depthwise", "dense", "product", "recurrent"}
    assert all({16, 64} == set(curve.outputs) for curve in table.curves.values())
    assert table.precision == precision
    assert table.version.startswith("onnxruntime ")
    assert table.run_ns >= 0
    shares = [share for _, share in stages]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1


def test_each_network_is_called_in_every_round() -> None:
    calls = [0, 0, 0]

    def count(index: int) -> None:
        calls[index] += 1

    plan = {
        "rounds": 2, "most_rounds": 3, "settled_rounds": 99, "settled_by": 0.0, "still_share": 0.0,
        "round_ns": 0, "min_calls": 4, "max_calls": 9,
    }  # fmt: skip
    found = shortest([lambda i=i: count(i) for i in range(3)], plan=plan)
    assert calls == [2 + 3 * 4] * 3
    assert all(ns >= 0 for ns in found)


def test_an_engine_that_refuses_a_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(InputError, match="onnxruntime cannot be timed"):
        timed(timing_plan("onnxruntime", [{"path": str(path), "options": {}}]))


def test_a_plan_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model.save(networks.chain(16, 3, layers=2, side=2), path)
    plan = timing_plan(
        "onnxruntime", [{"path": str(path), "options": {}}], settings=replace(QUICK, limit_s=0.01)
    )
    with pytest.raises(InputError, match="not timed within"):
        timed(plan)


@pytest.mark.parametrize(
    ("engine", "precision", "words"),
    [
        ("nonsense", "fp32", "has no engine 'nonsense'; it has: onnxruntime"),
        ("onnxruntime", "int3", "choose one of: fp32, int8"),
    ],
)
def test_what_cannot_be_measured_is_said(engine: str, precision: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        here(engine, precision)
