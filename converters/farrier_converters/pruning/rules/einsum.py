"""Einsum: letters say which axes of its inputs meet; each input loses channels on one of them."""

from __future__ import annotations

import re

import numpy as np

from ..labels import squeezed
from ..site import Layer, Site

Letters = list[str]  # one for each axis of an input


def einsum(site: Site) -> None:
    """Follow Einsum with an explicit or implicit result; an ellipsis or a repeated letter leaves its inputs whole.

    A constant is cut along the letters that it shares with what loses channels there. Where it is the only constant
    and the result can lose nothing yet, the widest of its own letters is made anew.
    """
    parsed = parse(site.attribute("equation", b"").decode(), len(site.node.input))
    if parsed is None:
        site.refuse("its equation is not followed")
        return
    letters, result = parsed
    found: dict[str, np.ndarray] = {}
    for position, names in enumerate(letters):
        _read(site, position, names, found)
    made = _weights(site, letters, result, found)
    for position, names in enumerate(letters):
        _cut(site, position, names, found, made)
        if any(name in found and name not in result for name in names):
            site.sums(position)
    _result(site, result, found)
    _layer(site, letters, result, found)


def parse(equation: str, inputs: int) -> tuple[Letters, str] | None:
    """Return the letters of each input and of the result, None where they cannot be followed."""
    equation = re.sub(r"\s", "", equation)
    left, arrow, result = equation.partition("->")
    letters = left.split(",")
    if "." in equation or len(letters) != inputs or any(len(set(names)) < len(names) for names in letters):
        return None
    if not arrow:
        joined = "".join(letters)
        result = "".join(sorted(name for name in set(joined) if joined.count(name) == 1))
    return letters, result


def _read(site: Site, position: int, names: str, found: dict[str, np.ndarray]) -> None:
    """Take the labels of an input along its first letter that has any; others fall together."""
    labels = site.labels(position)
    if labels is None:
        return
    axis = next(axis for axis, size in enumerate(labels.shape) if size > 1)
    along = site.along(position, axis)
    if along is None:
        return
    known = found.setdefault(names[axis], along)
    if known is not along:
        site.units.tie(known, along)


def _weights(site: Site, letters: Letters, result: str, found: dict[str, np.ndarray]) -> str:
    """Make the widest own letter of a constant anew, where nothing in the result can go yet; return it."""
    stored = [p for p in range(len(letters)) if site.stored(p)]
    if len(stored) != 1 or any(name in found for name in result):
        return ""
    position = stored[0]
    others = "".join(names for p, names in enumerate(letters) if p != position)
    sizes = dict(zip(letters[position], site.shape(position), strict=True))
    own = [name for name in letters[position] if name in result and name not in others]
    if not own:
        return ""
    made = max(own, key=lambda name: sizes[name])
    found[made] = site.new(sizes[made])
    return made


def _cut(site: Site, position: int, names: str, found: dict[str, np.ndarray], made: str) -> None:
    """Cut a constant along the letters that lose channels; a result that does not lose them too keeps them all."""
    labels = site.labels(position)
    labels = (
        None if labels is None else squeezed(site.units.find(labels))
    )  # with what fell together when it was read
    for axis, name in enumerate(names):
        if name not in found or site.shape(position)[axis] == 1:
            continue
        if site.stored(position):
            site.slot(position, axis, found[name], makes=name == made)
        elif labels is None or labels.shape[axis] == 1:
            site.freeze(found[name], "what it is multiplied with stays")


def _result(site: Site, result: str, found: dict[str, np.ndarray]) -> None:
    lost = [name for name in result if name in found]
    for name in lost[1:]:
        site.freeze(found[name], "its channels lie on two axes")
    if lost:
        site.set_along(result.index(lost[0]), found[lost[0]])


def _layer(site: Site, letters: Letters, result: str, found: dict[str, np.ndarray]) -> None:
    """Note a product with constant weights as a dense layer."""
    stored = [p for p in range(len(letters)) if site.stored(p)]
    if len(stored) != 1 or len(letters) != 2:
        return
    names, shape = letters[stored[0]], site.shape(stored[0])
    sizes = dict(zip(names, shape, strict=True))
    made, read = ([name for name in names if (name in result) is kept] for kept in (True, False))

    def of(axes: list[str]) -> np.ndarray:
        labels = next((found[name] for name in axes if name in found), None)
        count = int(np.prod([sizes[name] for name in axes]))
        return site.staying(count) if labels is None else np.repeat(labels, count // len(labels))

    positions = (
        int(np.prod(site.made_shape().sizes)) // max(of(made).size, 1) // max(site.shape(1 - stored[0])[0], 1)
    )
    site.found.layers.append(Layer(site.number, site.name, "dense", of(made), of(read), max(positions, 1)))


RULES = {"Einsum": einsum}
