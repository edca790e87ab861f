"""Short names for what only conversions read or make; what operators write keeps its name."""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Iterator

from ..edit import Graph, all_names, standard
from .loaded import made_at_load

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
LETTERS = string.ascii_letters
BEFORE = "_float"  # the end of a name: what an operator makes, before the quantizer behind it


def shorten(graph: Graph) -> None:
    """Rename, in place, the constants that conversions read and what they make: the more often read, the shorter.

    What an operator writes before a quantizer gets the name of the tensor that the quantizer stood for: both are
    one tensor of the float model. Shortening twice changes nothing.
    """
    made = made_at_load(graph)
    serving = {id(n) for n in graph.nodes if standard(n, *CONVERSIONS) or n.output[0] in made}
    integers = (
        made | {n.output[0] for n in graph.nodes if standard(n, "QuantizeLinear")} | {*graph.initializers}
    )
    chosen = [name for name in graph.initializers if _serves(graph, name, serving)]
    for node in graph.nodes:
        stored = standard(node, "DequantizeLinear") and node.input[0] in integers
        if standard(node, "QuantizeLinear") or stored:
            chosen.append(node.output[0])
        elif node.output[0] in made:
            chosen += [name for name in node.output if _serves(graph, name, serving)]
    chosen = [name for name in dict.fromkeys(chosen) if not graph.kept(name)]
    uses = Counter(name for node in graph.nodes for name in (*node.input, *node.output))
    taken = all_names(graph.build().proto.graph) - set(chosen)
    before = _before(graph, taken)
    taken |= set(before.values())
    free = (name for name in _short_names() if name not in taken)
    ordered = sorted(chosen, key=lambda name: -uses[name])
    _rename(graph, dict(zip(ordered, free, strict=False)) | before)


def _serves(graph: Graph, name: str, serving: set[int]) -> bool:
    """Whether a constant belongs to conversions: all its readers serve them, or it is a number that one reads."""
    readers = graph.readers.get(name, [])
    number = name in graph.initializers and not graph.initializers[name].dims
    internal = [id(n) in serving for n in readers]
    converts = any(standard(n, *CONVERSIONS) for n in readers)
    return bool(internal) and (all(internal) or (number and converts))


def _before(graph: Graph, taken: set[str]) -> dict[str, str]:
    """Return the names of what operators write before quantizers, and the free names without that ending."""
    found = {}
    for node in graph.nodes:
        name = node.input[0].removesuffix(BEFORE) if standard(node, "QuantizeLinear") else ""
        if name and name != node.input[0] and name not in taken and not graph.kept(node.input[0]):
            found[node.input[0]] = name
    return found


def _rename(graph: Graph, names: dict[str, str]) -> None:
    for node in graph.nodes:
        for field in (node.input, node.output):
            for position, name in enumerate(field):
                if name in names:
                    field[position] = names[name]
    graph.initializers = {names.get(name, name): tensor for name, tensor in graph.initializers.items()}
    graph.index()


def _short_names() -> Iterator[str]:
    for length in itertools.count(1):
        for first, *rest in itertools.product(LETTERS, *[LETTERS + string.digits] * (length - 1)):
            yield "".join((first, *rest))
