"""`farrier compare` as its user meets it: real network, real faults, JSON, cure and page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import farrier
from farrier import cli
from farrier_contracts.targets import Arithmetic
from farrier_converters import data, model, passes
from farrier_converters.graph.edit import Graph

ASSETS = Path(farrier.__file__).parent / "showcase" / "assets"
KEYS = {
    "a",
    "b",
    "metric",
    "drop",
    "outputs",
    "layers",
    "causes",
    "rows",
    "snr_db",
    "notes",
    "applied",
    "left_out",
}


@pytest.fixture(scope="module")
def sound() -> model.Model:
    """The demo's digits network in INT8."""
    source = model.load(ASSETS / "digits.onnx")
    rows = data.load(ASSETS / "digits-calib.npz", source.inputs)
    context = passes.Context(Arithmetic("u8"), lambda: (feeds for feeds, _ in rows.batches(32)))
    for name in ("clean", "fuse", "int8"):
        step = passes.get(name)
        source = step.run(source, step.options(), context)
    return source


@pytest.fixture(scope="module")
def saturated(sound: model.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the range of the second convolution's result at a tenth."""
    graph = Graph(sound)
    node = next(n for n in graph.nodes if n.op_type == "QuantizeLinear" and n.input[0] == "relu_1_float")
    back = next(n for n in graph.readers[node.output[0]] if n.op_type == "DequantizeLinear")
    scale = graph.constant(node.input[1])
    assert scale is not None
    node.input[1] = back.input[1] = graph.add_constant("bent", np.asarray(scale * np.float32(0.1)))
    path = tmp_path_factory.mktemp("saturated") / "b.onnx"
    onnx.save(graph.build().proto, path)
    return path


def test_the_cause_is_named_and_cured(saturated: Path, tmp_path: Path, capsys) -> None:
    arguments = [str(ASSETS / "digits.onnx"), str(saturated), "--data", str(ASSETS / "digits-eval.npz")]
    cured = tmp_path / "cured.onnx"
    assert cli.main(["compare", *arguments, "--rows", "64", "--apply", str(cured), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) >= KEYS
    assert document["metric"]["name"] == "accuracy"
    assert document["drop"] > 0.05
    first = document["causes"][0]
    assert (first["cause"], first["tensor"]) == ("saturation", "relu_1")
    assert first["numbers"]["clipped_share"] > 0.1
    assert document["applied"]["recovered"] > 0.95
    again = farrier.compare(ASSETS / "digits.onnx", cured, data=ASSETS / "digits-eval.npz", rows=64)
    assert again.judged.drop < 0.005
    assert {cause["cause"] for cause in again.report["causes"]} <= {
        "16-bit saturation"
    }  # on other processors


def test_what_is_printed_and_the_page(saturated: Path, tmp_path: Path, capsys) -> None:
    page = tmp_path / "page.html"
    arguments = [str(ASSETS / "digits.onnx"), str(saturated), "--data", str(ASSETS / "digits-eval.npz")]
    assert cli.main(["compare", *arguments, "--rows", "32", "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "saturation in node_Conv_57" in printed
    assert "cure:" in printed
    text = page.read_text()
    assert "<svg" in text
    assert "saturation" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_the_same_twice_is_the_same(saturated: Path) -> None:
    one, two = (
        farrier.compare(
            ASSETS / "digits.onnx", saturated, data=ASSETS / "digits-eval.npz", rows=32
        ).to_document()
        for _ in range(2)
    )
    assert one == two


def test_a_quantized_model_is_compared_with_itself_and_with_float(sound: model.Model, tmp_path: Path) -> None:
    path = tmp_path / "sound.onnx"
    model.save(sound, path)
    rows = {"data": ASSETS / "digits-eval.npz", "rows": 16}
    same = farrier.compare(path, path, **rows)
    assert (same.judged.drop, same.report["causes"], same.notes) == (0, [], ())
    assert all(layer["own_snr_db"] >= 150 for layer in same.report["layers"])
    assert "give the float model first" in farrier.compare(path, ASSETS / "digits.onnx", **rows).notes[0]


def test_optimize_says_where_it_loses_and_what_calibrated_it(tmp_path: Path) -> None:
    from farrier.optimization import Settings, TrialSettings
    from farrier_converters import npz
    from farrier_converters.measure import LatencySettings

    quick = LatencySettings(rounds=2, most_rounds=2, round_s=0.002)
    rows = npz.read(ASSETS / "digits-calib.npz")["image"]
    (tmp_path / "wrong.npz").write_bytes(npz.to_bytes({"image": rows * np.float32(255)}))
    (tmp_path / "int8.toml").write_text(
        'version = 1\n[[candidate]]\nname = "int8"\nprecision = "int8"\n'
        '[[candidate.pass]]\nname = "clean"\n[[candidate.pass]]\nname = "fuse"\n[[candidate.pass]]\nname = "int8"\n'
    )
    common = {
        "data": ASSETS / "digits-eval.npz",
        "recipe": tmp_path / "int8.toml",
        "settings": Settings(trial=TrialSettings(latency=quick, profile=quick)),
    }
    stages: list[str] = []
    wrong = farrier.optimize(
        ASSETS / "digits.onnx",
        calib=tmp_path / "wrong.npz",
        out=tmp_path / "wrong",
        max_drop=0.02,
        progress=lambda stage, share: stages.append(stage),
        **common,
    )
    (note,) = (note for note in wrong.warnings if "times as large as evaluation rows" in note)
    assert stages.index(f"note: {note}") < stages.index("building int8"), "said only after the work"
    right = farrier.optimize(
        ASSETS / "digits.onnx",
        calib=ASSETS / "digits-calib.npz",
        out=tmp_path / "right",
        max_drop=0.02,
        **common,
    )
    assert not any("calibration" in note for note in right.warnings)
    report = right.report["drop_report"]
    if right.delivered.name == "int8":  # else the original was as fast here, and nothing was lost
        assert report["candidate"] == "int8"
        assert {"snr_db", "layers", "causes"} <= set(report)
        assert "Where it loses" in (right.out / "report.html").read_text()
