"""Corruptions of real calibration rows are found and clean rows pass, on networks with batch norms and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from farrier_converters import data, npz
from farrier_converters import model as models
from farrier_converters.calibration_check import check

ASSETS = Path(__file__).resolve().parents[2] / "sdk" / "farrier" / "showcase" / "assets"
DIGITS = models.load(ASSETS / "digits.onnx")


def corrupted(rows: np.ndarray, how: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if how == "mean":
        return rows + 2 * rows.std()
    if how == "scale up":
        return rows * 255
    if how == "scale down":
        return rows / 255
    if how == "noise":
        return rng.normal(rows.mean(), rows.std(), rows.shape)
    if how == "layout":
        return np.ascontiguousarray(rows.transpose(0, 2, 3, 1)).reshape(rows.shape)
    if how == "channels":
        return np.ascontiguousarray(rows[:, ::-1])
    if how == "few":
        return np.repeat(rows[:4], 8, axis=0)
    return rows


def kinds(model: models.Model, rows: np.ndarray, evaluation: data.Dataset | None = None) -> list[str]:
    name = model.inputs[0].name
    found = check(
        model,
        data.from_arrays({name: rows.astype(np.float32)}, model.inputs, source=Path("rows")),
        evaluation,
    )
    assert all(len(fault.sentence) > 20 for fault in found)
    return [fault.kind for fault in found]


CASES = [
    ("clean", []),
    ("mean", ["mean"]),
    ("scale up", ["scale"]),
    ("scale down", ["scale"]),
    ("noise", ["noise"]),
    ("few", ["too few samples"]),
]


@pytest.mark.parametrize(("how", "wanted"), CASES)
def test_digits(how: str, wanted: list[str]) -> None:
    rows = npz.read(ASSETS / "digits-calib.npz")["image"]
    assert kinds(DIGITS, corrupted(rows, how)) == wanted


def test_one_class_of_digits() -> None:
    rows = npz.read(ASSETS / "digits-eval.npz")
    assert kinds(DIGITS, rows["image"][rows["labels"] == 3]) == ["one class only"]


@pytest.mark.parametrize(("how", "wanted"), [*CASES, ("layout", ["layout"]), ("channels", ["channel order"])])
def test_pictures(how: str, wanted: list[str], resnet20: models.Model, cifar10) -> None:
    assert kinds(resnet20, corrupted(cifar10[0][:128], how)) == wanted


def test_one_class_of_pictures(resnet20: models.Model, cifar10) -> None:
    rows, labels = cifar10
    assert kinds(resnet20, rows[labels == 1][:96]) == ["one class only"]


def test_evaluation_rows_are_evidence(resnet20: models.Model, cifar10) -> None:
    rows = cifar10[0][:192]
    evaluation = data.from_arrays({"images": rows[96:]}, resnet20.inputs, source=Path("rows"))
    assert kinds(resnet20, rows[:96], evaluation) == []
    assert kinds(resnet20, rows[:96] * 2, evaluation) == ["scale"]
    assert kinds(resnet20, rows[:96] + 1, evaluation) == ["mean"]


def test_made_up_rows_are_not_questioned() -> None:
    assert check(DIGITS, data.random(DIGITS.inputs)) == []
