"""`farrier optimize`, end to end on real networks, and everything that can be wrong with what it is given."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import farrier
from farrier import cli
from farrier.optimization import Settings, TrialSettings
from farrier_contracts import bundle, targets
from farrier_contracts.errors import BudgetError, InputError, UsageError
from farrier_converters import passes
from farrier_converters.measure import Child, LatencySettings, faithful
from farrier_converters.search import LATENCY_TOLERANCE

QUICK = Settings(
    trial=TrialSettings(
        latency=LatencySettings(rounds=3, most_rounds=3, round_s=0.005),
        profile=LatencySettings(rounds=2, most_rounds=2, round_s=0.002),
    )
)
FILES = {
    "model.farrier",
    "model.onnx",
    "original.onnx",
    "report.html",
    "report.json",
    "recipe.toml",
    "recipe.lock",
}
SIDE, CLASSES = 12, 4


def faithful_here(target: str) -> bool:
    return faithful(targets.get(target).toolchains[0], "int8", targets.host())


def conv_net(*, batch="n", op="Relu") -> onnx.ModelProto:
    """A small convolutional classifier with random weights."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((16, 3, 3, 3)) / 5,
        "w2": rng.standard_normal((32, 16, 3, 3)) / 12,
        "w3": rng.standard_normal((CLASSES, 32)) / 5,
        "b3": rng.standard_normal(CLASSES) / 5,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node(op, ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "conv_net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a model and data labelled by the model itself, so that its own accuracy is 1."""
    folder = tmp_path_factory.mktemp("made")
    onnx.save(conv_net(), folder / "net.onnx")
    images = np.random.default_rng(1).standard_normal((300, 3, SIDE, SIDE)).astype(np.float32)
    with Child(folder / "net.onnx", "onnxruntime") as child:
        labels = child.run({"x": images})["y"].argmax(axis=1)
    np.savez(folder / "data.npz", x=images, labels=labels)
    return folder


@pytest.fixture(scope="module")
def result(made):
    return farrier.optimize(
        made / "net.onnx", data=made / "data.npz", max_drop="5%", out=made / "out", settings=QUICK
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def report_of(folder: Path):
    return json.loads((folder / "report.json").read_text())


def test_everything_that_is_promised_is_written(result, made):
    assert {path.name for path in result.out.iterdir()} == FILES
    assert not [path for path in made.iterdir() if path.name.startswith(".")]
    report = report_of(result.out)
    for which in ("baseline", "delivered"):
        entry = report[which]
        assert (result.out / entry["artifact"]).stat().st_size == entry["bytes"]
        assert entry["metric"]["name"] == "accuracy"
        assert entry["latency_ms"]["p50"] > 0
        assert entry["latency_ms"]["p99"] >= entry["latency_ms"]["p50"]
        assert (entry["latency_ms"]["batch"], entry["latency_ms"]["threads"]) == (1, 1)
        assert entry["peak_memory_bytes"] > 0
    assert report["baseline"]["metric"]["value"] == 1.0
    names = {c["name"] for c in report["candidates"]}
    safe = {p["candidate"] + "-7bit" for p in report["predictions"] if p["spread"] > 0.002}
    tried = {"original", "fp32", "fp16", "int8", "int8-fitted", "litert-fp32", "litert-int8"}
    assert names - {"mixed"} - safe == tried
    assert [c["name"] for c in report["candidates"] if c["kept"]] == [report["delivered"]["name"]]
    assert all(c["reason"] for c in report["candidates"])
    assert report["drop"] <= 0.05
    assert report["shrink"] >= 1
    assert report["ledger"]


def test_the_figures_are_those_of_the_files(result, made):
    """Each delivered file, run again on the rows that were evaluated, has the metric that is reported."""
    arrays = np.load(made / "data.npz")
    calibration = np.random.default_rng(0).permutation(300)[: round(300 * 0.2)]
    rows = np.setdiff1d(np.arange(300), calibration)
    for entry in (result.baseline, result.delivered):
        with Child(result.out / entry.artifact, "onnxruntime") as child:
            scores = child.run({"x": arrays["x"][rows]})["y"]
        assert (scores.argmax(axis=1) == arrays["labels"][rows]).mean() == pytest.approx(
            entry.metric, abs=0.005
        )


def test_the_bundle_holds_the_artifact_and_its_golden_vectors(result, tmp_path):
    manifest = bundle.verify(result.bundle)
    stored = bundle.unpack(result.bundle, tmp_path)
    assert manifest.name == "net"
    assert sha256(stored.part("model.onnx")) == sha256(result.artifact)
    assert stored.part("recipe.lock").read_bytes() == (result.out / "recipe.lock").read_bytes()
    assert [point.batch for point in manifest.batching.profile] == [1, 2, 4, 8, 16]
    assert manifest.compatibility.memory_bytes == result.delivered.peak_memory_bytes
    golden = np.load(stored.part(manifest.golden.part))
    with Child(result.artifact, "onnxruntime") as child:
        got = child.run({"x": golden["in.x"]})["y"]
    assert got.shape == (8, CLASSES)
    atol = manifest.golden.atol["y"]
    assert np.abs(got - golden["out.y"]).max() <= atol
    assert atol < np.abs(golden["out.y"]).max() / 10


def test_locked_gives_the_same_bytes_without_measuring(result, made):
    again = farrier.optimize(
        made / "net.onnx",
        data=made / "data.npz",
        locked=result.out / "recipe.lock",
        out=made / "again",
    )
    for name in FILES - {"report.html"}:  # the page also draws every single latency of the search
        assert sha256(again.out / name) == sha256(result.out / name), name


def test_a_lock_refuses_another_input(result, made, tmp_path):
    arrays = dict(np.load(made / "data.npz"))
    arrays["x"][0] += 1
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(InputError, match="the data differs from the lock"):
        farrier.optimize(
            made / "net.onnx",
            data=tmp_path / "other.npz",
            locked=result.out / "recipe.lock",
            out=tmp_path / "o",
        )
    other = conv_net()
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((16, 3, 3, 3), np.float32), "w1"))
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match="the model differs from the lock"):
        farrier.optimize(
            tmp_path / "other.onnx",
            data=made / "data.npz",
            locked=result.out / "recipe.lock",
            out=tmp_path / "o",
        )
    assert not (tmp_path / "o").exists()


def test_a_recipe_is_all_that_is_tried(result, made, tmp_path):
    again = farrier.optimize(
        made / "net.onnx",
        data=made / "data.npz",
        max_drop=0.05,
        recipe=result.out / "recipe.toml",
        out=tmp_path / "o",
        settings=QUICK,
    )
    assert {e.name for e in again.candidates} == {"original", result.delivered.name}


def broken_pass(monkeypatch, run):
    """Put a pass of our own into the table, as a plug-in would."""
    module = types.ModuleType("broken_pass")
    module.BROKEN = passes.Pass("broken", passes.get("null").options, run)
    monkeypatch.setitem(sys.modules, "broken_pass", module)
    monkeypatch.setitem(passes.PASSES, "broken", "broken_pass:BROKEN")


def recipe_with(tmp_path, name):
    path = tmp_path / "r.toml"
    path.write_text(
        f'version = 1\n[[candidate]]\nname = "it"\nprecision = "fp32"\n[[candidate.pass]]\nname = "{name}"\n'
    )
    return path


def explode(model, options, context):
    raise ZeroDivisionError("inside the pass")


def ruin(model, options, context):
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name == "w3":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((CLASSES, 32), np.float32), "w3"))
    return type(model)(proto, model.name, model.inputs, model.outputs)


def break_at_run_time(model, options, context):
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.node[-1].output[0] = "logits"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([7, -1]), "seven"))
    proto.graph.node.append(helper.make_node("Reshape", ["logits", "seven"], ["y"]))
    return type(model)(proto, model.name, model.inputs, model.outputs)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (explode, "ZeroDivisionError"),
        (ruin, "more than the 1.00% allowed"),
        (break_at_run_time, "onnxruntime refused it"),
    ],
)
def test_a_candidate_that_fails_is_an_entry_with_its_reason(made, tmp_path, monkeypatch, run, words):
    broken_pass(monkeypatch, run)
    outcome = farrier.optimize(
        made / "net.onnx",
        data=made / "data.npz",
        recipe=recipe_with(tmp_path, "broken"),
        out=tmp_path / "o",
        settings=QUICK,
    )
    assert outcome.delivered.name == "original"
    assert words in next(e.reason for e in outcome.candidates if e.name == "it")
    assert "original" in outcome.verdict


def test_a_former_result_is_replaced_and_anything_else_is_not(result, made, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UsageError, match="not empty"):
        farrier.optimize(made / "net.onnx", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    out = tmp_path / "result"
    for seed in ("a", "b"):
        farrier.optimize(made / "net.onnx", data=made / "data.npz", out=out, version=seed, settings=QUICK)
    assert bundle.read_manifest(out / "model.farrier").version == "b"
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "result"}


def test_fixed_batch_and_no_labels(tmp_path):
    onnx.save(conv_net(batch=1), tmp_path / "net.onnx")
    outcome = farrier.optimize(tmp_path / "net.onnx", out=tmp_path / "o", settings=QUICK)
    assert outcome.baseline.metric_name == "likeness"
    assert outcome.baseline.metric == 1.0
    assert any("made-up inputs" in warning for warning in outcome.warnings)
    assert [p.batch for p in bundle.read_manifest(outcome.bundle).batching.profile] == [1]


def test_ultraface(shared_data, tmp_path):
    model = shared_data / "ultraface/models/onnx/version-RFB-320.onnx"
    outcome = farrier.optimize(model, out=tmp_path / "o", settings=QUICK)
    built = {e.name: e for e in outcome.candidates}
    assert all(e.latency is not None for e in built.values()), {n: e.reason for n, e in built.items()}
    assert built["fp16"].size_bytes < 0.6 * built["original"].size_bytes
    assert built["int8"].size_bytes < 0.5 * built["original"].size_bytes
    assert outcome.delivered.size_bytes <= built["original"].size_bytes
    assert built["fp32"].metric == pytest.approx(1.0, abs=1e-3)


@pytest.fixture(scope="module")
def pictures(resnet20_proto, cifar10, tmp_path_factory) -> Path:
    """A folder with the ResNet20, pictures to calibrate on, and others with labels."""
    folder = tmp_path_factory.mktemp("resnet20")
    onnx.save(resnet20_proto, folder / "resnet20.onnx")
    np.savez(folder / "calib.npz", images=cifar10[0][:512])
    np.savez(folder / "data.npz", images=cifar10[0][512:], labels=cifar10[1][512:])
    return folder


def optimize_resnet20(pictures: Path, target: str, out: Path, **more) -> farrier.Result:
    return farrier.optimize(
        pictures / "resnet20.onnx",
        target=target,
        data=pictures / "data.npz",
        calib=pictures / "calib.npz",
        out=out,
        settings=QUICK,
        **more,
    )


def test_resnet20(pictures, tmp_path):
    outcome = optimize_resnet20(pictures, "host", tmp_path / "o")
    built = {e.name: e for e in outcome.candidates}
    assert built["original"].metric > 0.83
    assert outcome.drop <= 0.01
    assert outcome.delivered.latency.p50_ms <= built["original"].latency.p50_ms * (1 + LATENCY_TOLERANCE)
    assert outcome.delivered.size_bytes < built["original"].size_bytes
    assert built["int8"].size_bytes < built["original"].size_bytes / 3
    assert {e.arithmetic for e in built.values()} == {"kernels"}
    assert {op["precision"] for op in outcome.report["ledger"]} >= {outcome.delivered.precision}


INT8_ALONE = """
version = 1
[[candidate]]
name = "int8"
precision = "int8"
pass = [{ name = "clean" }, { name = "fuse" }, { name = "int8" }]
"""
FOREIGN = [t for t in ("raspberry-pi-4", "x86-vnni", "x86-avx2") if not faithful_here(t)]


@pytest.mark.parametrize("target", FOREIGN)
def test_another_processor_is_judged_by_its_own_arithmetic(pictures, tmp_path, target):
    """On this machine's kernels its integers would saturate, and cost accuracy that they do not cost there."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(INT8_ALONE)
    outcome = optimize_resnet20(pictures, target, tmp_path / "o", recipe=recipe)
    built = {e.name: e for e in outcome.candidates}
    assert built["int8"].drop <= 0.01
    assert {e.name for e in built.values() if e.arithmetic == "reference"} == {"int8"}
    assert any("int8: judged in reference arithmetic" in w for w in outcome.warnings)
    stored = bundle.unpack(outcome.bundle, tmp_path / "parts")
    manifest = bundle.read_manifest(outcome.bundle)
    golden = np.load(stored.part(manifest.golden.part))
    with Child(outcome.artifact, "onnxruntime", reference=True) as child:
        assert np.array_equal(
            child.run({"images": golden["in.images"][:1]})["logits"], golden["out.logits"][:1]
        )


def test_an_impossible_budget_names_the_best_and_writes_nothing(made, tmp_path):
    with pytest.raises(BudgetError) as caught:
        farrier.optimize(
            made / "net.onnx", data=made / "data.npz", max_size=10, out=tmp_path / "o", settings=QUICK
        )
    assert "more than the 10 allowed" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def bad_inputs(folder: Path, made: Path) -> dict[str, list[str]]:
    net, rows = str(made / "net.onnx"), str(made / "data.npz")
    (folder / "cut.onnx").write_bytes((made / "net.onnx").read_bytes()[:4000])
    onnx.save(conv_net(op="Frobnicate"), folder / "unknown.onnx")
    (folder / "text.npz").write_text("hello")
    x = np.zeros((30, 3, SIDE, SIDE), np.float32)
    np.savez(folder / "names.npz", image=x)
    np.savez(folder / "shapes.npz", x=x[:, :1])
    np.savez(folder / "labels.npz", x=x, labels=np.full(30, 9))
    (folder / "bad.toml").write_text(
        "version = 1\n[[candidate]]\nname='a'\nprecision='fp32'\npass=[{name='nope'}]"
    )
    return {
        "missing model": [str(folder / "absent.onnx")],
        "truncated model": [str(folder / "cut.onnx")],
        "unknown op": [str(folder / "unknown.onnx")],
        "missing data": [net, "--data", str(folder / "absent.npz")],
        "no npz": [net, "--data", str(folder / "text.npz")],
        "names": [net, "--data", str(folder / "names.npz")],
        "shapes": [net, "--data", str(folder / "shapes.npz")],
        "labels": [net, "--data", str(folder / "labels.npz")],
        "metric": [net, "--data", rows, "--metric", "beauty"],
        "metric without labels": [net, "--metric", "accuracy"],
        "target": [net, "--target", "toaster"],
        "drop": [net, "--max-drop", "much"],
        "recipe": [net, "--recipe", str(folder / "bad.toml")],
        "lock": [net, "--locked", str(folder / "bad.toml")],
        "name": [net, "--name", "Not A Name"],
        "null target": [net, "--target", "null"],
    }


def sentences(err: str) -> list[str]:
    """Return what was said besides progress and notes."""
    return [line for line in err.splitlines() if not line.endswith(" ...") and not line.startswith("note: ")]


def test_bad_input_is_one_sentence_exit_two_and_no_file(made, tmp_path, capsys, monkeypatch):
    inputs, place = tmp_path / "inputs", tmp_path / "place"
    inputs.mkdir()
    place.mkdir()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    for what, arguments in bad_inputs(inputs, made).items():
        code = cli.main(["optimize", *arguments, "-o", str(place / "o")])
        captured = capsys.readouterr()
        said = sentences(captured.err)
        assert code == 2, (what, captured.err)
        assert len(said) == 1, (what, captured.err)
        assert said[0].startswith("farrier: "), what
        assert captured.out == "", what
        assert list(place.iterdir()) == [], what


def test_the_command_prints_what_the_function_returns(result, made, tmp_path, capsys):
    arguments = [str(made / "net.onnx"), "--data", str(made / "data.npz"), "--max-drop", "5%"]
    lock = ["--locked", str(result.out / "recipe.lock")]
    assert cli.main(["optimize", *arguments, *lock, "--json", "-o", str(tmp_path / "j")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == report_of(tmp_path / "j")
    assert cli.main(["optimize", *arguments, *lock, "-o", str(tmp_path / "t")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert printed["delivered"]["name"] in text
    assert "is delivered" in text
    assert cli.main(["optimize", *arguments, "--max-latency", "0.1us", "-o", str(tmp_path / "b")]) == 3
    assert "the budget cannot be met" in capsys.readouterr().err


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(made, tiny_disk, capsys):
    code = cli.main(
        ["optimize", str(made / "net.onnx"), "--data", str(made / "data.npz"), "-o", str(tiny_disk / "o")]
    )
    said = sentences(capsys.readouterr().err)
    assert code in (1, 2)
    assert len(said) == 1
    assert "disk is full" in said[0] or "No space left" in said[0]
    assert list(tiny_disk.iterdir()) == []
