"""Sparsity while training: the schedule is followed, zeros stay, and what gradients say is used."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from sparse_models import classifier

from farrier_contracts import targets
from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.compilers.tensorrt.recipe import build_of
from farrier_converters.graph import run
from farrier_converters.passes.sparsify import SparsifyOptions, sparsify
from farrier_converters.sparsity import goal, layers

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.training.data import Rows  # noqa: E402
from farrier_converters.training.fit import FitSettings, fit  # noqa: E402
from farrier_converters.training.losses import task  # noqa: E402
from farrier_converters.training.module import OnnxModule  # noqa: E402
from farrier_converters.training.objective import Moment, Plain  # noqa: E402
from farrier_converters.training.sparse.hooks import Ramp, Sparsify  # noqa: E402
from farrier_converters.training.sparse.snip import snip  # noqa: E402

FIT = {"epochs": 6, "learning_rate": 0.01}


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Five classes, told apart by a pattern under noise."""
    rng, patterns = np.random.default_rng(seed), np.random.default_rng(7).standard_normal((5, 4, 8, 8))
    labels = rng.integers(0, 5, count)
    return (patterns[labels] + 0.8 * rng.standard_normal((count, 4, 8, 8))).astype(np.float32), labels


@pytest.fixture(scope="module")
def stream():
    images, labels = pictures(320, 0)
    return Rows({"images": images}, labels, batch=32)


@pytest.fixture(scope="module")
def trained(stream):
    """A classifier that knows the classes."""
    module = OnnxModule(classifier())
    fit(module, stream, FitSettings(epochs=8, learning_rate=0.01))
    return module.write_back()


def accuracy(model) -> float:
    images, labels = pictures(300, 1)
    return float((run.once(model.proto, {"images": images})[0].argmax(1) == labels).mean())


def zeros(model, names=("w1", "w2", "w3")) -> float:
    found = layers.find(model).layers
    return sum(int((found[n].value == 0).sum()) for n in names) / sum(found[n].value.size for n in names)


@pytest.mark.parametrize("schedule", ["cubic", "one-cycle", "constant"])
def test_a_network_becomes_sparse_while_it_trains_and_still_knows_its_classes(trained, stream, schedule):
    options = SparsifyOptions(ratio=0.8, schedule=schedule, updates=10, fit=FIT)
    made = sparsify(trained, options, passes.Context(training=stream))
    assert zeros(made.model) == pytest.approx(0.8, abs=0.002)
    assert made.report.sparsity == pytest.approx(zeros(made.model))
    assert made.history is not None
    assert len(made.history.losses) == 6
    untrained = sparsify(trained, SparsifyOptions(ratio=0.8), passes.Context()).model
    assert accuracy(made.model) > accuracy(untrained)


def test_movement_finds_what_a_network_needs_while_it_learns(stream):
    options = SparsifyOptions(
        ratio=0.8, importance="movement", schedule="cubic", start=0.3, updates=10, fit=FIT
    )
    made = sparsify(classifier(), options, passes.Context(training=stream))
    assert [one.sparsity for one in made.report.layers] == pytest.approx([0.8] * 3, abs=0.01)
    assert accuracy(made.model) > 0.85


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam"])
def test_zeros_of_one_shot_stay_where_they_were(trained, stream, optimizer):
    alone = sparsify(trained, SparsifyOptions(ratio=0.8), passes.Context()).model
    options = SparsifyOptions(
        ratio=0.8, fit={**FIT, "epochs": 2, "optimizer": optimizer, "weight_decay": 0.1}
    )
    tuned = sparsify(trained, options, passes.Context(training=stream)).model
    before, after = layers.find(alone).layers, layers.find(tuned).layers
    for name, layer in before.items():
        assert np.array_equal(layer.value == 0, after[name].value == 0)
    assert any(not np.array_equal(layer.value, after[name].value) for name, layer in before.items())


def test_the_pattern_comes_to_ever_more_groups_and_tensorrt_finds_it(trained, stream):
    options = SparsifyOptions(pattern="2:4", schedule="cubic", updates=5, fit={**FIT, "epochs": 2})
    made = sparsify(trained, options, passes.Context(training=stream))
    assert all(one.follows and one.sparsity == 0.5 for one in made.report.layers)
    assert build_of(made.model, targets.get("jetson-orin").toolchains[0]).sparse


def test_validation_keeps_no_state_from_before_the_end_of_the_ramp(trained, stream):
    images, labels = pictures(100, 2)
    held_out = Rows({"images": images}, labels, batch=50)
    for schedule in ("cubic", "constant"):
        options = SparsifyOptions(ratio=0.9, schedule=schedule, fit={**FIT, "epochs": 3, "patience": 1})
        context = passes.Context(training=stream, validation=lambda: held_out(0))
        made = sparsify(trained, options, context)
        assert zeros(made.model) == pytest.approx(0.9, abs=0.002)
        assert made.history is not None
        assert made.history.best is None or made.history.best >= 0
        assert accuracy(made.model) > 0.5


def test_integers_that_train_keep_the_pattern(trained, stream):
    sparse = sparsify(trained, SparsifyOptions(pattern="2:4"), passes.Context()).model
    images, _ = pictures(64, 3)
    context = passes.Context(Arithmetic("u8", 8), lambda: iter([{"images": images}]), training=stream)
    made = passes.get("qat")
    quantized = made.run(sparse, made.options(fit={"epochs": 1}), context)
    assert build_of(quantized, targets.get("jetson-orin").toolchains[0]).sparse
    integers = [numpy_helper.to_array(t) for t in quantized.proto.graph.initializer]
    weights = [value for value in integers if value.dtype == np.int8 and value.ndim > 1]
    assert len(weights) == 3
    assert all((value == 0).mean() >= 0.5 for value in weights)


def test_without_labels_the_dense_network_is_the_teacher(trained):
    images, _ = pictures(320, 0)
    options = SparsifyOptions(ratio=0.8, schedule="cubic", fit=FIT)
    made = sparsify(trained, options, passes.Context(training=Rows({"images": images}, batch=32)))
    assert accuracy(made.model) > 0.8
    with pytest.raises(InputError, match="no labels"):
        sparsify(
            trained,
            SparsifyOptions(ratio=0.8, importance="snip"),
            passes.Context(training=Rows({"images": images}, batch=32)),
        )


def test_snip_is_the_change_of_the_loss_per_relative_change_of_a_weight(trained, stream):
    module = OnnxModule(trained)
    found = layers.find(trained).layers
    scores = snip(module, found, stream, Plain(module, task(module)), batches=2)
    batches = [b for b, _ in zip(stream(0), range(2), strict=False)]
    step = 1e-2

    def loss() -> float:
        with torch.no_grad():
            return sum(
                float(
                    task(module)(
                        module(**{k: torch.from_numpy(v) for k, v in x.items()}), torch.from_numpy(y)
                    )
                )
                for x, y in batches
            )

    weight = module.parameters_by_name["w3"].detach()
    for place in ((0, 3), (2, 7), (4, 15)):
        kept = float(weight[place])
        sides = []
        for factor in (1 + step, 1 - step):
            with torch.no_grad():
                weight[place] = kept * factor
            sides.append(loss())
        with torch.no_grad():
            weight[place] = kept
        assert scores["w3"][place[0], place[1], 0] == pytest.approx(
            abs(sides[0] - sides[1]) / (2 * step), rel=0.05, abs=1e-4
        )
    made = sparsify(
        trained, SparsifyOptions(ratio=0.6, importance="snip", batches=2), passes.Context(training=stream)
    )
    assert zeros(made.model) == pytest.approx(0.6, abs=0.002)
    after = {name: layer.cube() != 0 for name, layer in layers.find(made.model).layers.items()}
    kept = np.concatenate([score[after[name]] for name, score in scores.items()])
    gone = np.concatenate([score[~after[name]] for name, score in scores.items()])
    assert np.median(kept) > gone.max()


def test_weights_that_move_away_from_zero_return():
    """Two updates: after the first the smallest movers are removed, and their values are kept for the second."""
    module = OnnxModule(classifier())
    found = {"w3": layers.find(classifier()).layers["w3"]}
    hook = Sparsify(
        found,
        goal.goal("unstructured", 0.5, "layer", "movement"),
        Ramp("constant", end=1, updates=2),
        moves=True,
    )
    weight = module.parameters_by_name["w3"]
    start = weight.detach().clone()
    hook.start(module)
    first = torch.where(torch.arange(16) < 8, 1.0, -1.0).expand(5, 16) * start.sign()

    def step(gradient: torch.Tensor, share: float) -> None:
        hook.before(module, Moment(0, 0, share))
        weight.grad = gradient.clone()
        hook.gradients(module, Moment(0, 0, share))
        hook.after(module, Moment(0, 0, share))

    step(first, 0.0)  # the first eight of each row shrink, the last eight grow
    assert torch.equal(weight.detach(), start)
    step(torch.zeros_like(first), 0.1)
    kept = weight.detach() != 0
    assert int(kept.sum()) == 40
    assert kept[:, 8:].sum() > kept[:, :8].sum()
    step(-3 * first, 0.6)  # the loss wants the removed ones back
    step(torch.zeros_like(first), 0.99)
    hook.before(module, Moment(0, 0, 1.0))
    returned = weight.detach() != 0
    assert returned[:, :8].sum() > returned[:, 8:].sum()
    assert torch.equal(weight.detach()[returned], start[returned])


def test_what_a_killed_training_needs_comes_back(trained):
    found, wanted = layers.find(trained).layers, goal.goal("unstructured", 0.7, "auto", "magnitude")
    one, two = (Sparsify(found, wanted, Ramp(updates=4)) for _ in range(2))
    module = OnnxModule(trained)
    one.start(module)
    one.before(module, Moment(0, 0, 0.3))
    two.start(module)
    two.restore(one.state())
    assert two.masks.keys() == one.masks.keys()
    assert all(torch.equal(mask, two.masks[name]) for name, mask in one.masks.items())
    two.before(module, Moment(0, 0, 0.31))  # no update is due
    assert torch.equal(one.masks["w2"], two.masks["w2"])
    two.finish(module)
    assert zeros(module.write_back()) == pytest.approx(0.7, abs=0.002)


def test_a_ramp_that_means_nothing_is_refused():
    for values in ({"start": 0.6, "end": 0.5}, {"end": 1.5}, {"start": -0.1}):
        with pytest.raises(UsageError, match="between two shares"):
            Ramp(**values)
    with pytest.raises(UsageError, match="at least 1"):
        Ramp(updates=0)


def test_a_ramp_ends_in_the_whole_ratio():
    ramp = Ramp("cubic", start=0.2, end=0.7, updates=10)
    assert ramp.part(0.1) == 0
    assert ramp.due(0.1) == 0
    assert ramp.part(0.7) == ramp.part(0.9) == 1
    assert [ramp.due(share) for share in (0.2, 0.249, 0.251, 0.7, 1.0)] == [1, 1, 2, 11, 11]
    assert ramp.settled == 0.7
    assert Ramp("constant").settled > 0
