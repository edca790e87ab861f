"""Students made from their teachers: with fewer layers, with fewer channels, started from the teacher's weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import onnx
from onnx import numpy_helper

from farrier_contracts.errors import InputError, UsageError

from ..model import Model
from ..pruning.blocks import blocks, drop, importance
from ..pruning.cut import cut
from ..pruning.group import Group, Groups, groups_of

WAYS = ("alternate", "first", "last", "importance")
STEP = 8  # channels: widths are rounded up to multiples of this where a group has as many


@dataclass(frozen=True)
class Student:
    """A model made from a teacher. `kept` and `dropped` name layers of the teacher by the tensor that they end in."""

    model: Model
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def shallower(
    teacher: Model,
    layers: int | str,
    *,
    way: str = "alternate",
    batches: Iterable[Mapping[str, np.ndarray]] | None = None,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> Student:
    """Return a student with `layers` of the teacher's repeated layers: a number, "half", or a share like "33%".

    `way` says which stay: "alternate" ones (as DistilBERT does: Sanh et al., arXiv 1910.01108), the "first" or the
    "last", in which case several families of layers (the stages of a residual network) keep the same share each; or,
    of all, those whose loss changes the outputs most on `batches` ("importance"). Raises UsageError, and InputError
    for a teacher without layers that could be left out.
    """
    if way not in WAYS:
        raise UsageError(f"unknown way to choose layers {way!r}; choose one of: {', '.join(WAYS)}")
    rows = None if batches is None else list(batches)
    found = blocks(teacher, feeds=rows[0] if rows else None)
    if not found:
        raise InputError(
            "the teacher has no layers that could be left out: none has an output shaped like its input"
        )
    if len(found) == 1:
        raise InputError(
            "the teacher has one layer that could be left out; a student of no layers learns little"
        )
    wanted = _wanted(layers, len(found))
    if way == "importance":
        if not rows:
            raise UsageError("choosing layers by importance needs rows of data")
        worth = importance(teacher, found, rows, progress=progress)
        kept = set(sorted(range(len(found)), key=lambda i: (-worth[i], i))[:wanted])
    else:
        kept = _spread(way, wanted / len(found), [block.family for block in found])
    stays = [found[i] for i in sorted(kept)]
    goes = [block for i, block in enumerate(found) if i not in kept]
    shorter = drop(teacher, goes)
    return Student(
        replace(shorter, name=f"{teacher.name}-{len(stays)}"),
        tuple(block.name for block in stays),
        tuple(block.name for block in goes),
    )


def thinner(
    teacher: Model,
    width: float | str,
    *,
    step: int = STEP,
    example: Mapping[str, np.ndarray] | None = None,
) -> Student:
    """Return a student with this share of each group's channels ("50%" or 0.5), those with the largest weights.

    Shares are rounded up to multiples of `step` channels. A channel's weight is the L2 norm of all that makes it (Li
    et al., arXiv 1608.08710, with L2 for L1). Raises UsageError for a share that is none, InputError for a teacher
    without channels that could go.
    """
    keep = share(width, "width")
    groups = groups_of(teacher, example)
    gone = [_lightest(groups, group, keep, step) for group in groups.groups]
    gone = [units for units in gone if len(units)]
    if not gone:
        raise InputError(
            f"no group of the teacher's channels can be thinned to {keep:.0%} in steps of {step}"
        )
    narrow = cut(groups, np.concatenate(gone))
    return Student(replace(narrow, name=f"{teacher.name}-{keep:.0%}"))


def made(
    teacher: Model,
    *,
    layers: int | str | None = None,
    width: float | str | None = None,
    way: str = "alternate",
    step: int = STEP,
    batches: Iterable[Mapping[str, np.ndarray]] | None = None,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> Student:
    """Return a student with fewer layers, thinner ones, or both; see `shallower` and `thinner`. Raises UsageError."""
    rows = None if batches is None else list(batches)
    if layers is None and width is None:
        raise UsageError(
            "say what a student keeps of its teacher: layers (half, 33%, 6), width (50%) or both"
        )
    if layers is None:
        return thinner(teacher, width or 0.0, step=step, example=rows[0] if rows else None)
    first = shallower(teacher, layers, way=way, batches=rows, progress=progress)
    if width is None:
        return first
    second = thinner(first.model, width, step=step, example=rows[0] if rows else None)
    return replace(first, model=second.model)


def share(given: float | str, what: str) -> float:
    """Return a share of less than one from 0.5 or "50%"; raises UsageError."""
    text = str(given).strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value < 1:
        raise UsageError(f"{what} {text!r} is no share; give one like 50%, above 0% and below 100%")
    return value


def _wanted(layers: int | str, total: int) -> int:
    """Return how many of all layers stay."""
    text = str(layers).strip()
    if not text.isdigit():
        portion = 0.5 if text == "half" else share(text, "layers")
        return min(max(1, ceil(portion * total - 1e-9)), total - 1)
    if not 0 < int(text) < total:
        raise UsageError(f"the teacher has {total} layers that may go; ask for 1 to {total - 1}")
    return int(text)


def _spread(way: str, portion: float, families: Sequence[int]) -> set[int]:
    """Return which layers stay: the same share of each family, as far as whole layers allow."""
    members: dict[int, list[int]] = {}
    for number, family in enumerate(families):
        members.setdefault(family, []).append(number)
    kept: set[int] = set()
    seen = 0
    for numbers in members.values():
        seen += len(numbers)
        size, count = (
            len(numbers),
            int(portion * seen + 0.5 + 1e-9) - len(kept),
        )  # what is rounded off is passed on
        chosen = {
            "first": range(count),
            "last": range(size - count, size),
            "alternate": [i * size // count for i in range(count)] if count else (),
        }[way]
        kept.update(numbers[i] for i in chosen)
    return kept


def _lightest(groups: Groups, group: Group, keep: float, step: int) -> np.ndarray:
    """Return the units of a group that go."""
    steps = step if group.size >= 2 * step else 1
    stays = min(group.size, max(1, -(-int(np.ceil(keep * group.size - 1e-9)) // steps) * steps))
    total = np.zeros(group.size)
    stored = {tensor.name: tensor for tensor in groups.model.proto.graph.initializer}
    for place in group.places:
        if place.makes and place.tensor in stored:
            total += _squares(stored[place.tensor], place.axis, place.positions)
    order = np.argsort(-total, kind="stable")
    return group.units[np.sort(order[stays:])]


def _squares(tensor: onnx.TensorProto, axis: int, positions: np.ndarray) -> np.ndarray:
    value = np.moveaxis(numpy_helper.to_array(tensor), axis, 0).astype(np.float64)
    rows = np.square(value.reshape(len(value), -1)).sum(axis=1)
    return rows[positions].sum(axis=1)
