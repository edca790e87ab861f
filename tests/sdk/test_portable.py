"""Predicted metrics on other processors, and the variant that scores the same on all of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import farrier
from farrier.optimization import Settings, TrialSettings, portable
from farrier.optimization.build import Built
from farrier.optimization.result import Entry
from farrier_contracts import targets
from farrier_contracts.targets import ARITHMETICS
from farrier_converters.emulate import Emulator
from farrier_converters.graph import run
from farrier_converters.measure import LatencySettings
from farrier_converters.model import load
from farrier_converters.search import Candidate, Choice, Step

QUICK = Settings(
    trial=TrialSettings(
        latency=LatencySettings(rounds=3, most_rounds=3, round_s=0.005),
        profile=LatencySettings(rounds=2, most_rounds=2, round_s=0.002),
    )
)
RECIPE = """version = 1
[[candidate]]
name = "int8"
precision = "int8"
[[candidate.pass]]
name = "clean"
[[candidate.pass]]
name = "fuse"
[[candidate.pass]]
name = "int8"
"""


PREDICTIONS = (
    portable.Prediction("x86-vnni", 0.9, 0.0, 0, 100, as_it_is=True),
    portable.Prediction("x86-avx2", 0.8, 0.1, 5, 100, as_it_is=True),
)


def planted(classes: int = 6, width: int = 32, side: int = 24) -> onnx.ModelProto:
    """A classifier whose second layer has weights of one size and neighbours of one sign: their pairs overflow."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (width, width, 3, 3))
    signs[:, 1::2] = signs[:, ::2]
    constants = {
        "first": rng.normal(0, 0.4, (width, 3, 3, 3)),
        "bias": np.full(width, 0.5),
        "wild": signs / 20,
        "last": rng.normal(0, 1, (classes, width)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first", "bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "wild"], ["c"], name="wild"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "last"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def optimized(tmp_path_factory):
    """The planted network optimized for x86 with VNNI: the folder, and the result."""
    folder = tmp_path_factory.mktemp("portable")
    onnx.save(planted(), folder / "planted.onnx")
    rows = np.random.default_rng(1).uniform(0, 2, (96, 3, 24, 24)).astype(np.float32)
    answers = run.once(planted(), {"x": rows})[0]
    noise = np.random.default_rng(2).normal(0, 0.05 * answers.std(), answers.shape)
    np.savez(folder / "rows.npz", x=rows, target=(answers + noise).astype(np.float32))
    (folder / "recipe.toml").write_text(RECIPE)
    result = farrier.optimize(
        folder / "planted.onnx",
        target="x86-vnni",
        data=folder / "rows.npz",
        recipe=folder / "recipe.toml",
        metric="mse",
        max_drop=10.0,
        out=folder / "out",
        settings=QUICK,
    )
    return folder, result


def by_name(result) -> dict[str, dict]:
    return {
        p["candidate"]: {a["arithmetic"]: a for a in p["arithmetics"]} for p in result.report["predictions"]
    }


def test_every_arithmetic_is_predicted_and_saturation_is_found(optimized) -> None:
    found = by_name(optimized[1])["int8"]
    assert list(found) == list(portable.PREDICTED)
    assert found["x86-avx2"]["saturated"] > 1000
    assert found["x86-vnni"]["saturated"] == found["arm"]["saturated"] == 0
    assert found["x86-vnni"]["value"] == found["arm"]["value"]
    assert found["x86-avx2"]["drop"] > found["x86-vnni"]["drop"] + portable.PortableSettings.spread
    assert [name for name, a in found.items() if not a["as_it_is"]] == ["npu-per-tensor"]


def test_a_variant_never_has_more_bits() -> None:
    built = Built(Candidate("w4a8", "w4a8", targets.get("x86-vnni").toolchains[0]), None, Path(), ())  # type: ignore[arg-type]
    saturating = portable.Outlook("w4a8", predictions=PREDICTIONS, family=("x86-vnni", "x86-avx2"))
    for bits, wanted in ((None, "w4a8-7bit"), (8, "w4a8-7bit"), (7, None), (4, None)):
        step = Step("int8", {"weight_bits": bits})
        found = portable.variant(
            replace(built, candidate=replace(built.candidate, steps=(step,))), saturating
        )
        assert (found and found.name) == wanted


def test_the_variant_that_is_the_same_everywhere_is_delivered(optimized) -> None:
    folder, result = optimized
    found = by_name(result)["int8-7bit"]
    assert {found[name]["value"] for name in ("x86-vnni", "x86-avx2", "arm")} == {found["arm"]["value"]}
    assert found["x86-avx2"]["saturated"] == 0
    assert result.delivered.name in ("int8-7bit", "original")
    if result.delivered.name == "int8-7bit":  # integers are faster here
        emulator = Emulator(load(folder / "out" / "model.onnx"), ARITHMETICS["x86-avx2"])
        with np.load(folder / "rows.npz") as rows:
            emulator.run({"x": rows["x"]})
        assert {s.saturated for s in emulator.saturation.values()} == {0}
        assert not next(e for e in result.candidates if e.name == "int8").kept


def test_what_is_predicted_for_an_accelerator_is_what_it_would_get(optimized, tmp_path, monkeypatch) -> None:
    folder, result = optimized
    arm = targets.get("arm64")
    toolchain = replace(arm.toolchains[0], precisions=("int8",), arithmetic=ARITHMETICS["npu-per-tensor"])
    monkeypatch.setitem(targets.TARGETS, "npu", replace(arm, name="npu", toolchains=(toolchain,)))
    delivered = farrier.optimize(
        folder / "planted.onnx",
        target="npu",
        data=folder / "rows.npz",
        metric="mse",
        max_drop=10.0,
        precision="int8",
        out=tmp_path / "npu",
        settings=QUICK,
    )
    predicted, found = (by_name(r)["int8"]["npu-per-tensor"] for r in (result, delivered))
    assert found["as_it_is"]
    assert predicted["value"] == found["value"]


def test_predictions_are_in_both_reports_and_survive_the_lock(optimized, tmp_path: Path) -> None:
    folder, result = optimized
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["predictions"] == result.report["predictions"]
    page = (folder / "out" / "report.html").read_text()
    assert "Predicted on other processors" in page
    assert all(name in page for name in portable.PREDICTED)
    again = farrier.optimize(
        folder / "planted.onnx",
        data=folder / "rows.npz",
        locked=folder / "out" / "recipe.lock",
        out=tmp_path / "again",
        settings=QUICK,
    )
    assert again.report["predictions"] == report["predictions"]


def test_a_file_that_scores_otherwise_elsewhere_is_delivered_with_a_warning() -> None:
    def prediction(name: str, drop: float, saturated: int) -> portable.Prediction:
        return portable.Prediction(name, 1 - drop, drop, saturated, 100, True)

    outlook = portable.Outlook(
        "int8",
        10,
        1.0,
        (prediction("x86-vnni", 0.0, 0), prediction("x86-avx2", 0.05, 7), prediction("arm", 0.3, 0)),
        portable.family(ARITHMETICS["x86-vnni"]),
    )
    assert outlook.family == ("x86-vnni", "x86-avx2")
    assert outlook.spread == pytest.approx(0.05)
    (told,) = portable.warnings([outlook], "int8")
    assert "x86-avx2" in told
    assert "5.00%" in told
    assert not portable.warnings([outlook], "another")
    assert not portable.warnings([replace(outlook, predictions=outlook.predictions[:1])], "int8")


def test_a_winner_that_scores_otherwise_elsewhere_gives_way_to_its_variant() -> None:
    entries = {name: Entry(name, "int8") for name in ("int8", "int8-7bit", "fp32")}

    def fastest(among) -> Choice:
        name = next(n for n in ("int8", "int8-7bit", "fp32") if n in among)
        return Choice(name, name, ())

    variants = {"int8": "int8-7bit"}
    choice = portable.elect(entries, variants, fastest)
    assert choice.delivered == "int8-7bit"
    assert [(v.name, v.kept) for v in choice.verdicts] == [("int8", False)]
    without = {name: e for name, e in entries.items() if name != "int8-7bit"}
    assert portable.elect(without, variants, fastest).delivered == "int8"
    assert portable.elect(entries, {}, fastest).delivered == "int8"
