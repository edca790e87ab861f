"""What widths really cost on a target: time falls in steps, not with every channel.

`table` holds the numbers, `layers` says what a node is, `cost` adds up a model, `measure` makes a table on this
machine and `store` keeps it, `default` is for targets that cannot be measured.
"""

from .cost import NodeCost, node_costs, predict, weights, work_of
from .default import default
from .layers import Layer, kind_of, layer_of
from .table import Curve, Staircase

__all__ = [
    "Curve",
    "Layer",
    "NodeCost",
    "Staircase",
    "default",
    "kind_of",
    "layer_of",
    "node_costs",
    "predict",
    "weights",
    "work_of",
]
