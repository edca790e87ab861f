"""`farrier optimize` with smaller networks: pruned, taught by the original, quantized, under one budget."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import farrier
from farrier import cli
from farrier.optimization import Settings, TrialSettings
from farrier.optimization.smaller.settings import SmallerSettings
from farrier_contracts.errors import BudgetError, InputError, UsageError
from farrier_converters.measure import LatencySettings
from farrier_converters.model import from_proto

pytest.importorskip("torch")

QUICK = Settings(
    trial=TrialSettings(
        latency=LatencySettings(rounds=3, most_rounds=3, round_s=0.005),
        profile=LatencySettings(rounds=2, most_rounds=2, round_s=0.002),
    ),
    smaller=SmallerSettings(epochs=4, most_trainings=3, measure_widths=False),
)
SIDE, CLASSES, WIDTH, BLOCKS = 8, 4, 32, 4
INT8_ONLY = {"precision": "int8", "engine": "onnxruntime"}
FLOAT = {"precision": "fp32", "engine": "onnxruntime"}


def residual_net() -> onnx.ModelProto:
    """A residual classifier of equal blocks, wider and deeper than its task needs."""
    rng = np.random.default_rng(0)
    nodes, weights = [], {}

    def conv(x: str, name: str, ins: int, outs: int) -> str:
        weights[f"{name}.w"] = rng.standard_normal((outs, ins, 3, 3)) * np.sqrt(1 / (9 * ins))
        weights[f"{name}.b"] = np.zeros(outs)
        nodes.append(helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [name], name, pads=[1, 1, 1, 1]))
        return name

    def relu(x: str) -> str:
        nodes.append(helper.make_node("Relu", [x], [f"{x}.r"], f"{x}.r"))
        return f"{x}.r"

    x = relu(conv("x", "stem", 3, WIDTH))
    for number in range(BLOCKS):
        y = conv(relu(conv(x, f"b{number}.c1", WIDTH, WIDTH)), f"b{number}.c2", WIDTH, WIDTH)
        nodes.append(helper.make_node("Add", [x, y], [f"b{number}.add"], f"b{number}.add"))
        x = relu(f"b{number}.add")
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["p"], "pool"))
    nodes.append(helper.make_node("Flatten", ["p"], ["f"], "flatten"))
    weights |= {"fc.w": rng.standard_normal((CLASSES, WIDTH)) / 6, "fc.b": np.zeros(CLASSES)}
    nodes.append(helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["y"], "fc", transB=1))
    graph = helper.make_graph(
        nodes,
        "residual_net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def textures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes of four directions in noise, [count, 3, SIDE, SIDE], and which they are."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    down, right = np.mgrid[:SIDE, :SIDE]
    waves = np.stack([down, right, down + right, down - right])[labels] * (np.pi / 2)
    stripes = np.sin(waves + rng.uniform(0, 2 * np.pi, (count, 1, 1)))
    noise = rng.standard_normal((count, 3, SIDE, SIDE))
    return (stripes[:, None] + 1.2 * noise).astype(np.float32), labels


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A trained network, rows to train on, and other rows to evaluate on."""
    from farrier_converters.training.data import Rows
    from farrier_converters.training.fit import FitSettings, fit
    from farrier_converters.training.module import OnnxModule

    folder = tmp_path_factory.mktemp("together")
    images, labels = textures(1024, 1)
    module = OnnxModule(from_proto(residual_net(), "residual_net"))
    fit(module, Rows({"x": images}, labels), FitSettings(epochs=4, learning_rate=2e-3))
    onnx.save(module.write_back().proto, folder / "net.onnx")
    np.savez(folder / "train.npz", x=images, labels=labels)
    images, labels = textures(400, 2)
    np.savez(folder / "data.npz", x=images, labels=labels)
    return folder


def optimize(made: Path, out: Path, **options) -> farrier.Result:
    given = {"data": made / "data.npz", "train": made / "train.npz", "settings": QUICK, "max_drop": "5%"}
    return farrier.optimize(made / "net.onnx", out=out, **(given | INT8_ONLY | options))


@pytest.fixture(scope="module")
def small(made) -> farrier.Result:
    """A size that INT8 alone misses by far."""
    return optimize(made, made / "small", max_size="30KB", augment="crop:1")


def report_of(result: farrier.Result) -> dict:
    return json.loads((result.out / "report.json").read_text())


def test_where_quantizing_alone_is_too_large_a_smaller_network_is_delivered(small):
    facts = report_of(small)
    assert (
        small.delivered.size_bytes
        <= 30_000
        < min(c["bytes"] for c in facts["candidates"] if c["name"] in ("original", "int8", "int8-fitted"))
    )
    assert small.drop <= 0.05
    assert facts["smaller"]["trained"] == [
        small.delivered.name
    ]  # the first cut that is small enough is not too much
    probes = {probe["cuts"].get("size"): probe for probe in facts["smaller"]["probes"]}
    cut = facts["recipe"]["pass"][1]["parameters"]
    chosen = min(probes, key=lambda c: abs(1 / c - cut))
    assert all("size" not in p["enough"] for c, p in probes.items() if c < chosen)


def test_each_step_is_validated_and_shown(small):
    facts = report_of(small)
    names = [step["name"] for step in facts["recipe"]["pass"]]
    assert [step["name"] for step in facts["steps"]] == ["original", *names]
    assert names == ["clean", "prune", "distill", "fuse", "int8"]
    by_name = {step["name"]: step for step in facts["steps"]}
    assert by_name["original"]["drop"] == 0
    assert by_name["prune"]["multiply_adds"] < by_name["original"]["multiply_adds"]
    assert by_name["int8"]["multiply_adds"] == by_name["prune"]["multiply_adds"]
    assert by_name["int8"]["bytes"] == small.delivered.size_bytes
    assert all(0 <= step["metric"] <= 1 and step["latency_ms"] > 0 for step in facts["steps"])
    page = (small.out / "report.html").read_text()
    assert "Step by step" in page
    assert "Smaller networks" in page


def test_the_lock_gives_the_same_bytes(small, made):
    again = optimize(
        made, made / "again", max_size=None, max_drop=None, precision=None, locked=small.out / "recipe.lock"
    )
    for name in ("model.onnx", "recipe.lock", "report.json", "model.farrier"):
        assert (again.out / name).read_bytes() == (small.out / name).read_bytes(), name


def test_the_lock_refuses_other_rows_to_train_on(small, made, tmp_path):
    images, labels = textures(1024, 3)
    np.savez(tmp_path / "other.npz", x=images, labels=labels)
    with pytest.raises(InputError, match="the training differs from the lock"):
        optimize(made, tmp_path / "out", train=tmp_path / "other.npz", locked=small.out / "recipe.lock")
    with pytest.raises(UsageError, match="--train"):
        optimize(made, tmp_path / "out", train=None, locked=small.out / "recipe.lock")


def test_nothing_smaller_is_tried_where_the_budget_is_met_or_nobody_wants_it(made, tmp_path):
    result = optimize(made, tmp_path / "met", **FLOAT)
    assert "smaller" not in report_of(result)
    with pytest.raises(BudgetError, match="the best there is"):
        optimize(made, tmp_path / "never", max_size="30KB", prune="never", **FLOAT)
    with pytest.raises(BudgetError, match="give rows to train on with --train"):
        optimize(made, tmp_path / "rows", max_size="30KB", train=None, **FLOAT)
    assert not (tmp_path / "never").exists()


def test_a_budget_that_no_network_keeps_names_the_best_and_writes_nothing(made, tmp_path, capsys):
    code = cli.main(
        [
            *("optimize", str(made / "net.onnx"), "--data", str(made / "data.npz"), "--precision", "fp32"),
            *("--train", str(made / "train.npz"), "--max-size", "1KB", "--engine", "onnxruntime"),
            *("-o", str(tmp_path / "out")),
        ]
    )
    assert code == 3
    said = capsys.readouterr().err
    assert "the budget cannot be met; the best there is" in said
    assert "no smaller network could be made that is small and fast enough" in said
    assert not (tmp_path / "out").exists()


def test_always_climbs_to_the_largest_cut_that_holds(made, tmp_path):
    result = optimize(made, tmp_path / "out", prune="always", epochs=2, **FLOAT)
    facts = report_of(result)
    assert result.delivered.name in facts["smaller"]["trained"]
    assert len(facts["smaller"]["trained"]) <= QUICK.smaller.most_trainings


def test_a_recipe_may_name_the_passes_itself_and_a_broken_step_ends_it_with_its_reason(made, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        """
        version = 1
        [[candidate]]
        name = "untaught"
        precision = "fp32"
        toolchain = "onnx"
        [[candidate.pass]]
        name = "clean"
        [[candidate.pass]]
        name = "student"
        layers = 1
        [[candidate.pass]]
        name = "fuse"
        [[candidate]]
        name = "taught"
        precision = "int8"
        toolchain = "onnx"
        [[candidate.pass]]
        name = "student"
        layers = "half"
        [[candidate.pass]]
        name = "distill"
        temperature = 2.0
        fit = { epochs = 3, learning_rate = 1e-3 }
        [[candidate.pass]]
        name = "qat"
        hard = 0.5
        fit = { epochs = 1 }
        """
    )
    result = optimize(made, tmp_path / "out", recipe=recipe, precision=None)
    entries = {entry.name: entry for entry in result.candidates}
    assert set(entries) == {"original", "untaught", "taught"}
    assert entries["untaught"].latency is None
    assert "ended after the pass student: it drops" in entries["untaught"].reason
    assert entries["taught"].kept
    assert [step["name"] for step in report_of(result)["steps"]] == ["original", "student", "distill", "qat"]


def test_what_is_wrong_is_one_sentence(made, tmp_path):
    for options, words in (
        ({"prune": "always", "train": None}, "give them with --train"),
        ({"prune": "sometimes"}, "prune is one of auto, always, never"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"augment": "crop:1,turn"}, "unknown augmentation 'turn'"),
    ):
        with pytest.raises(UsageError, match=words):
            optimize(made, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
