"""Two operators in a row that only move values: one of them is enough, or none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from ...graph.edit import attribute, set_attribute, standard
from ..record import Rewrite, Rule
from ..rewriting import can_alias
from ..site import Site, copy

RESHAPERS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
TYPES = onnx.TensorProto
# element types whose every value the other type can hold
WIDER: dict[int, tuple[int, ...]] = {
    TYPES.FLOAT16: (TYPES.FLOAT, TYPES.DOUBLE),
    TYPES.BFLOAT16: (TYPES.FLOAT, TYPES.DOUBLE),
    TYPES.FLOAT: (TYPES.DOUBLE,),
    TYPES.INT8: (TYPES.INT16, TYPES.INT32, TYPES.INT64),
    TYPES.UINT8: (TYPES.INT16, TYPES.INT32, TYPES.INT64),
    TYPES.INT16: (TYPES.INT32, TYPES.INT64),
    TYPES.INT32: (TYPES.INT64, TYPES.DOUBLE),
    TYPES.BOOL: (TYPES.UINT8, TYPES.INT8, TYPES.INT32, TYPES.INT64, TYPES.FLOAT16, TYPES.FLOAT, TYPES.DOUBLE),
}


def transposes(site: Site, second: onnx.NodeProto) -> Rewrite | None:
    """Join two Transposes, or drop both where the second undoes the first."""
    first = site.maker(second.input[0], "Transpose")
    inner, outer = (site.order(node) if node is not None else [] for node in (first, second))
    if first is None or not inner or len(inner) != len(outer):
        return None
    order = [inner[axis] for axis in outer]
    if order == sorted(order):
        return _bypass(site, second, first)
    joined = copy(second)
    joined.input[0] = first.input[0]
    set_attribute(joined, "perm", order)
    return _replaced(site, first, second, joined)


def reshapes(site: Site, second: onnx.NodeProto) -> Rewrite | None:
    """Leave out what a later Reshape overrules, and pairs that give back the shape they were given."""
    first = site.maker(second.input[0], *RESHAPERS)
    if first is None:
        return None
    start, end = site.fixed(first.input[0]), site.fixed(second.output[0])
    if (start is not None and start == end) or _undone(site, first, second):
        return _bypass(site, second, first)
    if not standard(second, "Reshape", "Flatten") or site.graph.only_reader(second.input[0]) is not second:
        return None
    joined = copy(second)
    joined.input[0] = first.input[0]
    if second.op_type == "Flatten":
        return _flattened(site, first, second, joined)
    target = site.numbers(second, 1, "shape")
    return None if target is None or 0 in target else _replaced(site, first, second, joined)


def _flattened(
    site: Site, first: onnx.NodeProto, second: onnx.NodeProto, joined: onnx.NodeProto
) -> Rewrite | None:
    """Join a Flatten with what came before, where that left the flattened rows alone."""
    before, between = site.shape(first.input[0]), site.shape(second.input[0])
    if attribute(second, "axis", 1) != 1 or not before or not between or before[0] != between[0]:
        return None
    kept = before[0] is not None or standard(first, "Squeeze")
    return _replaced(site, first, second, joined) if kept else None


def _undone(site: Site, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    """Say whether one of the two nodes inserts just the axes that the other one takes out."""
    if {first.op_type, second.op_type} != {"Squeeze", "Unsqueeze"}:
        return False
    axes = [site.numbers(node, 1, "axes") for node in (first, second)]
    rank = site.rank(first.input[0]) if first.op_type == "Squeeze" else site.rank(first.output[0])
    if axes[0] is None or axes[1] is None or rank is None:
        return False
    return sorted(a % rank for a in axes[0]) == sorted(a % rank for a in axes[1])


def casts(site: Site, second: onnx.NodeProto) -> Rewrite | None:
    """Leave out a Cast to a type that holds every value of the one before, since nothing is lost on the way."""
    first = site.maker(second.input[0], "Cast")
    kind = None if first is None else site.types.get(first.input[0])
    if first is None or kind is None or attribute(first, "to") not in WIDER.get(kind.dtype, ()):
        return None
    if attribute(second, "to") == kind.dtype:
        return _bypass(site, second, first)
    joined = copy(second)
    joined.input[0] = first.input[0]
    return _replaced(site, first, second, joined)


def slices(site: Site, second: onnx.NodeProto) -> Rewrite | None:
    """Join two Slices along different axes."""
    first = site.maker(second.input[0], "Slice")
    if first is None or site.opset < 10 or site.graph.only_reader(second.input[0]) is not second:
        return None
    parts = [_ranges(site, node) for node in (first, second)]
    if parts[0] is None or parts[1] is None or set(parts[0][2]) & set(parts[1][2]):
        return None
    names = ("starts", "ends", "axes", "steps")
    joined = copy(second)
    values = [np.array(a + b, np.int64) for a, b in zip(parts[0], parts[1], strict=True)]
    constants = [
        site.graph.add_constant(f"{second.output[0]}_{n}", v) for n, v in zip(names, values, strict=True)
    ]
    joined.input[:] = [first.input[0], *constants]
    return _replaced(site, first, second, joined)


def _ranges(site: Site, node: onnx.NodeProto) -> tuple[list[int], list[int], list[int], list[int]] | None:
    starts, ends = site.numbers(node, 1, "starts"), site.numbers(node, 2, "ends")
    axes, steps = site.numbers(node, 3, "axes"), site.numbers(node, 4, "steps")
    rank = site.rank(node.input[0])
    if (
        starts is None
        or ends is None
        or rank is None
        or (len(node.input) > 3 and node.input[3] and axes is None)
    ):
        return None
    if len(node.input) > 4 and node.input[4] and steps is None:
        return None
    places = [axis % rank for axis in axes] if axes is not None else list(range(len(starts)))
    return starts, ends, places, steps or [1] * len(starts)


def concats(site: Site, second: onnx.NodeProto) -> Rewrite | None:
    """Take the parts of a Concat that only another one along the same axis reads, or all that a Split made."""
    whole = _split_whole(site, second)
    if whole is not None:
        return whole
    axis, rank = attribute(second, "axis"), site.rank(second.output[0])
    for position, name in enumerate(second.input):
        first = site.maker(name, "Concat")
        if first is None or site.graph.only_reader(name) is not second or rank is None:
            continue
        if (attribute(first, "axis") - axis) % rank == 0:
            joined = copy(second)
            joined.input[:] = [*second.input[:position], *first.input, *second.input[position + 1 :]]
            return _replaced(site, first, second, joined)
    return None


def _split_whole(site: Site, concat: onnx.NodeProto) -> Rewrite | None:
    split, rank = site.maker(concat.input[0], "Split"), site.rank(concat.output[0])
    if split is None or rank is None or list(split.output) != list(concat.input):
        return None
    same = (attribute(split, "axis", 0) - attribute(concat, "axis")) % rank == 0
    return _bypass(site, concat, split) if same else None


def _bypass(site: Site, second: onnx.NodeProto, first: onnx.NodeProto) -> Rewrite | None:
    """Let readers of the second node read what the first one reads."""
    source, result = first.input[0], second.output[0]
    if not can_alias(site.graph, result, source):
        return None
    old = (first, second) if site.closed((first, second), [result]) else (second,)
    if len(old) == 1:  # the proof needs the first node too, which stays
        return Rewrite((first, second), (first,), {result: source})
    return Rewrite(old, aliases={result: source})


def _replaced(site: Site, first: onnx.NodeProto, second: onnx.NodeProto, joined: onnx.NodeProto) -> Rewrite:
    """Put one node in place of both, or of the second where something else reads the first one's result too."""
    alone = site.closed((first, second), [second.output[0]])
    return Rewrite((first, second), (joined,) if alone else (first, joined))


def _rule(name: str, ops: tuple[str, ...], find: Callable[[Site, onnx.NodeProto], Rewrite | None]) -> Rule:
    return Rule(name, ops, find, exact=True)


MOVES = (
    _rule("transposes in a row", ("Transpose",), transposes),
    _rule("reshapes in a row", ("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshapes),
    _rule("casts in a row", ("Cast",), casts),
    _rule("slices in a row", ("Slice",), slices),
    _rule("concats in a row", ("Concat",), concats),
)
