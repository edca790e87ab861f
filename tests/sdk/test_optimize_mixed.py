"""Mixed precision through `farrier optimize`: what no single precision can give."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import farrier
from farrier.optimization import Settings, TrialSettings
from farrier_converters.measure import LatencySettings
from farrier_converters.mixed.search import MOST_VALIDATIONS

QUICK = Settings(
    trial=TrialSettings(
        latency=LatencySettings(rounds=5, most_rounds=5, round_s=0.01),
        profile=LatencySettings(rounds=2, most_rounds=2, round_s=0.002),
    )
)
ALLOWED = 0.004  # two answers of 500


@pytest.fixture(scope="module")
def strict(tmp_path_factory, resnet20_proto, cifar10) -> Path:
    """A network and pictures on which hardly an answer may change: more than INT8 in every layer can give."""
    folder = tmp_path_factory.mktemp("strict")
    onnx.save(resnet20_proto, folder / "net.onnx")
    pictures, _ = cifar10
    np.savez(folder / "calib.npz", images=pictures[:64])
    np.savez(folder / "data.npz", images=pictures[64:564])
    return folder


def test_a_mix_is_found_where_no_single_precision_is_good_enough(strict):
    inputs = {"data": strict / "data.npz", "calib": strict / "calib.npz"}
    result = farrier.optimize(
        strict / "net.onnx", **inputs, max_drop=ALLOWED, out=strict / "out", settings=QUICK
    )
    report = json.loads((result.out / "report.json").read_text())
    int8 = next(c for c in report["candidates"] if c["name"] == "int8")
    assert int8["drop"] > ALLOWED, "INT8 is good enough everywhere: the case is no case"
    mixed = report["mixed"]
    assert 1 < len(mixed["validations"]) <= MOST_VALIDATIONS
    ways = [layer["way"] for layer in mixed["layers"]]
    assert len(ways) == 20
    assert set(ways) == {"int8", "float"}
    entry = next(c for c in report["candidates"] if c["name"] == "mixed")
    assert entry["drop"] <= ALLOWED
    assert entry["precision"] == "mixed"
    assert "layer by layer" in (result.out / "report.html").read_text()
    if result.delivered.name != "mixed":
        return  # a busy machine may find it no faster than float; then it is rightly not delivered
    precisions = {e["precision"] for e in report["ledger"] if e["op"] == "Conv"}
    assert precisions == {"int8", "fp32"}
    again = farrier.optimize(
        strict / "net.onnx", **inputs, locked=result.out / "recipe.lock", out=strict / "again", settings=QUICK
    )
    assert _digest(again.bundle) == _digest(result.bundle)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
