"""LSTM, GRU and RNN: a hidden unit has a row in each gate, a column in the recurrent weights, and its state."""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.edit import Graph, attribute, set_attribute, standard
from ..site import Kept, Layer, Site, Slot

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
X, W, R, B, INITIAL_H, INITIAL_C, P = (
    0,
    1,
    2,
    3,
    5,
    6,
    7,
)  # inputs, as the operators' specification names them
STATES = (INITIAL_H, INITIAL_C)
MOVING = (*("Expand", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"),)
UNIT = "hidden_size"


def recurrent(site: Site) -> None:
    """Follow LSTM, GRU and RNN.

    W [directions, gates * hidden, in], R [directions, gates * hidden, hidden], B [directions, 2 * gates * hidden],
    P [directions, 3 * hidden], states [directions, batch, hidden] (batch first with `layout` 1). Both directions lose
    the same units, since they have one size.
    """
    if not (site.stored(W) and site.stored(R)):
        site.refuse("its weights are computed")
        return
    gates, hidden = GATES[site.node.op_type], site.shape(R)[2]
    incoming = site.along(X, -1)
    site.sums(X)
    site.slot(W, 2, incoming, makes=False)
    made = site.new(hidden)
    site.slot(W, 1, np.tile(made, gates), makes=True)
    site.slot(R, 1, np.tile(made, gates), makes=True)
    site.slot(R, 2, made, makes=False)
    site.slot(B, 1, np.tile(made, 2 * gates), makes=True)
    site.slot(P, 1, np.tile(made, 3), makes=True)
    site.found.zeros.append(Slot(site.input(R), 2, made, site.number, makes=False))
    dropped = [position for position in STATES if _state(site, position, made)]
    for position in range(len(site.node.output)):
        if site.node.output[position]:
            site.set_along(-1, made, position)

    def change(_graph: Graph, node: onnx.NodeProto, kept: Kept) -> None:
        set_attribute(node, UNIT, int(kept(made).sum()))
        for position in dropped:
            node.input[position] = ""

    site.change(change)
    _layer(site, made, incoming, gates)


def _state(site: Site, position: int, made: np.ndarray) -> bool:
    """Tie an initial state to the units that it starts; say whether it is the zeros that units start from anyway."""
    if not site.has(position):
        return False
    labels = site.along(position, -1)
    if labels is not None:
        site.units.tie(labels, made)
    elif site.stored(position):
        site.slot(position, 2, made, makes=True)
    elif zeros(site.graph, site.input(position)):
        return True
    else:
        site.freeze(made, "its state comes from where it cannot be cut")
    return False


def zeros(graph: Graph, name: str) -> bool:
    """Say whether a tensor is zero whatever its shape will be."""
    while (node := graph.producer.get(name)) is not None and standard(node, *MOVING):
        name = node.input[0]
    if node is None:
        value = graph.constant(name)
        return value is not None and not value.any()
    if not standard(node, "ConstantOfShape"):
        return False
    value = attribute(node, "value")
    return value is None or not onnx.numpy_helper.to_array(value).any()


def _layer(site: Site, made: np.ndarray, incoming: np.ndarray | None, gates: int) -> None:
    directions, _, width = site.shape(W)
    steps = site.shape(X)[int(site.attribute("layout", 0))]
    read = site.staying(width) if incoming is None else incoming
    site.found.layers.append(
        Layer(
            site.number,
            site.name,
            "recurrent",
            made,
            np.concatenate([read, made]),
            positions=steps,
            kernel=gates * directions,
        )
    )


RULES = dict.fromkeys(GATES, recurrent)
