"""Where engines want quantizers: one way of placing them for each word that an arithmetic may say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from farrier_contracts.targets import INPUTS, INTEGERS, LITERT, RESULTS

from ...graph.edit import Graph
from . import inputs, kernels, results
from .plan import Placement

__all__ = ["STYLES", "Placement", "Style", "place"]


@dataclass(frozen=True)
class Style:
    """How to place quantizers, and whether float operators may have weights that are stored in integers."""

    place: Callable[..., Placement]
    stores_rest: bool = True


STYLES: dict[str, Style] = {
    RESULTS: Style(results.place),
    INPUTS: Style(inputs.place, stores_rest=False),  # TensorRT takes such weights for a quantized operator's
    # TFLite files hold the weights of float operators as floats
    LITERT: Style(partial(results.place, kernels=kernels.LITERT), stores_rest=False),
    INTEGERS: Style(partial(results.place, kernels=kernels.INTEGERS_ONLY), stores_rest=False),
}


def place(graph: Graph, style: str = RESULTS, **options: object) -> Placement:
    """Plan the quantization of a graph in a style; `options` are those of `results.place`."""
    return STYLES[style].place(graph, **options)
