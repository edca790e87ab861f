"""Corruptions of real calibration rows are found and clean rows pass, on networks with batch norms and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from farrier_converters import data, npz
from farrier_converters import model as models
from farrier_converters.calibration_check import check
from farrier_converters.calibration_check.answers import swapped
from farrier_converters.calibration_check.faults import CheckSettings
from farrier_converters.calibration_check.network import Reaction

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


TIME = np.linspace(0, 1, 40)
TEMPLATES = np.stack([np.sin(2 * np.pi * (0.5 + k / 4) * TIME + k) for k in range(10)]).astype(np.float32)


def signals(classes: np.ndarray, noise: float) -> np.ndarray:
    rng = np.random.default_rng(int(classes[0]))
    return TEMPLATES[classes] + rng.normal(0, noise, (len(classes), len(TIME))).astype(np.float32)


def matched() -> models.Model:
    """A perceptron without hidden layers that knows its ten signals: no pictures, no batch norms."""
    weights, value = numpy_helper.from_array(TEMPLATES.T.copy(), "w"), helper.make_tensor_value_info
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["N", 40])], [value("y", 1, ["N", 10])], [weights])
    return models.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "signals")


def test_noise_in_the_place_of_signals_leaves_a_network_as_it_is_when_shuffled() -> None:
    rows = signals(np.arange(128) % 10, 0.3)
    assert kinds(matched(), rows) == []
    noise = np.random.default_rng(0).normal(rows.mean(), rows.std(), rows.shape)
    assert kinds(matched(), noise) == ["noise"]


def test_rows_without_order_are_no_noise_where_the_network_tells_them_apart() -> None:
    """Features of a table have no neighbours: what tells them from noise is that their places matter."""
    order = np.random.default_rng(1).permutation(40)
    source = matched()
    proto = source.proto.__class__()
    proto.CopyFrom(source.proto)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(TEMPLATES.T[order].copy(), "w"))
    assert kinds(models.from_proto(proto, "table"), signals(np.arange(128) % 10, 0.3)[:, order]) == []


@pytest.mark.parametrize("kind", [1, 4, 9])
def test_one_class_is_seen_through_the_errors_of_a_network(kind: int) -> None:
    rows = signals(np.full(96, kind), 2.0)
    assert kinds(matched(), rows) == ["one class only"]


@pytest.mark.parametrize(
    ("misfit", "surer", "wrong"),
    [(0.97, 0.25, True), (0.85, 0.02, True), (0.98, 0.05, False), (1.05, 0.25, False), (0.9, -0.1, False)],
)
def test_swapped_channels_are_found_by_statistics_and_answers_together(
    misfit: float, surer: float, wrong: bool
) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.normal(-0.5, 0.2, 100)
    change = rng.normal(0, 1.0, 100)
    change += surer - change.mean()
    now = Reaction(0.04, None, None, confidence)
    then = Reaction(0.04 * misfit, None, None, confidence + change)
    assert (swapped(now, then, CheckSettings()) > 0) == wrong
