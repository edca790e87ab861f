"""The pass without training: zeros where they belong, data that is used, options that contradict each other."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from onnx import numpy_helper
from sparse_models import KINDS, batches, channels_last, classifier, correlated, layer

from farrier_contracts import targets
from farrier_contracts.errors import InputError, UsageError
from farrier_converters import passes
from farrier_converters.compilers.tensorrt.recipe import build_of
from farrier_converters.graph import run
from farrier_converters.passes.sparsify import SPARSIFY, SparsifyOptions, sparsify
from farrier_converters.sparsity import importance, inputs, layers, patterns
from farrier_converters.sparsity.sparsegpt import sparsegpt, squared_error

NOTHING = passes.Context()


def calibrated(name: str, *shape: int) -> passes.Context:
    return passes.Context(calibration=lambda: iter({name: correlated(16, *shape, seed=i)} for i in range(4)))


def weights(model, name: str = "w") -> np.ndarray:
    return next(numpy_helper.to_array(t) for t in model.proto.graph.initializer if t.name == name)


def test_the_smallest_weights_of_the_whole_network_go_and_nothing_else_changes():
    model = classifier()
    made = sparsify(model, SparsifyOptions(ratio=0.8), NOTHING)
    assert made.history is None
    assert made.report.sparsity == pytest.approx(0.8, abs=1e-3)
    kept, gone = [], []
    for before, after in zip(model.proto.graph.initializer, made.model.proto.graph.initializer, strict=True):
        old, new = numpy_helper.to_array(before), numpy_helper.to_array(after)
        if before.name not in ("w1", "w2", "w3"):
            assert before == after
            continue
        assert np.array_equal(new[new != 0], old[new != 0])
        kept.append(np.abs(old[new != 0]))
        gone.append(np.abs(old[new == 0]))
    assert np.concatenate(gone).max() <= np.sort(np.concatenate(kept))[2]  # outputs may keep their only one
    assert list(made.model.proto.graph.node) == list(model.proto.graph.node)
    assert sparsify(model, SparsifyOptions(ratio=0.8), NOTHING).model.proto == made.model.proto


def test_the_report_says_what_stayed_dense_and_why():
    options = SparsifyOptions(pattern="2:4", exclude=("last",))
    made = sparsify(classifier(), options, NOTHING)
    assert [(one.label, one.sparsity, one.follows) for one in made.report.layers] == [
        ("first", 0.5, True),
        ("second", 0.5, True),
    ]
    assert made.report.rows() == [
        ("first", "Conv", "8x4x3x3", "50.0%", ""),
        ("second", "Conv", "16x8x3x3", "50.0%", ""),
        ("last", "Gemm", "", "dense", layers.EXCLUDED),
        ("all sparse layers", "", "1440 weights", "50.0%", ""),
    ]
    with pytest.raises(InputError, match="no multiple of 3"):
        sparsify(layer("gemm"), SparsifyOptions(pattern="1:3"), NOTHING)


def test_tensorrt_gets_its_flag_from_a_model_with_the_pattern_and_only_then():
    toolchain = targets.get("jetson-orin").toolchains[0]
    assert not build_of(classifier(), toolchain).sparse
    assert build_of(sparsify(classifier(), SparsifyOptions(pattern="2:4"), NOTHING).model, toolchain).sparse
    old = targets.get("jetson-nano").toolchains[0]
    assert not build_of(sparsify(classifier(), SparsifyOptions(pattern="2:4"), NOTHING).model, old).sparse


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", importance.CALIBRATED)
@pytest.mark.parametrize("pattern", ["unstructured", "1:2", "2x2"])
def test_methods_with_data_keep_more_of_every_layer_s_outputs_than_size_alone(kind, method, pattern):
    if KINDS[kind][1][1] == 1:
        pattern = "unstructured"
    if "group" in KINDS[kind][3] and pattern == "2x2":
        pattern = "1x2"  # groups have odd numbers of outputs
    model, feeds = layer(kind, seed=1), batches(kind)
    context = passes.Context(calibration=lambda: iter(feeds))
    options = {"ratio": 0.5, "pattern": pattern, "scope": "layer"}
    by_size = sparsify(model, SparsifyOptions(**options), context).model
    found = sparsify(model, SparsifyOptions(importance=method, **options), context)

    def error(other) -> float:
        total = 0.0
        for batch in feeds:
            wanted, got = (channels_last(kind, run.once(m.proto, batch)[0]) for m in (model, other))
            total += float(np.square(wanted - got).sum())
        return total

    assert found.report.layers[0].follows
    assert found.report.layers[0].note == ""
    limit = {"wanda": 1.05, "sparsegpt": 0.95}[method]  # wanda knows no correlations
    assert error(found.model) < limit * error(by_size)


def test_wanda_takes_the_weights_whose_inputs_are_small():
    value = np.ones((4, 6), np.float32) + np.arange(24, dtype=np.float32).reshape(4, 6) / 1000
    model = layer("gemm")
    model.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(value, "w"))
    loud = np.array([0.01, 5.0, 0.02, 7.0], np.float32)
    context = passes.Context(calibration=lambda: iter([{"x": np.tile(loud, (5, 1))}]))
    made = sparsify(model, SparsifyOptions(ratio=0.5, importance="wanda"), context)
    assert np.array_equal(weights(made.model) != 0, np.tile([[False], [True], [False], [True]], (1, 6)))


def test_sparsegpt_moves_kept_weights_to_where_least_squares_puts_them():
    x = correlated(200, 8).astype(np.float64)
    cube = np.random.default_rng(3).standard_normal((4, 8, 1)).astype(np.float32)
    moments = x.T @ x
    found = sparsegpt(cube, moments, patterns.UNSTRUCTURED, 0.5)
    assert found is not None
    dense, sparse = cube[:, :, 0].astype(np.float64), found[:, :, 0]
    masked = np.where(sparse != 0, dense, 0)
    best = np.zeros_like(dense)
    for row, kept in enumerate(sparse != 0):
        best[row, kept] = np.linalg.lstsq(x[:, kept], x @ dense[row], rcond=None)[0]
    errors = [squared_error(dense - other, moments) for other in (best, sparse, masked)]
    assert errors[0] <= errors[1] < 0.7 * errors[2]


def test_inputs_that_are_always_zero_tell_nothing_and_size_decides():
    context = passes.Context(calibration=lambda: iter([{"x": np.zeros((5, 4), np.float32)}]))
    by_size = sparsify(layer("gemm"), SparsifyOptions(ratio=0.5, scope="layer"), NOTHING)
    found = sparsify(layer("gemm"), SparsifyOptions(ratio=0.5, importance="sparsegpt"), context)
    assert np.array_equal(weights(found.model), weights(by_size.model))


def test_recurrent_states_cannot_be_observed_and_the_report_says_so():
    from sparse_models import helper, make

    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((1, 12, 4)).astype(np.float32),
        "r": rng.standard_normal((1, 12, 4)).astype(np.float32),
    }
    nodes = [helper.make_node("GRU", ["x", "w", "r"], ["y"], name="gru", hidden_size=4)]
    model = make(nodes, {"x": ["T", 2, 4]}, ["y"], constants)
    context = passes.Context(calibration=lambda: iter([{"x": correlated(10, 2, 4)}]))
    for method in importance.CALIBRATED:
        report = sparsify(model, SparsifyOptions(ratio=0.5, importance=method), context).report
        assert [one.note for one in report.layers] == ["", importance.UNSEEN]
        assert report.sparsity == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ratio": 1.0}, "below 100 %"),
        ({"ratio": -0.1}, "below 100 %"),
        ({"ratio": float("nan")}, "below 100 %"),
        ({"ratio": 0.9, "pattern": "2:4"}, "has a sparsity of 50% and no other, not 90%"),
        ({"pattern": "4y1"}, "unknown pattern"),
        ({"importance": "luck"}, "unknown importance 'luck'"),
        ({"scope": "everywhere"}, "unknown scope"),
        ({"schedule": "later"}, "unknown schedule"),
        ({"importance": "wanda", "scope": "global"}, "compares weights within output or layer"),
        ({"importance": "wanda"}, "needs calibration data"),
        ({"importance": "sparsegpt"}, "needs calibration data"),
        ({"importance": "snip"}, "'snip' needs training data"),
        ({"schedule": "cubic"}, "training needs training data"),
        ({"importance": "movement"}, "choose the schedule"),
        ({"importance": "snip", "schedule": "cubic"}, "is known once"),
        ({"exclude": ("nowhere",)}, "no layer called 'nowhere'"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(options, says):
    with pytest.raises(UsageError, match=says) as raised:
        SPARSIFY.run(classifier(), SparsifyOptions(**options), NOTHING)
    assert "\n" not in str(raised.value)


def test_a_ratio_that_would_empty_outputs_is_refused_before_any_work():
    with pytest.raises(InputError, match=r"would empty whole outputs, first of 'w3'; at most 98\.1%"):
        sparsify(classifier(), SparsifyOptions(ratio=0.99), NOTHING)
    depthwise = sparsify(layer("depthwise"), SparsifyOptions(ratio=0.88, scope="layer"), NOTHING)
    assert depthwise.report.sparsity < 0.88 + 1e-9


def test_data_of_another_shape_is_refused():
    context = passes.Context(calibration=lambda: iter([{"images": np.zeros((1, 3, 8, 8), np.float32)}]))
    with pytest.raises(InputError, match="does not fit the model"):
        sparsify(classifier(), SparsifyOptions(importance="wanda"), context)
    empty = passes.Context(calibration=lambda: iter([]))
    with pytest.raises(InputError, match="no samples"):
        sparsify(classifier(), SparsifyOptions(importance="wanda"), empty)


def test_sparsity_needs_no_torch():
    code = "import sys, farrier_converters.passes.sparsify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sites_of_a_model_are_read_once_for_what_they_share():
    model = classifier()
    found = layers.find(model).layers
    moments = inputs.second_moments(
        model, list(found.values()), calibrated("images", 4, 8, 8).calibration, lambda _share: None
    )
    assert {layer.weight: value.shape for layer, value in moments.items()} == {
        "w1": (1, 36, 36),
        "w2": (1, 72, 72),
        "w3": (1, 16, 16),
    }
