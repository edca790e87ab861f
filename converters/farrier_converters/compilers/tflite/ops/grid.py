"""Sampling an image where another tensor says: gathers of the neighbours, weighed."""

from __future__ import annotations

from collections.abc import Callable

from ..builder import Builder, Held
from ..ends import channels_last
from ..errors import Code, UnsupportedError
from ..node import Handler, Node

Shares = Callable[[Builder, Held, int], Held]  # of a neighbour, by the rest of the place
MAX_PIXELS = 1 << 24
CUBIC = -0.75  # the coefficient that ONNX fixes for GridSample


def _grid_sample(b: Builder, node: Node) -> None:
    """Each output pixel reads its own places: one gather per neighbour, from the rows of its own image."""
    x = node.input(0)
    if x.rank != 4 or x.dtype != "float32":
        raise UnsupportedError(Code.RANK, "sampling of anything but images of floats")
    if x.shape[2] * x.shape[3] > MAX_PIXELS:
        raise UnsupportedError(
            Code.SHAPE, f"an image of more than {MAX_PIXELS} pixels, which float32 cannot count"
        )
    mode = node.attr("mode", "linear")
    image = b.get(x, channels_last(4))
    places = [
        _place(b, node, axis, size) for axis, size in zip(_axes(b, node), image.shape[2:0:-1], strict=True)
    ]
    if mode == "nearest":
        result = _at(b, node, image, [b.unary("ROUND", place) for place in places])
    elif mode in ("linear", "bilinear"):
        result = _weighed(b, node, image, places, (0, 1), _linear)
    else:
        result = _weighed(b, node, image, places, (-1, 0, 1, 2), _cubic)
    rows, _, height, width = node.output.shape
    b.put(node.output, b.reshape(result, (rows, height, width, x.shape[1])), channels_last(4))


def _axes(b: Builder, node: Node) -> list[Held]:
    """Return the two coordinates of the grid, horizontal first: [rows, places]."""
    held = b.get(node.input(1))
    rows, height, width, _ = held.shape
    flat = b.reshape(held, (rows, height * width, 2))
    return b.ops("UNPACK", [flat], [(rows, height * width)] * 2, held.dtype, count=2, axis=2)


def _place(b: Builder, node: Node, coordinate: Held, size: int) -> Held:
    """Turn -1..1 into places of pixels, folded back into the image where the padding says so."""
    if node.attr("align_corners", 0):
        low, high = 0.0, size - 1.0
        place = b.binary("MUL", b.binary("ADD", coordinate, 1.0), (size - 1) / 2)
    else:
        low, high = -0.5, size - 0.5
        place = b.binary("ADD", b.binary("MUL", b.binary("ADD", coordinate, 1.0), size / 2), -0.5)
    mode = node.attr("padding_mode", "zeros")
    if mode == "border" and node.attr("mode", "linear") != "cubic":
        return b.binary("MINIMUM", b.binary("MAXIMUM", place, 0.0), size - 1.0)
    if mode == "reflection" and node.attr("mode", "linear") != "cubic":
        return _reflected(b, place, low, high)
    return place


def _reflected(b: Builder, place: Held, low: float, high: float) -> Held:
    """Fold a place between two mirrors: the distance to the nearest multiple of twice their distance."""
    span = high - low
    if span == 0:
        return b.binary("MUL", place, 0.0)
    turn = b.binary("FLOOR_MOD", b.binary("SUB", place, low), 2 * span)
    folded = b.binary("MINIMUM", turn, b.op("SUB", [b.constant(2 * span, "float32"), turn], turn.shape))
    return b.binary("ADD", folded, low)


def _weighed(
    b: Builder, node: Node, image: Held, places: list[Held], taps: tuple[int, ...], shares: Shares
) -> Held:
    """Sum the neighbours, each with the product of its two shares."""
    floors = [b.unary("FLOOR", place) for place in places]
    rests = [b.binary("SUB", place, floor) for place, floor in zip(places, floors, strict=True)]
    across, down = ([shares(b, rest, tap) for tap in taps] for rest in rests)
    total: Held | None = None
    for i, dy in enumerate(taps):
        for j, dx in enumerate(taps):
            values = _at(
                b, node, image, [b.binary("ADD", floors[0], float(dx)), b.binary("ADD", floors[1], float(dy))]
            )
            share = b.binary("MUL", across[j], down[i])
            part = b.binary("MUL", values, b.reshape(share, (*share.shape, 1)))
            total = part if total is None else b.binary("ADD", total, part)
    if total is None:
        raise UnsupportedError(Code.ATTRIBUTE, "no neighbours")
    return total


def _linear(b: Builder, rest: Held, tap: int) -> Held:
    return rest if tap else b.op("SUB", [b.constant(1.0, "float32"), rest], rest.shape)


def _cubic(b: Builder, rest: Held, tap: int) -> Held:
    """R. Keys, Cubic convolution interpolation for digital image processing, 1981."""
    d = b.unary("ABS", b.binary("SUB", rest, float(tap)))
    if tap in (0, 1):
        inner = b.binary("SUB", b.binary("MUL", d, CUBIC + 2), CUBIC + 3)
        return b.binary("ADD", b.binary("MUL", b.binary("MUL", inner, d), d), 1.0)
    inner = b.binary("SUB", b.binary("MUL", d, CUBIC), 5 * CUBIC)
    inner = b.binary("ADD", b.binary("MUL", inner, d), 8 * CUBIC)
    return b.binary("SUB", b.binary("MUL", inner, d), 4 * CUBIC)


def _at(b: Builder, node: Node, image: Held, places: list[Held]) -> Held:
    """Return the pixels at whole places, [rows, places, channels]; outside of the image what the padding says."""
    rows, height, width, channels = image.shape
    inside: Held | None = None
    kept = []
    for place, size in zip(places, (width, height), strict=True):
        folded = place
        if node.attr("padding_mode", "zeros") == "reflection":
            corners = bool(node.attr("align_corners", 0))
            folded = _reflected(b, place, 0.0 if corners else -0.5, size - 1.0 if corners else size - 0.5)
        clamped = b.binary("MINIMUM", b.binary("MAXIMUM", folded, 0.0), size - 1.0)
        hit = b.binary("EQUAL", clamped, folded, "bool")
        inside = hit if inside is None else b.binary("LOGICAL_AND", inside, hit)
        kept.append(clamped)
    index = b.cast(b.binary("ADD", b.binary("MUL", kept[1], float(width)), kept[0]), "int32")
    flat = b.reshape(image, (rows, height * width, channels))
    values = b.op("GATHER", [flat, index], (*index.shape, channels), image.dtype, axis=1, batch_dims=1)
    if node.attr("padding_mode", "zeros") != "zeros" or inside is None:
        return values
    mask = b.reshape(b.cast(inside, "float32"), (*index.shape, 1))
    return b.binary("MUL", values, mask)


GRID: dict[str, Handler] = {"GridSample": _grid_sample}
