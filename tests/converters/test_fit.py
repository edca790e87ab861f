"""The training loop: what it minimizes, what acts around it, what it keeps, and what it says."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.graph import run

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.training.data import Rows  # noqa: E402
from farrier_converters.training.fit import FitSettings, fit  # noqa: E402
from farrier_converters.training.fit.schedule import factor  # noqa: E402
from farrier_converters.training.hooks import KeepZeros  # noqa: E402
from farrier_converters.training.module import OnnxModule  # noqa: E402
from farrier_converters.training.objective import Hook, Objective  # noqa: E402

CLASSES = 3
PLAIN = FitSettings(epochs=3, learning_rate=0.02, frozen_norms=0)


@pytest.fixture(scope="module")
def network(make_model):
    """Two dense layers, the inner one called "hidden"."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"]),
        helper.make_node("Relu", ["a"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["y"]),
    ]
    constants = {
        "w1": (rng.standard_normal((6, 16)) * 0.5).astype(np.float32),
        "b1": np.zeros(16, np.float32),
        "w2": (rng.standard_normal((16, CLASSES)) * 0.5).astype(np.float32),
        "b2": np.zeros(CLASSES, np.float32),
    }
    return make_model(nodes, {"x": ["N", 6]}, ["y"], constants=constants)


def task(rows=240, seed=1):
    """Rows whose class follows from them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 6)).astype(np.float32)
    weight = np.random.default_rng(99).standard_normal((6, CLASSES))
    return x, (x @ weight).argmax(1)


def rows(count=240, *, batch=24, seed=1, **more):
    x, y = task(count, seed)
    return Rows({"x": x}, y, batch=batch, **more)


def weights(module):
    return {name: p.detach().clone() for name, p in module.parameters_by_name.items()}


class Matching(Objective):
    """Fits a projection of the hidden layer to the inputs; what it saw is kept for the test."""

    keep = ("hidden",)

    def __init__(self):
        self.projection = torch.nn.Parameter(torch.zeros(16, 6))
        self.seen = []

    def __call__(self, values, feeds, labels):
        self.seen.append(({n: tuple(v.shape) for n, v in values.items()}, labels.dtype))
        return (values["hidden"] @ self.projection - feeds["x"]).square().mean()

    def parameters(self):
        return [self.projection]


@pytest.mark.parametrize("checkpoints", [0, 2])
def test_an_objective_sees_inner_tensors_and_learns_along(network, checkpoints):
    module, objective = OnnxModule(network, checkpoints=checkpoints), Matching()
    history = fit(module, rows(), PLAIN, objective=objective)
    assert history.losses[-1] < 0.8 * history.losses[0]
    assert objective.seen[0] == ({"y": (24, CLASSES), "hidden": (24, 16)}, torch.int64)
    assert float(objective.projection.detach().abs().max()) > 0
    objective.keep = ("nowhere",)
    with pytest.raises(InputError, match="no tensor called 'nowhere'"):
        fit(module, rows(), PLAIN, objective=objective)


class Recorder(Hook):
    def __init__(self):
        self.calls, self.norms, self.moments = [], [], []

    def start(self, module):
        self.calls.append("start")

    def before(self, module, moment):
        self.calls.append("before")
        self.moments.append(moment)
        self.old = weights(module)

    def gradients(self, module, moment):
        self.calls.append("gradients")
        assert all(p.grad is not None for p in module.parameters())
        assert all(torch.equal(p, self.old[n]) for n, p in module.parameters_by_name.items())

    def after(self, module, moment):
        self.calls.append("after")
        assert any(not torch.equal(p, self.old[n]) for n, p in module.parameters_by_name.items())
        self.norms.append(float(torch.stack([p.grad.norm() for p in module.parameters()]).norm()))

    def finish(self, module):
        self.calls.append("finish")


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 10), (4, 3)])
def test_hooks_act_around_each_step(network, accumulate, steps):
    hook = Recorder()
    history = fit(
        OnnxModule(network),
        rows(),
        FitSettings(epochs=2, accumulate=accumulate, clip=0.05, learning_rate=0.01),
        hooks=[hook],
    )
    assert hook.calls == ["start", *["before", "gradients", "after"] * 2 * steps, "finish"]
    assert [m.step for m in hook.moments] == list(range(2 * steps))
    assert [m.epoch for m in hook.moments] == [0] * steps + [1] * steps
    shares = [m.share for m in hook.moments]
    assert shares == sorted(shares)
    assert shares[0] == 0 <= shares[-1] < 1
    assert max(hook.norms) <= 0.05 + 1e-6
    assert len(history.losses) == len(history.rates) == len(history.seconds) == 2


def test_accumulated_batches_are_one_large_batch(network):
    found = []
    for batch, accumulate in ((48, 1), (12, 4)):
        module = OnnxModule(network)
        x, y = task(48)
        batches = [(x[i : i + batch], y[i : i + batch]) for i in range(0, 48, batch)]
        fit(
            module,
            batches,
            FitSettings(
                epochs=2, optimizer="sgd", accumulate=accumulate, learning_rate=0.1, schedule="constant"
            ),
        )
        found.append(weights(module))
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_zeros_stay_and_the_rest_learns(network, optimizer):
    module = OnnxModule(network)
    with torch.no_grad():
        module.parameters_by_name["w1"][:, ::2] = 0
    before = weights(module)
    rate = 0.05 if optimizer == "sgd" else 0.02
    history = fit(
        module,
        rows(),
        FitSettings(epochs=3, optimizer=optimizer, learning_rate=rate, average=0.9, weight_decay=0.1),
        hooks=[KeepZeros()],
    )
    after = weights(module)
    assert bool((after["w1"][:, ::2] == 0).all())
    assert bool((after["w1"][:, 1::2] != before["w1"][:, 1::2]).all())
    assert bool((after["b1"] != 0).any())
    assert history.losses[-1] < history.losses[0]


SETTINGS = st.builds(
    FitSettings,
    epochs=st.integers(1, 9),
    schedule=st.sampled_from(["cosine", "constant", "one-cycle", "step", "multistep"]),
    warmup=st.floats(0, 0.5),
    gamma=st.floats(0.05, 1),
    step_epochs=st.integers(1, 3),
    milestones=st.lists(st.floats(0.1, 0.9), max_size=3).map(tuple),
)


@settings(deadline=None, max_examples=150)
@given(chosen=SETTINGS, shares=st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_rates_are_shares_that_rise_and_then_fall(chosen, shares):
    found = [factor(chosen, share) for share in sorted(shares)]
    assert all(0 <= value <= 1 for value in found)
    rise = 0.3 if chosen.schedule == "one-cycle" else chosen.warmup
    late = [factor(chosen, share) for share in sorted(shares) if share >= rise]
    assert all(a >= b - 1e-12 for a, b in pairwise(late))
    assert factor(chosen, 0) > 0
    if chosen.schedule == "constant":
        assert all(value == 1 for value in late)
    if chosen.schedule == "multistep":
        powers = [chosen.gamma**k for k in range(len(chosen.milestones) + 1)]
        assert all(any(math.isclose(value, p) for p in powers) for value in late)
    if chosen.schedule == "step":
        assert math.isclose(factor(chosen, 1.0), chosen.gamma ** (chosen.epochs // chosen.step_epochs))
    if chosen.schedule in ("cosine", "one-cycle"):
        assert factor(chosen, 1.0) < 1e-3
        assert abs(factor(chosen, 0.5) - factor(chosen, 0.5 + 1e-6)) < 1e-3
        assert max(factor(chosen, s / 1000) for s in range(1001)) > (
            0.99 if chosen.schedule == "one-cycle" else 0.4
        )


def test_settings_that_mean_nothing_are_refused():
    for wrong in (
        {"optimizer": "newton"},
        {"schedule": "sawtooth"},
        {"precision": "fp8"},
        {"device": "tpu"},
        {"epochs": 0},
        {"learning_rate": float("nan")},
        {"accumulate": 0},
        {"smoothing": 1.0},
        {"clip": -1.0},
        {"gamma": 0.0},
    ):
        with pytest.raises(UsageError):
            FitSettings(**wrong)


def test_the_best_epoch_is_kept_and_patience_ends_training(network):
    # Wrong labels: what is learned from them makes the held-out rows worse.
    trained = OnnxModule(network)
    fit(trained, rows(), PLAIN)
    x, y = task(96, seed=5)
    noise = Rows({"x": x}, (y + 1) % CLASSES, batch=24)
    module = OnnxModule(trained.write_back())
    start = weights(module)
    history = fit(
        module,
        noise,
        FitSettings(epochs=20, learning_rate=0.02, patience=2, schedule="constant"),
        validation=rows(seed=7),
    )
    assert history.best == -1
    assert len(history.losses) == len(history.scores) == 2
    assert max(history.scores) <= history.start[1]
    assert "stopped after epoch 2" in history.note
    assert "start" in history.note
    assert all(torch.equal(start[name], value) for name, value in weights(module).items())


@pytest.mark.parametrize("average", [0.0, 0.8])
def test_what_is_delivered_scores_what_the_history_says(network, average):
    module = OnnxModule(network)
    said = []
    history = fit(
        module,
        rows(),
        FitSettings(epochs=5, learning_rate=0.05, average=average),
        validation=rows(seed=7),
        progress=lambda stage, share: said.append((stage, share)),
    )
    x, y = task(240, seed=7)
    scores = run.once(module.write_back().proto, {"x": x})[0]
    assert history.metric == "accuracy"
    assert (scores.argmax(1) == y).mean() == pytest.approx(history.scores[history.best], abs=1e-6)
    assert history.scores[history.best] == max(history.scores) > history.start[1]
    assert max(history.rates) <= 0.05
    assert any("epoch 3 of 5, loss" in stage and "validation accuracy" in stage for stage, _ in said)
    assert [share for _, share in said] == sorted(share for _, share in said)


def test_a_schedule_that_has_not_settled_has_no_best_epoch(network):
    class Late(Hook):
        settled = 0.75

    history = fit(
        OnnxModule(network),
        rows(),
        FitSettings(epochs=4, learning_rate=0.02, patience=1),
        hooks=[Late()],
        validation=rows(seed=7),
    )
    assert history.start is None
    assert history.best in (2, 3)


def broken(epoch_of_failure):
    """A stream whose rows hold an infinity from one epoch on."""
    good = rows()

    def batches(epoch):
        for inputs, labels in good(epoch):
            x = inputs["x"].copy()
            if epoch >= epoch_of_failure:
                x[0, 0] = np.inf
            yield {"x": x}, labels

    return batches


@pytest.mark.parametrize("validated", [False, True])
def test_a_loss_that_is_no_number_is_said_and_the_best_so_far_is_kept(network, validated):
    said = []
    module = OnnxModule(network)
    reference = OnnxModule(network)
    history = fit(
        module,
        broken(2),
        FitSettings(epochs=4, learning_rate=0.02),
        validation=rows(seed=7) if validated else None,
        progress=lambda stage, _share: said.append(stage),
    )
    short = []

    class Look(Hook):
        def before(self, module, moment):
            if moment.epoch == 2 and not short:
                short.append(weights(module))

    fit(reference, broken(9), FitSettings(epochs=4, learning_rate=0.02), hooks=[Look()])
    assert len(history.losses) == 2
    assert "loss of epoch 3 is not a number" in history.note
    assert any(stage.startswith("note: the loss of epoch 3") for stage in said)
    assert all(bool(value.isfinite().all()) for value in weights(module).values())
    if not validated:
        assert all(torch.equal(value, short[0][name]) for name, value in weights(module).items())


def test_a_loss_that_is_no_number_from_the_start_leaves_the_module_alone(network):
    module = OnnxModule(network)
    before = weights(module)
    with pytest.raises(InputError, match="lower the learning rate"):
        fit(module, broken(0), PLAIN)
    assert all(torch.equal(before[name], value) for name, value in weights(module).items())


def test_half_precision_trains_in_full_weights(network):
    kinds = []

    class Kinds(Objective):
        keep = ("hidden",)

        def __call__(self, values, feeds, labels):
            kinds.append({value.dtype for value in values.values()})
            return torch.nn.functional.cross_entropy(values["y"], labels)

    full, half = OnnxModule(network), OnnxModule(network)
    wanted = fit(full, rows(), PLAIN)
    found = fit(
        half,
        rows(),
        FitSettings(epochs=3, learning_rate=0.02, frozen_norms=0, precision="bf16"),
        objective=Kinds(),
    )
    assert kinds[0] == {torch.float32}
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert found.losses != wanted.losses
    assert np.allclose(found.losses, wanted.losses, rtol=0.05)
    with pytest.raises(UsageError, match="bf16 or fp32"):
        fit(half, rows(), FitSettings(precision="fp16"))


def test_a_stream_of_unknown_length_is_warmed_up_and_cooled_down_too(network):
    hook = Recorder()
    data = rows()
    history = fit(
        OnnxModule(network),
        lambda epoch: iter(data(epoch)),
        FitSettings(epochs=2, learning_rate=0.02, frozen_norms=0),
        hooks=[hook],
    )
    shares = [m.share for m in hook.moments]
    assert shares == sorted(set(shares))
    assert shares[9] > 0.02
    assert shares[10:] == pytest.approx([0.5 + k / 20 for k in range(10)])
    assert history.losses[1] < history.losses[0]


def test_smoothing_keeps_answers_modest(network):
    sure = []
    for smoothing in (0.0, 0.3):
        module = OnnxModule(network)
        fit(module, rows(), FitSettings(epochs=8, learning_rate=0.05, smoothing=smoothing))
        x, _ = task(96, seed=7)
        scores = module(torch.from_numpy(x)).detach()
        sure.append(float(torch.softmax(scores, 1).amax(1).mean()))
    assert sure[1] < sure[0] - 0.05
    with pytest.raises(UsageError, match="smoothing"):
        fit(module, rows(), FitSettings(smoothing=0.1), loss=lambda outputs, labels: outputs.mean())


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        (
            (np.zeros((4, 6), np.float32), np.array([0, 1, 2, 3])),
            "label 3 is out of range: the model has classes 0 to 2",
        ),
        ((np.zeros((4, 6), np.float32), np.array([0, 1, -1, 2])), "label -1 is out of range"),
        ((np.zeros((4, 6), np.float32), np.array([0, 1, 2])), "3 labels for 4 rows"),
        ((np.zeros((4, 6), np.float32), np.array([0.0, 1, 2, 1])), "give classes as integers"),
        (
            (np.zeros((4, 6), np.complex64), np.array([0, 1, 2, 1])),
            "is float32; the training data holds complex64",
        ),
        ((np.zeros((4, 6, 1), np.float32), np.array([0, 1, 2, 1])), "does not fit: .*6.* is wanted"),
        ((np.zeros((4, 7), np.float32), np.array([0, 1, 2, 1])), "cannot take this batch"),
        ((np.zeros((4, 6), np.float32),), "no labels, and there is no float model"),
    ],
)
def test_data_that_does_not_fit_is_one_sentence(network, batch, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        fit(OnnxModule(network), [batch], PLAIN)
    assert "\n" not in str(error.value)


def test_no_data_and_few_rows_are_said(network):
    for nothing in ([], lambda _epoch: iter(())):
        with pytest.raises(InputError, match="no batches"):
            fit(OnnxModule(network), nothing, PLAIN)
    with pytest.raises(InputError, match="validation data holds no batches"):
        fit(OnnxModule(network), rows(), PLAIN, validation=[])
    said = []
    history = fit(OnnxModule(network), rows(10), PLAIN, progress=lambda stage, _: said.append(stage))
    assert len(history.losses) == 3
    assert said[0] == "note: there are 10 rows, fewer than a batch of 24: all of them are one batch"
    said.clear()
    fit(
        OnnxModule(network),
        rows(),
        FitSettings(epochs=1, patience=1),
        progress=lambda stage, _: said.append(stage),
    )
    assert said[0].startswith("note: patience needs validation data")


def test_a_loss_that_nothing_reaches_or_that_is_no_number_alone_is_one_sentence(network):
    with pytest.raises(InputError, match="nothing that trains"):
        fit(OnnxModule(network), rows(), PLAIN, loss=lambda outputs, labels: torch.zeros(()))
    with pytest.raises(InputError, match=r"this one has the shape \[24\]"):
        fit(OnnxModule(network), rows(), PLAIN, loss=lambda outputs, labels: outputs.mean(1))


def test_bytes_and_mixed_labels_train(network):
    from farrier_converters.training.augment import Mixup

    x, y = task()
    coarse = np.clip(np.round(x * 20 + 128), 0, 255).astype(np.uint8)
    assert len(fit(OnnxModule(network), Rows({"x": coarse}, y, batch=24), PLAIN).losses) == 3
    module = OnnxModule(network)
    fit(module, rows(mix=Mixup(CLASSES)), FitSettings(epochs=6, learning_rate=0.05))
    held, known = task(seed=7)
    assert (module(torch.from_numpy(held)).argmax(1).numpy() == known).mean() > 0.8


def test_probed_threads_change_nothing_but_the_time(network):
    found = []
    for threads in (1, 0):
        module = OnnxModule(network)
        found.append(fit(module, rows(), FitSettings(epochs=2, threads=threads)).losses)
    assert np.allclose(*found, rtol=1e-4)


def test_a_binary_and_a_token_model_train(make_model):
    rng = np.random.default_rng(0)
    weight = {"w": (rng.standard_normal((6, 1)) * 0.1).astype(np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Sigmoid", ["s"], ["y"])]
    x = rng.standard_normal((96, 6)).astype(np.float32)
    binary = OnnxModule(make_model(nodes, {"x": ["N", 6]}, ["y"], constants=weight))
    known = (x[:, 0] > 0).astype(np.int64)
    history = fit(
        binary,
        Rows({"x": x}, known, batch=24),
        FitSettings(epochs=8, learning_rate=0.1),
        validation=Rows({"x": x}, known),
    )
    assert history.scores[-1] > 0.9
    tokens = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": ["N", 5, 6]},
        ["y"],
        constants={"w": np.zeros((6, 4), np.float32)},
    )
    x = rng.standard_normal((96, 5, 6)).astype(np.float32)
    history = fit(
        OnnxModule(tokens),
        Rows({"x": x}, x[..., :4].argmax(-1), batch=24),
        FitSettings(epochs=8, learning_rate=0.1),
    )
    assert history.losses[-1] < 0.6 * history.losses[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_rate_that_is_too_high_is_lowered(network, optimizer):
    lost, said, probed = [], [], []
    module = OnnxModule(network)
    before = weights(module)

    class First(Hook):
        def start(self, module):
            probed.append(weights(module))

    for tested in (False, True):
        settings = FitSettings(epochs=4, optimizer=optimizer, learning_rate=3.0, test_rate=tested)
        module = OnnxModule(network)
        try:
            history = fit(
                module,
                rows(),
                settings,
                hooks=[First()],
                progress=lambda stage, _share: said.append(stage) if stage.startswith("note") else None,
            )
            lost.append(history.losses[-1])
        except InputError:
            lost.append(math.inf)
    assert lost[1] < 0.6 < lost[0]
    assert all(torch.equal(before[name], value) for name, value in probed[1].items())
    (note,) = [stage for stage in said if "range test" in stage]
    assert 0.003 <= float(note.split()[5]) < 1


def test_a_rate_that_is_not_too_high_stays(network):
    losses = []
    for tested in (False, True, None):
        settings = FitSettings(epochs=2, learning_rate=0.002, test_rate=tested)
        losses.append(fit(OnnxModule(network), rows(), settings).losses)
    assert losses[0] == losses[1] == losses[2]


def test_networks_with_folded_norms_are_tested_without_being_asked(make_model, resnet20, apply):
    from farrier_converters.training.fit.rate import called_for

    assert called_for(OnnxModule(apply(resnet20, "fuse")))
    assert not called_for(OnnxModule(resnet20))


def test_data_that_can_be_read_once_serves_one_epoch(network):
    history = fit(OnnxModule(network), iter(list(rows()(0))), FitSettings(epochs=1))
    assert len(history.losses) == 1
    for more in ({"epochs": 2}, {"epochs": 1, "threads": 0}, {"epochs": 1, "test_rate": True}):
        with pytest.raises(InputError, match="only once"):
            fit(OnnxModule(network), iter(list(rows()(0))), FitSettings(**more))
