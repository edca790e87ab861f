"""Concat, Split, Slice and Pad: channels are put together and taken apart, and stored sizes follow."""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.edit import Graph, set_attribute
from ..labels import STAYS
from ..site import Kept, Site
from .pick import left, pick_behind
from .shapes import fit_shape, kept_along, stays_along

ALL = 1 << 30  # an end of a Slice behind any


def concat(site: Site) -> None:
    """Follow Concat: on the axis of the channels they follow each other, on others they fall together."""
    rank = len(site.made_shape().sizes)
    axis = int(site.attribute("axis")) % rank
    given = [site.labels(p) for p in range(len(site.node.input))]
    found = [labels for labels in given if labels is not None]
    if not found:
        return
    if any(labels.shape[axis] > 1 for labels in found):
        parts = []
        for position, labels in enumerate(given):
            parts.append(_part(site, position, labels, axis))
        rest = np.broadcast_shapes(
            *(tuple(1 if a == axis else size for a, size in enumerate(part.shape)) for part in parts)
        )
        parts = [
            np.broadcast_to(p, tuple(p.shape[a] if a == axis else rest[a] for a in range(rank)))
            for p in parts
        ]
        _constants_follow(site, parts, axis)
        site.set(np.concatenate(parts, axis=axis))
        return
    for labels in found[1:]:
        site.units.tie(found[0], labels)
    for position, labels in enumerate(given):
        if labels is None:
            beside(site, position, found[0])
    site.set(found[0])


def beside(site: Site, position: int, labels: np.ndarray) -> None:
    """Cut a constant that has to lose what others of the same size lose; anything else keeps it."""
    axes = [axis for axis, size in enumerate(labels.shape) if size > 1]
    if len(axes) != 1 or not site.stored(position):
        site.freeze(labels, "what they are joined with stays")
    else:
        site.slot(position, axes[0], labels.reshape(-1), makes=True)


def _part(site: Site, position: int, labels: np.ndarray | None, axis: int) -> np.ndarray:
    """Return labels of one input that span the axis; what stays stands as such."""
    size = site.shape(position)[axis]
    if labels is None:
        return np.full([size if a == axis else 1 for a in range(len(site.shape(position)))], STAYS, np.int64)
    shape = [size if a == axis else labels.shape[a] for a in range(labels.ndim)]
    return np.broadcast_to(labels, shape)


def _constants_follow(site: Site, parts: list[np.ndarray], axis: int) -> None:
    """Let labels on other axes stay where an input without them is joined on the channels' axis."""
    for part in parts:
        others = [a for a in range(part.ndim) if a != axis and part.shape[a] > 1]
        if others and any(bool((p == STAYS).all()) for p in parts):
            for p in parts:
                site.freeze(p, "what they are joined with stays")
            return


def split(site: Site) -> None:
    """Follow Split: each part takes its labels, and keeps as many channels as stay of them."""
    labels = site.labels(0)
    if labels is None:
        return
    axis = int(site.attribute("axis", 0)) % labels.ndim
    sizes = [site.made_shape(p).sizes[axis] for p in range(len(site.node.output))]
    if labels.shape[axis] == 1:
        for position in range(len(sizes)):
            site.set(labels, position)
        return
    parts = np.split(labels, np.cumsum(sizes)[:-1], axis=axis)
    for position, part in enumerate(parts):
        site.set(part, position)

    def change(graph: Graph, node: onnx.NodeProto, kept: Kept) -> None:
        counts = [kept_along(part, axis, kept) for part in parts]
        if graph.opset < 13:
            set_attribute(node, "split", counts)
            return
        name = graph.add_constant(f"{node.output[0]}/split", np.array(counts, np.int64))
        del node.input[1:]
        node.input.append(name)
        fields = [field for field in node.attribute if field.name != "num_outputs"]
        del node.attribute[:]
        node.attribute.extend(fields)

    site.change(change)


def bounds(site: Site) -> list[tuple[int, int, int, int]] | None:
    """Return (axis, start, end, step) of a Slice as given; None where they are computed."""
    rank = len(site.shape(0))
    if site.graph.opset < 10:
        starts, ends = site.attribute("starts"), site.attribute("ends")
        axes, steps = site.attribute("axes"), None
    else:
        starts, ends = site.constant(1), site.constant(2)
        axes = site.constant(3) if site.has(3) else None
        steps = site.constant(4) if site.has(4) else None
        if (
            starts is None
            or ends is None
            or (site.has(3) and axes is None)
            or (site.has(4) and steps is None)
        ):
            return None
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    return [
        (int(a) % rank, int(s), int(e), int(t)) for a, s, e, t in zip(axes, starts, ends, steps, strict=True)
    ]


def slice_(site: Site) -> None:
    """Follow Slice: on the channels' axis its bounds move to what stays of them."""
    labels = site.source()
    if labels is None:
        return
    found = bounds(site)
    if found is None:
        axes = site.constant(3) if site.has(3) else np.arange(site.shape(1)[0])
        if axes is None or any(labels.shape[int(axis)] > 1 for axis in axes):
            site.freeze(labels, "it is sliced at places that are computed")
        site.set(labels)
        return
    places = {
        axis: np.arange(labels.shape[axis])[slice(start, end, step)]
        for axis, start, end, step in found
        if labels.shape[axis] > 1
    }
    part = labels
    for axis, chosen in places.items():
        part = np.take(part, chosen, axis=axis)
    site.set(part)

    def change(graph: Graph, node: onnx.NodeProto, kept: Kept) -> None:
        moved, strides = [], []
        for axis, start, end, step in found:
            stepped = axis in places and step != 1
            moved.append((0, ALL) if stepped else _moved_bounds(labels, axis, (start, end), kept))
            strides.append(1 if stepped else step)
            if stepped:
                pick_behind(graph, node, axis, left(labels, axis, places[axis], kept))
        _set_bounds(graph, node, moved, [axis for axis, *_ in found], strides)

    if places:
        site.change(change)


def _moved_bounds(labels: np.ndarray, axis: int, given: tuple[int, int], kept: Kept) -> tuple[int, int]:
    """Return where a slice starts and ends among what stays."""
    if labels.shape[axis] == 1:
        return given
    stays = stays_along(labels, axis, kept)
    first, last, _ = slice(*given).indices(len(stays))
    start = int(stays[:first].sum())
    return start, start + int(stays[first : max(last, first)].sum())


def _set_bounds(
    graph: Graph, node: onnx.NodeProto, moved: list[tuple[int, int]], axes: list[int], steps: list[int]
) -> None:
    starts, ends = [start for start, _ in moved], [end for _, end in moved]
    if graph.opset < 10:
        set_attribute(node, "starts", starts)
        set_attribute(node, "ends", ends)
        return
    values = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    for position, (name, value) in enumerate(values.items(), start=1):
        if len(node.input) > position and node.input[position]:
            node.input[position] = graph.add_constant(f"{node.output[0]}/{name}", np.array(value, np.int64))


def pad(site: Site) -> None:
    """Follow Pad: padded channels of zeros are units of their own, and go as others do."""
    labels = site.labels(0)
    if labels is None:
        return
    rank = labels.ndim
    given = site.constant(1) if site.graph.opset >= 11 else site.attribute("pads")
    axes = site.constant(3) if site.has(3) else np.arange(rank)
    if given is None or axes is None:
        site.freeze(labels, "it is padded by sizes that are computed")
        return
    before, after = np.zeros(rank, int), np.zeros(rank, int)
    for position, axis in enumerate(np.asarray(axes) % rank):
        before[axis], after[axis] = given[position], given[position + len(axes)]
    widened = [a for a in range(rank) if before[a] or after[a]]
    touched = [a for a in widened if labels.shape[a] > 1]
    if not touched:
        site.set(labels)
        return
    mode = site.attribute("mode", b"constant")
    if mode != b"constant" or min(before[touched].min(), after[touched].min()) < 0 or len(touched) > 1:
        site.freeze(labels, "it is padded with other values than zeros")
        return
    axis = touched[0]
    made = [_fresh(site, labels, axis, int(count)) for count in (before[axis], after[axis])]
    site.set(np.concatenate([made[0], labels, made[1]], axis=axis))

    def change(graph: Graph, node: onnx.NodeProto, kept: Kept) -> None:
        counts = [kept_along(part, axis, kept) if part.size else 0 for part in made]
        sizes = [*before, *after]
        sizes[axis], sizes[axis + rank] = counts
        if graph.opset < 11:
            set_attribute(node, "pads", [int(size) for size in sizes])
            return
        node.input[1] = graph.add_constant(f"{node.output[0]}/pads", np.array(sizes, np.int64))
        del node.input[3:]

    site.change(change)


def _fresh(site: Site, labels: np.ndarray, axis: int, count: int) -> np.ndarray:
    shape = [count if a == axis else 1 for a in range(labels.ndim)]
    made = site.new(count).reshape(shape)
    return np.broadcast_to(made, [count if a == axis else labels.shape[a] for a in range(labels.ndim)])


def resize(site: Site) -> None:
    """Follow Resize and Upsample: channels pass where their axis keeps its size; sizes become scales where needed."""
    labels = site.labels(0)
    if labels is None:
        return
    channels = [a for a in range(labels.ndim) if labels.shape[a] > 1]
    if any(site.shape(0)[a] != site.made_shape().sizes[a] for a in channels):
        site.freeze(labels, "they are interpolated")
        return
    if site.attribute("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        site.freeze(labels, "its sizes depend on each other")
        return
    site.set(labels)
    if site.node.op_type != "Resize" or not site.has(3):
        return
    axes = [int(a) % labels.ndim for a in site.attribute("axes", range(labels.ndim))]
    counted = np.array([axis in channels for axis in axes], bool)

    def change(graph: Graph, node: onnx.NodeProto, kept: Kept) -> None:
        sizes = [kept_along(labels, axis, kept) if axis in channels else 0 for axis in axes]
        fit_shape(graph, node, counted, np.array(sizes, np.int64), position=3)

    if counted.any():
        site.change(change)


RULES = {
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Pad": pad,
    "Resize": resize,
    "Upsample": resize,
}
