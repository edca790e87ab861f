"""`farrier distill`: a student, its report, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from layered import dense, residual

import farrier
from farrier.cli import main
from farrier_contracts.errors import InputError, UsageError
from farrier_converters import model as models
from farrier_converters.graph import run
from farrier_converters.passes.distill import DistillOptions

pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

FAST = DistillOptions(fit={"epochs": 12, "learning_rate": 1e-2}, adapt=6)


def pictures(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Return noisy copies of three pictures [rows, 3, 8, 8], and which of them they are."""
    drawn = np.random.default_rng(7).standard_normal((3, 3, 8, 8))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    x = drawn[labels] + rng.standard_normal((rows, 3, 8, 8))
    return {"x": x.astype(np.float32), "labels": labels}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    models.save(residual((8, 8, 8, 8), classes=3, seed=1), folder / "teacher.onnx")
    models.save(residual((4, 8), classes=3, seed=2), folder / "small.onnx")
    models.save(dense((5, 8, 3)), folder / "vectors.onnx")
    np.savez(folder / "train.npz", **pictures(256, 0))  # type: ignore[arg-type]
    np.savez(folder / "eval.npz", **pictures(128, 1))  # type: ignore[arg-type]
    return folder


def test_a_student_of_half_the_layers_with_all_that_was_compared(files, tmp_path, capsys):
    arguments = ["--train", files / "train.npz", "--data", files / "eval.npz", "--layers", "half", "--alone"]
    settings = [
        "--epochs",
        8,
        "--learning-rate",
        1e-2,
        "--adapt",
        8,
        "--batch",
        16,
        "--features",
        0.5,
        "--json",
    ]
    code = main(
        [str(a) for a in ("distill", files / "teacher.onnx", *arguments, *settings, "-o", tmp_path / "out")]
    )
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document == json.loads((tmp_path / "out" / "report.json").read_text())
    found = document["models"]
    assert list(found) == ["teacher", "adapted teacher", "student before", "student alone", "distilled"]
    assert found["adapted teacher"]["metric"] > found["teacher"]["metric"]
    assert found["distilled"]["bytes"] < found["teacher"]["bytes"]
    assert document["layers"]["kept"] == ["b0.r1", "b2.r1"]
    assert document["delivered"] in ("distilled", "student alone")
    assert document["rows"] == {"training": 230, "validation": 26, "evaluation": 128}
    student = models.load(tmp_path / "out" / "student.onnx")
    rows = pictures(128, 1)
    right = (run.once(student.proto, {"x": rows["x"]})[0].argmax(1) == rows["labels"]).mean()
    assert right == pytest.approx(found[document["delivered"]]["metric"])
    assert right > 0.8
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") >= 4
    assert "http" not in page.replace("http-equiv", "")


def test_a_student_of_its_own_and_a_split_of_the_rows(files, tmp_path):
    result = farrier.distill(
        files / "teacher.onnx",
        student=files / "small.onnx",
        train=files / "train.npz",
        out=tmp_path / "out",
        options=FAST,
    )
    assert result.rows == {"training": 179, "validation": 26, "evaluation": 51}
    assert any("51 of the training rows judge" in note for note in result.notes)
    assert result.models["distilled"].parameters == result.models["student before"].parameters
    assert result.models[result.delivered].value > result.models["student before"].value
    assert result.verdict.startswith("The student reaches accuracy")
    again = farrier.distill(  # a former result is replaced
        files / "teacher.onnx",
        width="50%",
        train=files / "train.npz",
        unlabelled=True,
        out=tmp_path / "out",
        options=FAST,
    )
    assert again.models["distilled"].parameters < result.models["teacher"].parameters / 2
    assert any("not adapted" in note for note in again.notes)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "report.html",
        "report.json",
        "student.onnx",
    ]


def test_rows_without_labels_are_judged_by_agreement(files, tmp_path):
    np.savez(tmp_path / "plain.npz", x=pictures(64, 3)["x"])
    result = farrier.distill(
        files / "teacher.onnx",
        layers=2,
        train=tmp_path / "plain.npz",
        out=tmp_path / "out",
        options=FAST,
    )
    assert result.metric.name == "agreement"
    assert result.models["teacher"].value == 1.0
    assert result.models[result.delivered].value >= result.models["student before"].value


def test_the_rows_that_judge_do_not_choose_what_is_delivered(files, tmp_path):
    """Whatever labels the judging rows have, the same student is delivered: only its score changes."""
    rows = pictures(128, 1)
    np.savez(tmp_path / "shuffled.npz", x=rows["x"], labels=np.roll(rows["labels"], 1))
    found = [
        farrier.distill(
            files / "teacher.onnx",
            layers="half",
            train=files / "train.npz",
            data=data,
            alone=True,
            batch=16,
            out=tmp_path / f"out{number}",
            options=FAST,
        )
        for number, data in enumerate((files / "eval.npz", tmp_path / "shuffled.npz"))
    ]
    assert found[0].delivered == found[1].delivered
    assert found[0].student.read_bytes() == found[1].student.read_bytes()
    assert found[0].models[found[0].delivered].value > found[1].models[found[1].delivered].value + 0.2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "give a student"),
        ({"layers": "half", "student": "small.onnx"}, "give a student"),
        ({"layers": "most"}, "layers 'most' is no share"),
        ({"layers": 9}, "4 layers that may go; ask for 1 to 3"),
        ({"width": "0%"}, "width '0%' is no share"),
        ({"layers": "half", "way": "best"}, "unknown way to choose layers"),
        ({"layers": "half", "metric": "beauty"}, "unknown metric 'beauty'"),
        ({"layers": "half", "batch": 0}, "a batch has at least one row"),
        ({"layers": "half", "alone": True, "unlabelled": True}, "needs labels"),
        ({"layers": "half", "options": DistillOptions(temperature=-1)}, "temperature must be above zero"),
        ({"layers": "half", "options": DistillOptions(losses={"boxes": "l1"})}, "no output 'boxes'"),
        ({"layers": "half", "options": DistillOptions(fit={"epochs": 0})}, "at least one epoch"),
        ({"layers": "half", "train": "nothing.npz"}, "nothing.npz"),
        ({"student": "vectors.onnx"}, "wants arrays|has shape|the model wants"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(files, tmp_path, given, sentence):
    given = {"train": "train.npz", **given}
    for name in ("train", "student"):
        if name in given:
            given[name] = files / given[name]
    with pytest.raises((UsageError, InputError), match=sentence):
        farrier.distill(files / "teacher.onnx", out=tmp_path / "out", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_label_out_of_range_is_named(files, tmp_path):
    rows = pictures(64, 0)
    np.savez(tmp_path / "wrong.npz", x=rows["x"], labels=rows["labels"] + 1)
    with pytest.raises(InputError, match="label 3 is out of range: the model has classes 0 to 2"):
        farrier.distill(
            files / "teacher.onnx", layers="half", train=tmp_path / "wrong.npz", out=tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_left_alone(files, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    arguments = [files / "teacher.onnx", "--train", files / "train.npz", "--layers", "half", "-o", tmp_path]
    code = main(["distill", *map(str, arguments)])
    assert code == 2
    assert "is not empty and holds no former result" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_pair_without_an_equals_sign_is_wrong_usage(files, tmp_path, capsys):
    arguments = ["--train", "t.npz", "--layers", "half", "--pair", "a", "-o", tmp_path / "out"]
    code = main(["distill", str(files / "teacher.onnx"), *map(str, arguments)])
    assert code == 2
    assert "--pair takes two names with = between them" in capsys.readouterr().err
