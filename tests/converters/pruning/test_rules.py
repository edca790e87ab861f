"""Operator by operator: how many of eight channels may go behind each, and that the pruned graph equals its twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto
from farrier_converters.pruning.cut import cut
from farrier_converters.pruning.group import groups_of
from farrier_converters.pruning.mask import masked

CHANNELS, SIDE = 8, 4
RNG = np.random.default_rng(5)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.6, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def node(op: str, *inputs: str, out: str | Sequence[str] = "z", **attributes: object) -> NodeProto:
    outputs = [out] if isinstance(out, str) else list(out)
    return helper.make_node(op, list(inputs), outputs, name=f"{op} {outputs[-1]}", **attributes)


@dataclass(frozen=True)
class Case:
    """Nodes from c [n, 8, 4, 4] to z; `sizes` are those of the stem's groups, () where all of it stays."""

    nodes: Sequence[NodeProto]
    sizes: tuple[int, ...] = (CHANNELS,)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    opset: int = 17
    reason: str = ""


STEM = floats(CHANNELS, 3, 1, 1)
ROWS = node("Transpose", "c", out="rows", perm=[0, 2, 3, 1])  # [n, 4, 4, 8]
STEPS = node("Reshape", "rows", "flat", out="steps")  # [n, 16, 8]
FLAT = {"flat": ints(0, 16, CHANNELS)}
STEPS_FIRST = (ROWS, STEPS, node("Transpose", "steps", out="s", perm=[1, 0, 2]))
CASES = {
    "LRN": Case([node("LRN", "c", size=3, alpha=0.5)]),
    "GroupNormalization": Case(
        [node("GroupNormalization", "c", "scale", "bias", num_groups=2)],
        (4,), {"scale": floats(CHANNELS), "bias": floats(CHANNELS)}, opset=21,
    ),
    "MeanVarianceNormalization": Case([node("MeanVarianceNormalization", "c", axes=[0, 2, 3])]),
    "MeanVarianceNormalization over channels": Case(
        [node("MeanVarianceNormalization", "c", axes=[1])], (), reason="goes over them"
    ),
    "LayerNormalization of maps": Case(
        [node("LayerNormalization", "c", "scale", "bias", axis=1)], (CHANNELS,),
        {"scale": floats(CHANNELS, SIDE, SIDE), "bias": floats(CHANNELS, SIDE, SIDE)},
    ),
    "TopK of places": Case(
        [node("TopK", "c", "two", out=("z", "places"), axis=3)], (CHANNELS,), {"two": ints(2)}
    ),
    "TopK of channels": Case(
        [node("TopK", "c", "two", out=("z", "places"), axis=1)], (), {"two": ints(2)}, reason="goes over them"
    ),
    "ArgMax of places": Case([node("ArgMax", "c", out="i", axis=2, keepdims=0), node("Cast", "i", to=1)]),
    "ReduceMax": Case([node("ReduceMax", "c", axes=[1])]),
    "ReduceMin": Case([node("ReduceMin", "c", axes=[1, 2], keepdims=0)]),
    "ReduceProd": Case([node("ReduceProd", "c", axes=[1])]),
    "ReduceMean of all": Case([node("ReduceMean", "c", axes=[1, 2, 3])]),
    "ReduceL2": Case([node("ReduceL2", "c", axes=[-3], keepdims=0)]),
    "ReduceLogSumExp": Case([node("ReduceLogSumExp", "c", axes=[1])], (), reason="goes over them"),
    "Softmax": Case([node("Softmax", "c", axis=2)]),
    "Softmax over channels": Case([node("Softmax", "c", axis=1)], (), reason="goes over them"),
    "Slice backwards": Case(
        [node("Slice", "c", "last", "first", "axis", "step")], (CHANNELS,),
        {"last": ints(-1), "first": ints(-100), "axis": ints(1), "step": ints(-1)},
    ),
    "Slice with steps on two axes": Case(
        [node("Slice", "c", "starts", "ends", "axes", "steps")], (3, 5),
        {"starts": ints(1, 0), "ends": ints(7, 4), "axes": ints(1, 3), "steps": ints(2, 2)},
    ),
    "Gather a table": Case(
        [node("Gather", "c", "table", axis=1)], (2, 3), {"table": ints(0, 2, 4, 1, 3, 5).reshape(2, 3)}
    ),
    "Gather one": Case([node("Gather", "c", "one", axis=1)], (7,), {"one": np.array(-2)}),
    "Gather rows": Case([node("Gather", "c", "some", axis=-1)], (CHANNELS,), {"some": ints(3, 0, 0)}),
    "Expand": Case(
        [node("GlobalAveragePool", "c", out="p"), node("Expand", "p", "shape")], (CHANNELS,),
        {"shape": ints(1, CHANNELS, 3, 1)},
    ),
    "Tile channels": Case([node("Tile", "c", "times")], (CHANNELS,), {"times": ints(1, 3, 1, 2)}),
    "Pad before channels": Case([node("Pad", "c", "pads")], (8,), {"pads": ints(0, 2, 0, 0, 0, 0, 0, 0)}),
    "Pad with ones": Case(
        [node("Pad", "c", "pads", "one")], (CHANNELS,),
        {"pads": ints(0, 0, 1, 0, 0, 0, 0, 2), "one": np.array(1, np.float32)},
    ),
    "Pad channels with ones": Case(
        [node("Pad", "c", "pads", "one")], (8,),
        {"pads": ints(0, 0, 0, 0, 0, 1, 0, 0), "one": np.array(1, np.float32)},
    ),
    "Resize to sizes": Case([node("Resize", "c", "", "", "sizes")], (CHANNELS,), {"sizes": ints(2, 8, 6, 6)}),
    "Where": Case(
        [node("Greater", "c", "scale", out="more"), node("Where", "more", "c", "scale")], (CHANNELS,),
        {"scale": floats(CHANNELS, 1, 1)},
    ),
    "PRelu": Case([node("PRelu", "c", "slope")], (CHANNELS,), {"slope": floats(CHANNELS, 1, 1)}),
    "Trilu": Case([node("Trilu", "c")]),
    "CumSum": Case([node("CumSum", "c", "axis")], (CHANNELS,), {"axis": np.array(3)}),
    "DepthToSpace": Case([node("DepthToSpace", "c", blocksize=2, mode="CRD")], (2,)),
    "SpaceToDepth": Case([node("SpaceToDepth", "c", blocksize=2)]),
    "weights from the left": Case(
        [node("Reshape", "c", "three", out="r"), node("MatMul", "w", "r")], (CHANNELS,),
        {"three": ints(0, CHANNELS, 16), "w": floats(5, CHANNELS)},
    ),
    "a product with itself": Case(
        [ROWS, STEPS, node("Transpose", "steps", out="t", perm=[0, 2, 1]), node("MatMul", "steps", "t")],
        (CHANNELS,), FLAT,
    ),
    "Einsum without an arrow": Case(
        [ROWS, STEPS, node("Einsum", "steps", "w", equation="btc, cd")], (CHANNELS,),
        FLAT | {"w": floats(CHANNELS, 6)},
    ),
    "Einsum with an ellipsis": Case(
        [ROWS, STEPS, node("Einsum", "steps", "w", equation="...c,cd->...d")], (),
        FLAT | {"w": floats(CHANNELS, 6)}, reason="equation",
    ),
    "LSTM with peepholes": Case(
        [*STEPS_FIRST, node("LSTM", "s", "W", "R", "B", "", "", "", "P", hidden_size=6)], (CHANNELS,),
        FLAT | {"W": floats(1, 24, 8), "R": floats(1, 24, 6), "B": floats(1, 48), "P": floats(1, 18)},
    ),
    "LSTM with a learned state": Case(
        [
            *STEPS_FIRST,
            node("Shape", "s", out="shape"),
            node("Gather", "shape", "second", out="n"),
            node("Concat", "one", "n", "one", out="times", axis=0),
            node("Tile", "h", "times", out="hs"),
            node("LSTM", "s", "W", "R", "", "", "hs", "hs", hidden_size=6, direction="reverse"),
        ],
        (CHANNELS,),
        FLAT | {
            "W": floats(1, 24, 8), "R": floats(1, 24, 6), "h": floats(1, 1, 6), "second": ints(1), "one": ints(1),
        },
    ),
    "GRU in both directions": Case(
        [*STEPS_FIRST, node("GRU", "s", "W", "R", hidden_size=6, direction="bidirectional", linear_before_reset=1)],
        (CHANNELS,), FLAT | {"W": floats(2, 18, 8), "R": floats(2, 18, 6)},
    ),
    "RNN with relu": Case(
        [*STEPS_FIRST, node("RNN", "s", "W", "R", out=("", "z"), hidden_size=6, activations=["Relu"])],
        (CHANNELS,), FLAT | {"W": floats(1, 6, 8), "R": floats(1, 6, 6) / 3},
    ),
    "what cannot be followed": Case(
        [node("ScatterND", "c", "where", "what")], (),
        {"where": ints(0, 1).reshape(1, 2), "what": floats(1, SIDE, SIDE)}, reason="ScatterND cannot be followed",
    ),
}  # fmt: skip


def graph(case: Case, nodes: list[NodeProto], output: str, more: dict[str, np.ndarray]) -> Model:
    constants = {"stem": STEM, **case.constants, **more}
    made = helper.make_graph(
        [node("Conv", "x", "stem", out="c"), *case.nodes, *nodes],
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", 3] if nodes else None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", case.opset)]
    proto = helper.make_model(made, opset_imports=opsets, ir_version=10)
    return from_proto(onnx.shape_inference.infer_shapes(proto), "case")


@pytest.mark.parametrize("name", CASES)
def test_channels_go_behind_an_operator(name: str) -> None:
    case = CASES[name]
    x = {"x": np.random.default_rng(3).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)}
    bare = run.once(graph(case, [], "z", {}).proto, x)[0]
    rows = len(bare) if len(bare) == 2 else 1  # a recurrent layer has steps first: all are one row then
    ends = [node("Reshape", "z", "row", out="f"), node("MatMul", "f", "head", out="y")]
    model = graph(
        case, ends, "y", {"row": ints(0 if rows == 2 else 1, -1), "head": floats(bare.size // rows, 3)}
    )
    groups = groups_of(model)
    stem = [group.size for group in groups.groups if any(place.tensor == "stem" for place in group.places)]
    assert sorted(stem) == sorted(case.sizes)
    if case.reason:
        assert any(case.reason in frozen.reason for frozen in groups.frozen)
    rng = np.random.default_rng(1)
    for share in (0.25, 0.6):
        removed = [
            rng.choice(g.units, int(np.ceil(share * (g.size - 1))), replace=False) for g in groups.groups
        ]
        gone = np.concatenate([np.array([], np.int64), *removed])
        pruned = cut(groups, gone)
        onnx.checker.check_model(pruned.proto, full_check=True)
        found, expected = (run.once(m.proto, x)[0] for m in (pruned, masked(groups, gone)))
        assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


def test_equal_biases_of_different_layers_do_not_fall_together() -> None:
    zeros = np.zeros(CHANNELS, np.float32)
    layers = [
        node("Conv", "c", "w1", "b", out="d"),
        node("BatchNormalization", "d", "one", "b", "b", "one", out="e"),
        node("Conv", "e", "w2", "b"),
    ]
    weights = {"w1": floats(CHANNELS, CHANNELS, 1, 1), "w2": floats(CHANNELS, CHANNELS, 1, 1)}
    case = Case(layers, constants=weights | {"b": zeros, "one": zeros + 1})
    ends = [
        node("GlobalAveragePool", "z", out="p"),
        node("Flatten", "p", out="f"),
        node("MatMul", "f", "head", out="y"),
    ]
    groups = groups_of(graph(case, ends, "y", {"head": floats(CHANNELS, 3)}))
    assert [group.size for group in groups.groups] == [CHANNELS] * 3
    pruned = cut(groups, groups.groups[1].units[:3])
    shapes = {tensor.name: list(tensor.dims) for tensor in pruned.proto.graph.initializer}
    assert (shapes["w1"], shapes["w2"], shapes["stem"]) == ([5, 8, 1, 1], [8, 5, 1, 1], [8, 3, 1, 1])
