"""What the units of a model do on calibration rows: sums over the tensors that layers read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from ...graph import run
from ...graph.edit import Graph
from ..group import Groups
from .evidence import Rows


@dataclass(frozen=True)
class Tap:
    """A tensor that layers read, and which unit each of its channels is: `index` has the rank of the tensor.

    `index` counts units over all groups, in their order; -1 is what stays.
    """

    tensor: str
    index: np.ndarray


def numbering(groups: Groups) -> dict[int, int]:
    """Return the place of each unit in the order of groups and their units."""
    units = np.concatenate([group.units for group in groups.groups]) if groups.groups else np.array([], int)
    return {int(unit): place for place, unit in enumerate(units)}


def taps(groups: Groups) -> tuple[Tap, ...]:
    """Return the tensors that layers read and that hold units which can go, each once."""
    nodes = list(Graph(groups.model).nodes)
    places = numbering(groups)
    found: dict[str, Tap] = {}
    for layer in groups.layers:
        for name in nodes[layer.node].input:
            labels = groups.found.labels.get(name)
            if labels is None or name in found:
                continue
            roots = groups.found.units.find(labels)
            index = np.vectorize(lambda root: places.get(int(root), -1), otypes=[np.int64])(roots)
            if (index >= 0).any():
                found[name] = Tap(name, index)
    return tuple(found.values())


def per_unit(tap: Tap, values: np.ndarray, count: int) -> np.ndarray:
    """Return [count] sums of values, unit by unit; `values` has the tap's rank."""
    axes = tuple(a for a in range(values.ndim) if tap.index.shape[a] == 1 and values.shape[a] > 1)
    sums = values.sum(axis=axes, keepdims=True, dtype=np.float64)
    index, sums = (np.ravel(array) for array in np.broadcast_arrays(tap.index, sums))
    known = index >= 0
    return np.bincount(index[known], sums[known], minlength=count)


def split(groups: Groups, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return numbers in the order of all units, by group."""
    ends = np.cumsum([group.size for group in groups.groups])
    return dict(zip((group.name for group in groups.groups), np.split(values, ends)[:-1], strict=True))


def values_of(groups: Groups, names: list[str], rows: Rows | None) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield these tensors for each batch of rows; raises UsageError without rows, InputError where they do not fit."""
    if rows is None:
        raise UsageError("this importance looks at activations; give calibration data")
    inner = [name for name in names if name not in {spec.name for spec in groups.model.inputs}]
    session = run.session(run.up_to(groups.model.proto, inner)) if inner else None
    needed = {spec.name for spec in session.get_inputs()} if session else set()
    empty = True
    for feeds in rows():
        try:
            made = session.run(inner, {k: v for k, v in feeds.items() if k in needed}) if session else []
        except run.runtime_errors() as error:
            raise InputError(f"the calibration data does not fit the model: {run.brief(error)}") from None
        empty = False
        yield {**feeds, **{name: np.asarray(v) for name, v in zip(inner, made, strict=True)}}
    if empty:
        raise InputError("the calibration data holds no samples")
