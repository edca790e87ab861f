"""What a layer may be turned into, and how an assignment becomes the options of passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..graph.edit import Graph, standard
from ..model import Model
from ..passes import Context, get

FLOAT = "float"  # the layer stays as it is
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Way:
    """One precision for a layer: a pass that takes `exclude`, with further options.

    Ways of the same pass share one run of it; `mark` is then the option that lists the layers of this way.
    """

    name: str
    step: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mark: str | None = None


def layers(model: Model) -> tuple[str, ...]:
    """Return the layers of a graph by their first output: operators that multiply by constant weights."""
    graph = Graph(model)
    return tuple(
        node.output[0]
        for node in graph.nodes
        if standard(node, *LINEAR) and graph.constant(node.input[1]) is not None
    )


def named(model: Model) -> Model:
    """Return the model with a name of its own for every node, so that its kernel can be told in a profile."""
    graph = Graph(model)
    taken = {node.name for node in graph.nodes}
    for node in graph.nodes:
        if not node.name:
            free = node.output[0] not in taken
            node.name = node.output[0] if free else graph.fresh(f"{node.output[0]}_{node.op_type}")
            taken.add(node.name)
    return graph.build()


def steps(
    assignment: Mapping[str, str], ways: Sequence[Way], everything: Sequence[str]
) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return (pass, options) pairs that give each layer its way; layers without a way of theirs stay as they are."""
    found: list[tuple[str, dict[str, Any]]] = []
    for step in dict.fromkeys(way.step for way in ways):
        own = [way for way in ways if way.step == step]
        chosen = {layer: w for w in own for layer in everything if assignment.get(layer) == w.name}
        if not chosen:
            continue
        options: dict[str, Any] = {"exclude": [layer for layer in everything if layer not in chosen]}
        for way in own:
            options.update(way.options)
            marked = [layer for layer in everything if chosen.get(layer) is way]
            if way.mark and marked:
                options[way.mark] = marked
        found.append((step, options))
    return tuple(found)


def apply(
    model: Model,
    assignment: Mapping[str, str],
    ways: Sequence[Way],
    everything: Sequence[str],
    context: Context,
) -> Model:
    """Return the model with each layer in the precision that it is assigned."""
    for step, options in steps(assignment, ways, everything):
        technique = get(step)
        model = technique.run(model, technique.options(**options), context)
    return model
