"""A new board on known toolchains is data: one constant, and everything that takes a target knows it."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

import farrier
from farrier import catalogue, cli
from farrier.optimization import Settings, TrialSettings
from farrier_contracts import bundle, targets
from farrier_contracts.errors import BudgetError
from farrier_contracts.targets import Target
from farrier_contracts.targets.coral import EDGE_TPU
from farrier_contracts.targets.processors import litert
from farrier_converters.measure import LatencySettings

ASSETS = Path(farrier.__file__).parent / "showcase" / "assets"
NEW = Target(
    name="kiosk-3",
    description="a kiosk with an Edge TPU",
    arch=platform.machine().lower().replace("amd64", "x86_64"),
    memory_bytes=512 << 20,
    accelerators=("edgetpu",),
    toolchains=(EDGE_TPU, litert("run here")),
    sources={"memory_bytes": "its label", "accelerators": "its label"},
)
QUICK = Settings(
    trial=TrialSettings(
        latency=LatencySettings(rounds=2, most_rounds=2, round_s=0.002),
        profile=LatencySettings(rounds=2, most_rounds=2, round_s=0.002),
    )
)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(targets.TARGETS, NEW.name, NEW)


def test_it_is_listed_and_checked(capsys):
    assert cli.main(["targets"]) == 0
    assert NEW.description in capsys.readouterr().out
    assert f"### {NEW.name}" in catalogue.page()
    assert cli.main(["check", str(ASSETS / "digits.onnx"), "--target", NEW.name, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["target"] == NEW.name
    assert {op["unit"] for op in document["ops"]} == {"edgetpu"}


def test_it_gets_bundles(tmp_path):
    result = farrier.optimize(
        ASSETS / "digits.onnx",
        target=NEW.name,
        data=ASSETS / "digits-eval.npz",
        precision="int8",
        out=tmp_path / "out",
        settings=QUICK,
    )
    manifest = bundle.verify(result.bundle)
    assert manifest.compatibility.accelerators == NEW.accelerators
    assert [(a.target, a.engine) for a in manifest.artifacts] == [(NEW.name, "edgetpu")]
    assert {entry["unit"] for entry in result.report["ledger"]} == {"edgetpu"}
    assert result.delivered.stand_in == "litert"
    assert not manifest.batching.profile
    assert "shows on the device" in (result.out / "report.html").read_text()
    assert abs(result.drop) <= 0.01


def test_where_nothing_can_be_built_that_is_said(tmp_path):
    """The compiler for it is in no environment here; the original would run on no engine of the target."""
    with pytest.raises(
        BudgetError, match=r"^nothing could be built for cortex-m-ethos-u: Vela is not installed; run:"
    ):
        farrier.optimize(
            ASSETS / "digits.onnx", target="cortex-m-ethos-u", out=tmp_path / "out", settings=QUICK
        )
    assert not (tmp_path / "out").exists()
