"""One place of a graph on its own: the old and the new form of it side by side, as a graph that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from ..graph.edit import reads
from ..graph.partial import INTEGERS, RULES
from .record import Rewrite
from .site import Site, copy

AFTER = "/after"  # what the new form's tensors are called


@dataclass(frozen=True)
class Place:
    """What a rewrite reads: nodes outside that compute sizes for it, constants, and tensors that vary."""

    sizes: tuple[onnx.NodeProto, ...]
    constants: tuple[onnx.TensorProto, ...]
    variables: tuple[str, ...]


def place_of(site: Site, rewrite: Rewrite) -> Place:
    """Collect what both forms read."""
    sizes = _sizes(site, rewrite)
    nodes = (*sizes, *rewrite.old, *rewrite.new)
    inner = {name for node in nodes for name in node.output}
    outer = {name for node in nodes for name in reads(node)} - inner
    outer |= {name for name in rewrite.aliases.values() if name not in inner}
    initializers = site.graph.initializers
    constants = tuple(initializers[name] for name in sorted(outer) if name in initializers)
    return Place(sizes, constants, tuple(sorted(name for name in outer if name not in initializers)))


def _sizes(site: Site, rewrite: Rewrite) -> tuple[onnx.NodeProto, ...]:
    """Return the nodes outside that compute sizes for the place, back to the tensors whose sizes they are."""
    inside = {id(node) for node in (*rewrite.old, *rewrite.new)}
    names = [name for node in rewrite.old for name in node.input]
    found: dict[int, onnx.NodeProto] = {}
    while names:
        name = names.pop()
        maker, kind = site.maker(name, *RULES), site.types.get(name)
        if maker is None or kind is None or kind.dtype not in INTEGERS or {id(maker)} & {*inside, *found}:
            continue
        found[id(maker)] = maker
        names += maker.input
    return tuple(node for node in site.graph.nodes if id(node) in found) if found else ()


def both(
    site: Site,
    rewrite: Rewrite,
    results: Sequence[str],
    place: Place,
    shapes: Mapping[str, Sequence[int]],
) -> onnx.ModelProto:
    """Return one graph that makes `results` in both forms: first all of the old one, then all of the new one."""
    made = {name: name + AFTER for node in rewrite.new for name in node.output if name}
    after = []
    for node in rewrite.new:
        renamed = copy(node)
        renamed.input[:] = [made.get(name, name) for name in node.input]
        renamed.output[:] = [made.get(name, name) for name in node.output]
        renamed.name = ""
        after.append(renamed)
    for name in results:
        if name not in made:
            source = rewrite.aliases[name]
            after.append(helper.make_node("Identity", [made.get(source, source)], [name + AFTER]))
    inputs = [
        helper.make_tensor_value_info(name, site.types[name].dtype, shapes[name]) for name in place.variables
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in (*results, *(name + AFTER for name in results))]
    nodes = [*place.sizes, *rewrite.old, *after]
    source = site.graph.model.proto
    return helper.make_model(
        helper.make_graph(nodes, "place", inputs, outputs, place.constants),
        opset_imports=list(source.opset_import),
        ir_version=max(source.ir_version, 10 if site.opset >= 21 else 7),
    )
