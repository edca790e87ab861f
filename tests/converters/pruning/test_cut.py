"""The dependency graph, and what cutting leaves: equal to the masked dense twin."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier_contracts.errors import InputError
from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto
from farrier_converters.pruning.cut import cut
from farrier_converters.pruning.group import Groups, groups_of
from farrier_converters.pruning.mask import masked


def _model(nodes: list, weights: dict[str, np.ndarray], outputs: list[str], channels: int = 3) -> Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return from_proto(onnx.shape_inference.infer_shapes(proto), "g")


def _conv(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 0.3, shape).astype(np.float32)


def _residual() -> Model:
    rng = np.random.default_rng(0)
    weights = {
        "a": _conv(rng, 16, 3, 3, 3),
        "b": _conv(rng, 24, 16, 3, 3),
        "bias": _conv(rng, 24),
        "c": _conv(rng, 16, 24, 1, 1),
        "d": _conv(rng, 10, 16),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["a.y"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["a.y"], ["a.z"]),
        helper.make_node("Conv", ["a.z", "b", "bias"], ["b.y"], name="inner", pads=[1] * 4),
        helper.make_node("Sigmoid", ["b.y"], ["b.z"]),
        helper.make_node("Conv", ["b.z", "c"], ["c.y"], name="outer"),
        helper.make_node("Add", ["a.z", "c.y"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "d"], ["y"], name="head", transB=1),
    ]
    return _model(nodes, weights, ["y"])


def _gone(groups: Groups, share: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.choice(group.units, int(group.size * share), replace=False) for group in groups.groups]
    )


def _agree(model: Model, groups: Groups, gone: np.ndarray) -> None:
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    pruned, twin = cut(groups, gone), masked(groups, gone)
    onnx.checker.check_model(pruned.proto, full_check=True)
    left, right, dense = (run.once(m.proto, feeds)[0] for m in (pruned, twin, model))
    assert left.shape == dense.shape
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    assert np.abs(left - dense).max() > 1e-3  # what went did matter


def test_residual_sums_tie_their_channels() -> None:
    groups = groups_of(_residual())
    assert [(group.name, group.size) for group in groups.groups] == [("stem", 16), ("inner", 24)]
    stem = groups.named("stem")
    assert {(p.tensor, p.axis, p.makes) for p in stem.places} == {
        ("a", 0, True),
        ("b", 1, False),
        ("c", 0, True),
        ("d", 1, False),
    }
    (frozen,) = groups.frozen
    assert frozen.node == "head"
    assert "output" in frozen.reason


@pytest.mark.parametrize("seed", range(3))
def test_cut_equals_masked(seed: int) -> None:
    model = _residual()
    groups = groups_of(model)
    gone = _gone(groups, 0.4, seed)
    _agree(model, groups, gone)
    assert groups.multiply_adds(gone) == groups_of(cut(groups, gone)).multiply_adds()


def test_a_whole_layer_is_not_removed() -> None:
    groups = groups_of(_residual())
    with pytest.raises(InputError, match="nothing would be left"):
        cut(groups, groups.named("inner").units)


def test_shuffled_channels_go_in_pairs() -> None:
    rng = np.random.default_rng(2)
    weights = {
        "a": _conv(rng, 16, 3, 3, 3),
        "five": np.array([0, 2, 8, 8, 8], np.int64),
        "four": np.array([0, 16, 8, 8], np.int64),
        "b": _conv(rng, 4, 16, 1, 1),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["a.y"], name="stem", pads=[1] * 4),
        helper.make_node("Reshape", ["a.y", "five"], ["parts"]),
        helper.make_node("Transpose", ["parts"], ["turned"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["turned", "four"], ["shuffled"]),
        helper.make_node("Conv", ["shuffled", "b"], ["y"], name="head"),
    ]
    model = _model(nodes, weights, ["y"])
    groups = groups_of(model)
    assert [group.size for group in groups.groups] == [8]
    assert {p.positions.shape for p in groups.groups[0].places} == {(8, 2)}
    _agree(model, groups, _gone(groups, 0.5, 0))


def test_models_in_integers_are_refused() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    with pytest.raises(InputError, match="prune the float model"):
        groups_of(_model(nodes, {"s": np.array(0.1, np.float32)}, ["y"]))
