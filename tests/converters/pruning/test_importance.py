"""How much units matter: what each criterion must find in networks where it is known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from onnx import numpy_helper

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.graph import run
from farrier_converters.graph.edit import Graph
from farrier_converters.model import Model
from farrier_converters.pruning.cut import cut
from farrier_converters.pruning.group import Groups, groups_of
from farrier_converters.pruning.importance import CRITERIA, GRADIENTS, importance
from farrier_converters.pruning.importance.evidence import Evidence, Reading
from tests.support import prunable as networks

torch = pytest.importorskip("torch", reason="gradients need PyTorch")


def _edited(model: Model, **changes: np.ndarray) -> Model:
    graph = Graph(model)
    for name, value in changes.items():
        graph.initializers[name] = numpy_helper.from_array(value.astype(np.float32), name)
    return graph.build()


def _evidence(groups: Groups, name: str, x: np.ndarray, labels: np.ndarray | None = None) -> Evidence:
    def batches() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(x), 16):
            yield {"x": x[start : start + 16]}

    if CRITERIA[name].needs != GRADIENTS:
        return Evidence(batches)
    from farrier_converters.training.importance import gradients

    given = [
        (feeds, None if labels is None else labels[16 * n : 16 * n + 16]) for n, feeds in enumerate(batches())
    ]
    return Evidence(batches, {name: gradients(groups, name, given)})


def _silenced(width: int = 16) -> tuple[Model, list[int]]:
    """A chain in which some channels of conv1 do nothing at all."""
    model = networks.chain(width, norms=False)
    graph = Graph(model)
    dead = [2, 5, 11]
    changes = {name: np.array(graph.constant(name)) for name in ("conv1.w", "conv1.b", "conv2.w")}
    changes["conv1.w"][dead] = 0
    changes["conv1.b"][dead] = 0
    changes["conv2.w"][:, dead] = 0
    return _edited(model, **changes), dead


@pytest.mark.parametrize("name", [n for n in CRITERIA if n not in ("random", "scale", "median")])
def test_what_does_nothing_matters_least(name: str) -> None:
    model, dead = _silenced()
    groups = groups_of(model)
    found = importance(groups, name, _evidence(groups, name, networks.rows()))["conv1"]
    order = np.argsort(found, kind="stable")
    assert sorted(order[:3].tolist()) == dead
    np.testing.assert_allclose(found[dead], 0, atol=1e-9)
    assert (np.delete(found, dead) > 0).all()


def test_a_norms_scale_is_its_units_importance() -> None:
    groups = groups_of(networks.chain(16, norms=True))
    found = importance(groups, "scale", reading=Reading(normalize="none"))["conv1"]
    scale = Graph(groups.model).constant("norm1.scale")
    np.testing.assert_allclose(found, np.abs(np.asarray(scale)), rtol=1e-6)


def test_scales_need_norms() -> None:
    with pytest.raises(InputError, match="no channel that can go has a norm"):
        importance(groups_of(networks.chain(16)), "scale")


def test_the_median_is_what_others_can_stand_for() -> None:
    model = networks.chain(16)
    weights = np.array(Graph(model).constant("conv1.w"))
    weights[4] = weights[[0, 1, 2, 3, *range(5, 16)]].mean(axis=0)  # in the middle of the others
    found = importance(groups_of(_edited(model, **{"conv1.w": weights})), "median")["conv1"]
    assert found.argmin() == 4


def test_norms_count_batch_norms_that_follow() -> None:
    model = networks.chain(16, norms=True)
    scale = np.array(Graph(model).constant("norm1.scale"))
    scale[7] = 1e-6  # the convolution's row is large, but nothing of it arrives
    shift = np.array(Graph(model).constant("norm1.shift"))
    model = _edited(model, **{"norm1.scale": scale, "norm1.shift": shift})
    weights = np.array(Graph(model).constant("conv2.w"))
    weights[:, 7] = 0
    groups = groups_of(_edited(model, **{"conv2.w": weights}))
    assert importance(groups, "l2")["conv1"].argmin() == 7


def test_fisher_is_the_squared_slope_of_a_gate() -> None:
    """A gate of 1 on each channel, moved by a little: the loss of every row must move as the gradients say."""
    groups = groups_of(networks.chain(8))
    x, labels = networks.rows(8), np.arange(8) % networks.CLASSES
    found = importance(groups, "fisher", _evidence(groups, "fisher", x, labels))["conv2"]
    step, number = 1e-3, 3

    def losses(gate: float) -> np.ndarray:
        graph = Graph(groups.model)
        weights = np.array(graph.constant("head.w"))
        weights[:, number] *= gate  # the dense layer reads the mean of conv2's channels
        scores = run.once(_edited(groups.model, **{"head.w": weights}).proto, {"x": x})[0].astype(np.float64)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return -logs[np.arange(8), labels]

    slopes = (losses(1 + step) - losses(1 - step)) / (2 * step)
    # the tap before the pooling counts the same channel a second time
    taps = found[number] / (np.mean(slopes**2) / 2)
    assert taps == pytest.approx(1, rel=0.02) or taps == pytest.approx(4, rel=0.02)


def test_fisher_without_labels_asks_the_model() -> None:
    groups = groups_of(networks.chain(8))
    x = networks.rows(64)
    drawn = importance(groups, "fisher", _evidence(groups, "fisher", x))["conv1"]
    assert (drawn > 0).all()
    again = importance(groups, "fisher", _evidence(groups, "fisher", x))["conv1"]
    np.testing.assert_array_equal(drawn, again)


def test_readings_bring_layers_together() -> None:
    groups = groups_of(networks.residual(16))
    parts = {over: importance(groups, "l1", reading=Reading(over, "none")) for over in ("sum", "mean", "max")}
    assert (parts["sum"]["stem"] > parts["max"]["stem"]).all()
    assert (parts["max"]["stem"] >= parts["mean"]["stem"]).all()
    layers = [place for place in groups.named("stem").places if not place.tensor.endswith(".b")]
    np.testing.assert_allclose(parts["sum"]["stem"], parts["mean"]["stem"] * len(layers))


def test_unknown_names_and_missing_data_are_said() -> None:
    groups = groups_of(networks.chain(8))
    with pytest.raises(UsageError, match="unknown importance 'l3'"):
        importance(groups, "l3")
    with pytest.raises(UsageError, match="give calibration data"):
        importance(groups, "energy")
    with pytest.raises(UsageError, match="give training or calibration data"):
        importance(groups, "fisher")
    with pytest.raises(InputError, match="holds no samples"):
        importance(groups, "activation", Evidence(lambda: iter(())))
    with pytest.raises(InputError, match="does not fit the model"):
        importance(groups, "activation", Evidence(lambda: iter([{"x": np.zeros((1, 2, 8, 8), np.float32)}])))


def test_weights_that_are_not_numbers_are_said() -> None:
    model = networks.chain(8)
    weights = np.array(Graph(model).constant("conv1.w"))
    weights[0] = np.inf
    with pytest.raises(InputError, match="is not a number"):
        importance(groups_of(_edited(model, **{"conv1.w": weights})), "l1")


@pytest.mark.parametrize("name", ["l2", "energy", "fisher", "gate", "hessian"])
def test_the_least_important_half_matters_less_than_the_other(name: str) -> None:
    model = networks.chain(32)
    groups = groups_of(model)
    x = networks.rows(64)
    scores = importance(groups, name, _evidence(groups, name, x))
    wanted = run.once(model.proto, {"x": x})[0]

    def change(reverse: bool) -> float:
        gone = []
        for group in groups.groups:
            order = np.argsort(scores[group.name])
            gone.append(group.units[(order[::-1] if reverse else order)[: group.size // 4]])
        return float(
            np.square(run.once(cut(groups, np.concatenate(gone)).proto, {"x": x})[0] - wanted).mean()
        )

    assert change(False) < change(True)


def test_importance_from_weights_loads_no_torch() -> None:
    code = (
        "import sys; import farrier_converters.pruning.procedure, farrier_converters.passes.prune; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
