"""The pass `prune`: from a goal to a model that runs, in one round or several, with data and without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.graph import run
from farrier_converters.graph.edit import Graph
from farrier_converters.model import Model, load, save
from farrier_converters.passes import Context, get
from farrier_converters.passes.prune import PruneOptions, prune
from farrier_converters.pruning import apply
from farrier_converters.pruning.group import groups_of
from farrier_converters.pruning.procedure import Resources, procedure
from farrier_converters.pruning.rebuild import RebuildSettings, rebuild
from farrier_converters.pruning.separate import separate
from farrier_converters.pruning.staircase import Curve, Staircase, networks
from tests.support import prunable


def _context(count: int = 64, *, training: bool = False) -> Context:
    x = prunable.rows(count)

    def calibration() -> Iterator[dict[str, np.ndarray]]:
        yield from ({"x": x[start : start + 16]} for start in range(0, count, 16))

    labels = np.arange(count) % prunable.CLASSES

    def stream(_epoch: int) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        return [(feeds, labels[16 * n : 16 * n + 16]) for n, feeds in enumerate(calibration())]

    return Context(calibration=calibration, training=stream if training else None)


def _runs(model: Model, rows: int = 3) -> np.ndarray:
    onnx.checker.check_model(model.proto, full_check=True)
    return np.asarray(run.once(model.proto, {"x": prunable.rows(rows, seed=9)})[0])


@pytest.mark.parametrize("goal", [{"ratio": 0.5}, {"speedup": 2.0}, {"latency": 0.6}, {"parameters": 0.5}])
def test_each_goal_is_reached(goal: dict[str, Any]) -> None:
    found = prune(prunable.chain(64), PruneOptions(**goal), Context())
    assert found.reached and found.note is None
    assert _runs(found.model).shape == (3, prunable.CLASSES)
    name, value = next(iter(goal.items()))
    left = {
        "ratio": lambda: 1 - found.after.multiply_adds / found.before.multiply_adds >= value,
        "speedup": lambda: found.before.multiply_adds / found.after.multiply_adds >= value,
        "latency": lambda: found.after.ms / found.before.ms <= value,
        "parameters": lambda: found.after.parameters / found.before.parameters <= value,
    }
    assert left[name]()


def test_on_one_step_only_blocks_go_and_the_rest_is_said() -> None:
    found = prune(prunable.residual(16, blocks=4), PruneOptions(ratio=0.9), Context())
    assert found.blocks and not found.reached
    assert found.note is not None and "would not make the model faster" in found.note
    assert all(change.after in (0, 16) for change in found.changes)
    without = prune(prunable.residual(16), PruneOptions(ratio=0.3, blocks=False), Context())
    np.testing.assert_array_equal(_runs(without.model), _runs(prunable.residual(16)))


@pytest.mark.parametrize("ratio", [0.6, 0.7, 0.8, 0.9])
def test_where_blocks_go_too_the_counts_end_on_steps(ratio: float) -> None:
    """What two tensors had lost would fall together, where the block between them goes, on no step of either."""
    net = networks.Net((1, 3, 8, 8))
    net.conv(64, 3)
    for _ in range(4):
        net.conv(64, 3, depthwise=True)
        net.conv(64, 1)
    model = net.pooled()
    found = prune(model, PruneOptions(ratio=ratio), Context())
    assert all(change.after % 16 == 0 for change in found.changes)
    assert found.after.ms < found.before.ms
    assert len(run.once(found.model.proto, run.sample(model))) == 1


def test_any_width_reaches_what_steps_do_not() -> None:
    found = prune(prunable.residual(16), PruneOptions(ratio=0.6, any_width=True, blocks=False), Context())
    assert found.reached
    assert any(change.after % 16 for change in found.changes)


def test_the_targets_staircase_decides() -> None:
    steps = {w: float(-(-w // 24) * 24) for w in range(1, 129)}
    kinds = ("conv", "pointwise", "dense", "product", "strided")
    target = Staircase("e", "fp32", "m", {kind: Curve(steps, steps, {1: 0.02}) for kind in kinds})
    found = prune(
        prunable.chain(96), PruneOptions(ratio=0.5, blocks=False), replace(Context(), staircase=target)
    )
    assert all(change.after % 24 == 0 for change in found.changes)
    assert any(change.after % 16 for change in found.changes)


@pytest.mark.parametrize("schedule", ["geometric", "linear"])
def test_rounds_approach_the_goal(schedule: str) -> None:
    options = PruneOptions(ratio=0.7, rounds=4, schedule=schedule, any_width=True, keep_least=0.25)
    found = prune(prunable.residual(32), options, _context())
    assert found.reached
    assert all(change.after == 0 or change.after >= 8 for change in found.changes)  # of what it had at first
    assert options.steps() == sorted(options.steps(), reverse=True)
    assert options.steps()[-1] == pytest.approx(0.3)


def test_between_rounds_the_model_is_tuned() -> None:
    calls: list[Model] = []

    def tuned(model: Model) -> Model:
        calls.append(model)
        return model

    model = prunable.chain(64)
    procedure(model, PruneOptions(ratio=0.6, rounds=3), Resources(tune=tuned))
    sizes = [sum(t.dims[0] for t in m.proto.graph.initializer if len(t.dims) == 4) for m in calls]
    assert len(calls) == 2 and sizes == sorted(sizes, reverse=True)


def test_with_training_data_gradients_decide() -> None:
    pytest.importorskip("torch", reason="gradients need PyTorch")
    found = prune(prunable.chain(32), PruneOptions(ratio=0.4), _context(training=True))
    assert found.importance == "fisher"
    assert prune(prunable.chain(32), PruneOptions(ratio=0.4), _context()).importance == "energy"
    assert prune(prunable.chain(32), PruneOptions(ratio=0.4), Context()).importance == "l2"


@pytest.mark.parametrize("model", [prunable.chain(32), prunable.chain(32, norms=True), prunable.residual(32)])
def test_rebuilding_brings_the_answers_back(model: Model) -> None:
    options = PruneOptions(ratio=0.4, blocks=False, any_width=True, importance="l2")
    context = _context(256)
    x = {"x": prunable.rows(128, seed=5)}
    wanted = run.once(model.proto, x)[0]
    errors = [
        float(
            np.square(
                run.once(prune(model, replace(options, rebuild=on), context).model.proto, x)[0] - wanted
            ).mean()
        )
        for on in (True, False)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_rebuilding_is_exact_where_a_channel_repeats_another() -> None:
    """What goes is a copy of what stays: the reader's weights add up, and nothing is lost."""
    model = prunable.chain(16)
    graph = Graph(model)
    weights, bias = np.array(graph.constant("conv1.w")), np.array(graph.constant("conv1.b"))
    weights[8:], bias[8:] = weights[:8], bias[:8]
    for name, value in (("conv1.w", weights), ("conv1.b", bias)):
        graph.initializers[name] = numpy_helper.from_array(value, name)
    model = graph.build()
    groups = groups_of(model)
    removed = apply.remove(groups, groups.named("conv1").units[8:])
    x = prunable.rows(128)
    settings = RebuildSettings(ridge=1e-9)
    found = rebuild(model, removed.model, removed.stays, lambda: iter([{"x": x}]), settings=settings)
    np.testing.assert_allclose(_runs(found), _runs(model), rtol=2e-3, atol=2e-3)
    assert np.abs(_runs(removed.model) - _runs(model)).max() > 0.05


def test_excluded_layers_and_ends_stay() -> None:
    options = PruneOptions(ratio=0.4, exclude=("conv1*",))
    sizes = {c.name: c.after for c in prune(prunable.chain(64), options, Context()).changes}
    assert sizes["conv1"] == 64
    sizes = {
        c.name: c.after
        for c in prune(prunable.chain(64), PruneOptions(ratio=0.4, keep_ends=True), Context()).changes
    }
    assert sizes["conv0"] == sizes["conv2"] == 64
    with pytest.raises(InputError, match="no layer of net is called 'nothing'"):
        prune(prunable.chain(16), PruneOptions(ratio=0.4, exclude=("nothing",)), Context())


def test_blocks_with_an_excluded_layer_stay() -> None:
    options = PruneOptions(ratio=0.3, exclude=("b1.conv2",))
    found = prune(prunable.residual(16, blocks=4), options, Context())
    assert found.blocks
    assert "b1.relu2" not in found.blocks


def test_equal_constants_of_different_layers_are_taken_apart() -> None:
    model = prunable.chain(32)
    zeros = np.zeros(32, np.float32)
    graph = Graph(model)
    for number in range(3):
        graph.initializers[f"conv{number}.b"] = numpy_helper.from_array(zeros, f"conv{number}.b")
    model = get("clean").run(graph.build(), get("clean").options(), Context())
    assert len([t for t in model.proto.graph.initializer if list(t.dims) == [32]]) == 1
    assert [g.name for g in groups_of(separate(model)).groups] == ["conv0", "conv1", "conv2"]
    assert prune(model, PruneOptions(ratio=0.5), Context()).reached


def test_a_model_that_does_not_compute_what_its_twin_does_is_found_out() -> None:
    groups = groups_of(prunable.chain(32))
    units = groups.named("conv1").units
    removed = apply.remove(groups, units[:8])
    apply.agree(groups, units[:8], removed.model)
    with pytest.raises(apply.PruningFault, match="off its masked dense twin"):
        apply.agree(groups, units[8:16], removed.model)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "pruning needs one goal"),
        ({"ratio": 0.5, "speedup": 2.0}, "ratio and speedup are given"),
        ({"ratio": 1.0}, "a share of the multiply-adds below 1"),
        ({"ratio": -0.1}, "a share of the multiply-adds below 1"),
        ({"speedup": 0.5}, "cut 1 time or more"),
        ({"latency": 0.0}, "a share above 0"),
        ({"parameters": 1.5}, "at most 1"),
        ({"ratio": 0.5, "importance": "best"}, "unknown importance 'best'"),
        ({"ratio": 0.5, "rounds": 0}, "between 1 and 1000 rounds"),
        ({"ratio": 0.5, "schedule": "square"}, "the schedule of pruning is one of"),
        ({"ratio": 0.5, "scope": "both"}, "the scope of pruning is one of"),
        ({"ratio": 0.5, "over": "product"}, "layers are brought together by one of"),
        ({"ratio": 0.5, "normalize": "sum"}, "layers are normalized by one of"),
        ({"ratio": 0.5, "keep_least": 2.0}, "between 0 and 1"),
        ({"ratio": 0.5, "rows": 0}, "one row of data at least"),
    ],
)
def test_options_that_mean_nothing_are_said(options: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        prune(prunable.chain(16), PruneOptions(**options), Context())


def test_a_ratio_that_would_take_a_whole_layer_is_refused() -> None:
    with pytest.raises(InputError, match="have to stay; at most"):
        prune(prunable.chain(16), PruneOptions(ratio=0.999, any_width=True), Context())


def test_data_that_does_not_fit_is_said() -> None:
    context = Context(calibration=lambda: iter([{"x": np.zeros((2, 5, 8, 8), np.float32)}]))
    with pytest.raises(InputError, match=r"does not fit|cannot run"):
        prune(prunable.chain(16), PruneOptions(ratio=0.3), context)


def test_without_torch_it_works(tmp_path: Path) -> None:
    save(prunable.residual(32), tmp_path / "m.onnx")
    code = f"""
import sys
from pathlib import Path
sys.modules["torch"] = None  # an import of it fails
import numpy as np
from farrier_converters.model import load
from farrier_converters.passes import Context, get
step = get("prune")
rows = lambda: iter([{{"x": np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)}}])
model = step.run(load(Path({str(tmp_path / "m.onnx")!r})), step.options(ratio=0.4), Context(calibration=rows))
print(sum(t.dims[0] for t in model.proto.graph.initializer))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < sum(t.dims[0] for t in load(tmp_path / "m.onnx").proto.graph.initializer)


def test_gradients_without_torch_say_what_to_install(tmp_path: Path) -> None:
    save(prunable.chain(16), tmp_path / "m.onnx")
    code = f"""
import sys
from pathlib import Path
sys.modules["torch"] = None
import numpy as np
from farrier_contracts.errors import MissingToolError
from farrier_converters.model import load
from farrier_converters.passes import Context, get
step = get("prune")
rows = lambda: iter([{{"x": np.zeros((4, 3, 8, 8), np.float32)}}])
try:
    model = load(Path({str(tmp_path / "m.onnx")!r}))
    step.run(model, step.options(ratio=0.4, importance="taylor"), Context(calibration=rows))
except MissingToolError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert "pip install" in done.stdout
