"""Second moments of the inputs of linear layers and convolutions, from a stream of calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
from onnx import helper

from farrier_contracts.errors import InputError

from ..graph import run
from ..graph.edit import attribute, reads
from ..model import Model
from .sites import CONV, FLOAT, Site

Batches = Callable[[], Iterator[dict[str, np.ndarray]]]
T = TypeVar("T")
POSITIONS = 4096  # of a convolution's windows per batch: more, evenly spaced, tell nothing new


@dataclass(frozen=True)
class Tap:
    """What a site reads: a tensor, and for a convolution the windows it cuts out of it."""

    tensor: str
    columns: int
    windows: tuple[tuple[int, ...], ...] = ()  # kernel, strides, dilations, pads
    auto_pad: str = ""


def tap_of(site: Site, columns: int, kernel: Sequence[int] = ()) -> Tap:
    """Return what a linear layer or convolution reads."""
    if site.kind != CONV:
        return Tap(site.source, columns)
    rank = len(kernel)
    windows = (
        tuple(kernel),
        tuple(attribute(site.node, "strides", [1] * rank)),
        tuple(attribute(site.node, "dilations", [1] * rank)),
        tuple(attribute(site.node, "pads", [0] * (2 * rank))),
    )
    automatic = attribute(site.node, "auto_pad", b"NOTSET")
    return Tap(
        site.source, columns, windows, automatic.decode() if isinstance(automatic, bytes) else automatic
    )


def second_moments(
    model: Model,
    taps: Sequence[Tap],
    batches: Batches,
    *,
    threads: int = 1,
    heard: Callable[[float], None] = lambda _share: None,
) -> dict[Tap, np.ndarray]:
    """Return X^T X [columns, columns] float64 over every batch, for each tap, X its inputs as rows.

    Only what leads to the taps is computed, and a batch is forgotten before the next. Raises InputError for data that
    the model cannot run on, for no data, and for values that are not finite.
    """
    return sums(model, taps, batches, _product, lambda tap: tap.tensor, threads=threads, heard=heard)


def sums(
    model: Model,
    taps: Sequence[T],
    batches: Batches,
    product: Callable[[T, np.ndarray], np.ndarray],
    tensor: Callable[[T], str],
    *,
    threads: int = 1,
    heard: Callable[[float], None] = lambda _share: None,
) -> dict[T, np.ndarray]:
    """Return the sum over all batches of `product(tap, value)` for each tap, given the value of its tensor.

    `product` makes a new array each time. Raises what `second_moments` does.
    """
    totals: dict[T, np.ndarray] = {}
    inputs = {spec.name for spec in model.inputs}
    names = list(dict.fromkeys(tensor(tap) for tap in taps if tensor(tap) not in inputs))
    session = run.session(_only(model.proto, names), threads=threads) if names else None
    needed = {spec.name for spec in session.get_inputs()} if session else set()
    count = 0
    for feeds in batches():
        try:
            found = session.run(names, {k: v for k, v in feeds.items() if k in needed}) if session else []
        except run.runtime_errors() as error:
            raise InputError(f"the calibration data does not fit the model: {run.brief(error)}") from None
        values = {**feeds, **{n: np.asarray(v) for n, v in zip(names, found, strict=True)}}
        for tap in taps:
            made = product(tap, values[tensor(tap)])
            if tap in totals:
                totals[tap] += made
            else:
                totals[tap] = made
        count += 1
        heard(count / (count + 1))  # the length of a stream is not known before its end
    if not count:
        raise InputError("the calibration data holds no samples")
    return totals


def _product(tap: Tap, value: np.ndarray) -> np.ndarray:
    rows = windows(value, tap) if tap.windows else value.reshape(-1, tap.columns)
    rows = np.ascontiguousarray(rows, np.float32)
    product = (rows.T @ rows).astype(np.float64)
    if not np.isfinite(product).all():
        raise InputError(f"the calibration data makes {tap.tensor!r} take values that are not finite")
    return product


def windows(value: np.ndarray, tap: Tap) -> np.ndarray:
    """Return what a convolution multiplies its weights with: [positions, channels * kernel]."""
    kernel, strides, dilations, pads = tap.windows
    rank = len(kernel)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    before, after = list(pads[:rank]), list(pads[rank:])
    if tap.auto_pad.startswith("SAME"):
        sizes = value.shape[2:]
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(sizes, strides, reach, strict=True)]
        lower = tap.auto_pad == "SAME_LOWER"
        before = [-(-t // 2) if lower else t // 2 for t in total]
        after = [t - b for t, b in zip(total, before, strict=True)]
    padded = np.pad(value, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    axes = tuple(range(2, 2 + rank))
    cut = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    cut = cut[(slice(None), slice(None), *(slice(None, None, s) for s in strides))]
    cut = cut[(..., *(slice(None, None, d) for d in dilations))]
    ordered = np.moveaxis(cut, 1, 1 + rank)  # [batch, places..., channels, kernel...]
    places = int(np.prod(ordered.shape[: 1 + rank]))
    step = max(1, places // POSITIONS)
    chosen = np.unravel_index(np.arange(0, places, step), ordered.shape[: 1 + rank])
    return ordered[chosen].reshape(len(chosen[0]), -1)


def _only(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return the part of a graph that leads to these tensors."""
    wanted, kept = set(names), []
    for node in reversed(proto.graph.node):
        if wanted.intersection(node.output):
            wanted |= reads(node)
            kept.append(node)
    part = onnx.ModelProto(ir_version=proto.ir_version)
    part.opset_import.extend(proto.opset_import)
    part.graph.name = proto.graph.name
    part.graph.node.extend(reversed(kept))
    part.graph.initializer.extend(t for t in proto.graph.initializer if t.name in wanted)
    part.graph.input.extend(v for v in proto.graph.input if v.name in wanted)
    part.graph.output.extend(helper.make_tensor_value_info(name, FLOAT, None) for name in names)
    return part
