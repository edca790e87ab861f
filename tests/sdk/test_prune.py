"""`farrier.prune` and its command: what a user asks for, gets and is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import farrier
from farrier.cli import main
from farrier.pruning import groups
from farrier.pruning.attempts import Attempts
from farrier.pruning.request import Goals, factor, place, share
from farrier_contracts.errors import BudgetError, InputError, UsageError
from farrier_converters.graph import run
from farrier_converters.model import Model, load, save
from farrier_converters.passes import Context
from farrier_converters.pruning.options import PruneOptions
from farrier_converters.pruning.procedure import totals
from farrier_converters.pruning.staircase import default
from tests.support import prunable

AFAR = "raspberry-pi-5"  # a target that this machine is not: its steps are known, and nothing is timed


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    save(prunable.residual(32), path)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    x = prunable.rows(200)
    scores = np.asarray(run.once(prunable.residual(32).proto, {"x": x})[0])
    np.savez(tmp_path / "rows.npz", x=x, labels=scores.argmax(axis=1))
    return tmp_path / "rows.npz"


def test_a_folder_holds_the_model_and_a_report(model: Path, tmp_path: Path) -> None:
    found = farrier.prune(model, out=tmp_path / "out", ratio="40%", target=AFAR)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "pruned.onnx",
        "report.html",
        "report.json",
    ]
    pruned = onnx.load(tmp_path / "out" / "pruned.onnx")
    onnx.checker.check_model(pruned, full_check=True)
    assert run.once(pruned, {"x": prunable.rows(2)})[0].shape == (2, prunable.CLASSES)
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert document == found.to_document()
    assert document["gain"]["multiply_adds"] >= 1 / 0.6 - 1e-9
    assert document["before"]["latency_ms"] is None  # the target is not here
    assert any("are not measured" in note and "--on USER@HOST" in note for note in document["notes"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") >= 2
    assert "http" not in page
    for group in document["groups"]:
        assert group["name"] in page or group["before"] == group["after"]


def test_a_file_holds_the_model_alone(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    farrier.prune(model, out=out, speedup="2x", target=AFAR)
    left, whole = (totals(load(path), default("", "fp32", "aarch64")).multiply_adds for path in (out, model))
    assert whole >= 2 * left
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "small.onnx"]


def test_here_the_model_is_timed_beside_the_dense_one(model: Path, tmp_path: Path) -> None:
    found = farrier.prune(model, out=tmp_path / "out", ratio=0.5, options=PruneOptions(any_width=True))
    assert found.before.latency_ms and found.after.latency_ms
    assert found.efficiency == pytest.approx(found.latency_gain / found.multiply_add_gain)  # type: ignore[operator]
    assert found.steps == "any width"


def test_rows_judge_and_training_helps(model: Path, rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs PyTorch")
    options: dict[str, Any] = {"ratio": 0.6, "target": AFAR, "data": rows}
    plain = farrier.prune(model, out=tmp_path / "plain", options=PruneOptions(rebuild=False), **options)
    tuned = farrier.prune(model, out=tmp_path / "tuned", train=rows, epochs=4, batch=32, **options)
    assert plain.before.metric == tuned.before.metric == 1.0  # its own answers are the labels
    assert plain.after.metric is not None and tuned.after.metric is not None
    assert plain.after.metric < tuned.after.metric
    assert tuned.importance == "fisher"
    assert len(tuned.history["losses"]) == 4
    assert "Loss" in (tmp_path / "tuned" / "report.html").read_text()


def test_rows_without_labels_teach_by_the_original_answers(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs PyTorch")
    np.savez(tmp_path / "unlabelled.npz", x=prunable.rows(200))
    options: dict[str, Any] = {
        "ratio": 0.6,
        "target": AFAR,
        "train": tmp_path / "unlabelled.npz",
        "batch": 32,
    }
    fresh = np.asarray(prunable.rows(64))
    wanted = np.asarray(run.once(prunable.residual(32).proto, {"x": fresh})[0])
    wrong = []
    for epochs in (0, 8):
        out = tmp_path / str(epochs)
        farrier.prune(model, out=out, epochs=epochs, options=PruneOptions(rebuild=False), **options)
        found = np.asarray(run.once(onnx.load(out / "pruned.onnx"), {"x": fresh})[0])
        wrong.append(float(np.square(found - wanted).mean()))
    assert wrong[1] < wrong[0]


def test_rounds_are_trained_between(model: Path, rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs PyTorch")
    said: list[str] = []
    found = farrier.prune(
        model,
        out=tmp_path / "out",
        ratio=0.5,
        target=AFAR,
        train=rows,
        epochs=2,
        batch=32,
        options=PruneOptions(rounds=2, importance="l2"),
        progress=lambda stage, _share: said.append(stage),
    )
    assert found.reached
    assert any("train" in stage or "epoch" in stage for stage in said)


def test_a_goal_out_of_reach_is_said_and_the_best_written(tmp_path: Path) -> None:
    save(prunable.residual(16, blocks=4), tmp_path / "net.onnx")
    with pytest.raises(BudgetError, match=r"would not make the model faster on this target.*the best is at"):
        farrier.prune(tmp_path / "net.onnx", out=tmp_path / "out", ratio="95%", target=AFAR)
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert document["reached"] is False
    assert document["blocks"]


def _clock(times: Callable[[int], float]) -> Callable[[Any], dict[str, float]]:
    """A clock of a target where time depends on the number of parameters as it is told."""

    def read(models: dict[str, Model]) -> dict[str, float]:
        sizes = {name: totals(m, default("", "fp32", "x86_64")).parameters for name, m in models.items()}
        return {name: times(size) for name, size in sizes.items()}

    return read


def test_what_is_slower_than_dense_is_not_delivered() -> None:
    source = prunable.residual(32)
    whole = totals(source, default("", "fp32", "x86_64")).parameters
    goals = Goals(ratio=0.5)
    slower = Attempts(source, goals, PruneOptions(), Context(), _clock(lambda n: 1.0 if n == whole else 2.0))
    found, times = slower.best()
    assert found.model is source and not found.reached
    assert times == {"dense": 1.0, "pruned": 1.0}
    assert found.note is not None and "faster than the dense one" in found.note


def test_what_is_slower_is_tried_again_with_more_channels() -> None:
    source = prunable.chain(96)
    whole = totals(source, default("", "fp32", "x86_64")).parameters
    goals = Goals(ratio=0.6)
    picky = Attempts(
        source,
        goals,
        PruneOptions(blocks=False),
        Context(),
        _clock(lambda n: 1.0 if n > 0.5 * whole else 3.0),
    )
    found, times = picky.best()
    assert times["pruned"] == 1.0
    assert any(change.after < change.before for change in found.changes)


def test_a_latency_is_one_by_the_clock() -> None:
    """The prediction is too hopeful: the clock says that the goal is missed, and more goes."""
    source = prunable.chain(96)
    whole = totals(source, default("", "fp32", "x86_64")).parameters
    clock = _clock(lambda n: 10 * (n / whole) ** 0.5)
    found, times = Attempts(source, Goals(max_latency_ms=6.0), PruneOptions(), Context(), clock).best()
    assert found.reached
    assert times["pruned"] <= 6.0 * 1.02
    first, _ = Attempts(source, Goals(latency=0.6), PruneOptions(), Context(), lambda _models: {}).best()
    assert first.after.parameters > found.after.parameters


def test_groups_are_listed_for_a_person(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a table that was measured on this machine has other steps
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["prune", str(model), "--show-groups"]) == 0
    told = capsys.readouterr().out
    for word in (
        "stem",
        "b0.conv1",
        "32",
        "16",
        "they are the model's output",
        "b1.relu2",
        "4 groups, 3 blocks",
    ):
        assert word in told
    assert main(["prune", str(model), "--show-groups", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = groups(model)
    assert document == found.to_document()
    stem = document["groups"][0]
    assert (stem["name"], stem["channels"], stem["next_width"]) == ("stem", 32, 16)
    assert stem["readers"] == ["b0.conv1", "b1.conv1", "b2.conv1", "scores"]


def test_the_command_says_what_it_did(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["prune", str(model), "--ratio", "40%", "-t", AFAR, "-o", out]) == 0
    told = capsys.readouterr().out
    for word in ("multiply-adds", "parameters", "bytes", "channels", "fewer multiply-adds", out):
        assert word in told
    assert main(["prune", str(model), "--ratio", "40%", "-t", AFAR, "-o", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reached"] is True


def test_zeros_are_the_sparsity_passs(model: Path, tmp_path: Path) -> None:
    found = farrier.prune(model, out=tmp_path / "out", sparsity="80%", target=AFAR)
    assert found.after.zeros == pytest.approx(0.8, abs=0.01)
    assert found.multiply_add_gain == 1.0
    assert found.delivered == "pruned"


BAD = [
    ([], "say where the results go"),
    (["-o", "out"], "say how much is to go"),
    (
        ["--ratio", "50%", "--speedup", "2x", "-o", "out"],
        "pruning has one goal; --ratio and --speedup are given",
    ),
    (["--ratio", "half", "-o", "out"], "--ratio is a share like 50% or 0.5"),
    (["--ratio", "100%", "-o", "out", "-t", AFAR], "a share of the multiply-adds below 1 can go"),
    (["--speedup", "fast", "-o", "out"], "like 2x"),
    (["--max-latency", "soon", "-o", "out"], "a latency is written like 8ms"),
    (["--ratio", "50%", "-o", "no/such/out"], "does not exist; make it first"),
    (["--ratio", "50%", "-o", "out", "-t", "toaster"], "toaster"),
    (["--ratio", "50%", "-o", "out", "--engine", "steam"], "has no engine 'steam'"),
    (["--ratio", "50%", "-o", "out", "-t", AFAR, "--importance", "best"], "unknown importance 'best'"),
    (["--ratio", "50%", "-o", "out", "-t", AFAR, "--importance", "energy"], "give calibration data"),
    (["--ratio", "50%", "-o", "out", "-t", AFAR, "--exclude", "x*"], "no layer of net is called 'x*'"),
    (["--ratio", "50%", "-o", "out", "-t", AFAR, "--train", "none.npz"], "none.npz"),
    (["--ratio", "50%", "-o", "out", "-t", AFAR, "--iterative", "0"], "between 1 and 1000 rounds"),
    (["--ratio", "99.9%", "-o", "out", "-t", AFAR, "--any-width"], "that have to stay; at most"),
    (["--sparsity", "120%", "-o", "out", "-t", AFAR], "--sparsity is a share"),
    (["--sparsity", "90%", "--pattern", "2:4", "-o", "out", "-t", AFAR], "2:4"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD)
def test_bad_input_is_one_sentence(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prune", str(model), *arguments]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("farrier: ")
    assert sentence in told
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]  # nothing half-written


def test_a_model_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(InputError):
        farrier.prune(tmp_path / "m.onnx", out=tmp_path / "out", ratio=0.5, target=AFAR)


def test_without_torch_models_are_pruned_and_groups_shown(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", x=prunable.rows(32))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from farrier.cli import main\n"
        f"assert main(['prune', {str(model)!r}, '--show-groups']) == 0\n"
        f"sys.exit(main(['prune', {str(model)!r}, '--ratio', '40%', '--calib', {str(tmp_path / 'calib.npz')!r}, "
        f"'-t', {AFAR!r}, '-o', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "pruned.onnx").is_file()


def test_the_example_needs_no_torch(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", x=prunable.rows(32))
    script = Path(__file__).resolve().parents[2] / "examples" / "prune_onnx.py"
    out = tmp_path / "small.onnx"
    done = subprocess.run(
        [sys.executable, script, model, out, "--rows", tmp_path / "calib.npz"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "importance: energy; PyTorch loaded: False" in done.stdout
    assert load(out).proto.ByteSize() < load(model).proto.ByteSize()


def test_shares_and_factors_are_read() -> None:
    assert share("50%", what="x") == share(0.5, what="x") == share("0.5", what="x") == 0.5
    assert factor("2x") == factor(2) == factor("2.0") == 2.0
    assert share(None, what="x") is None and factor(None) is None
    with pytest.raises(UsageError):
        share("150%", what="x")
    with pytest.raises(UsageError):
        factor("0.5x")
    assert place(AFAR, None, "int8").here is False
    with pytest.raises(UsageError, match="unknown precision"):
        place("host", None, "int3")
