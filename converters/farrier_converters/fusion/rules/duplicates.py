"""Operators that compute what another one has computed already."""

from __future__ import annotations

import onnx

from ...graph.fold import RANDOM
from ...model import subgraphs
from ..record import Rewrite, Rule
from ..rewriting import can_alias
from ..site import Site, copy

# Engines fuse a quantizer into the one operator beside it: each operator keeps its own.
APART = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Loop", "If", "Scan", "Optional")


def find(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Let readers of the second of two equal operators read the first one's results."""
    if node.op_type in (*RANDOM, *APART) or any(True for _ in subgraphs(node)):
        return None
    rows = [site.graph.readers.get(name, []) for name in node.input if name]
    for twin in min(rows, key=len, default=[]):
        if twin is node:
            return None  # the first of its kind
        if twin.op_type != node.op_type or list(twin.input) != list(node.input):
            continue
        if _signature(twin) == _signature(node) and len(twin.output) >= len(node.output):
            pairs = {new: old for new, old in zip(node.output, twin.output, strict=False) if new}
            known = all(pairs.values()) and all(not site.graph.kept(name) for name in pairs)
            if known and all(can_alias(site.graph, new, old) for new, old in pairs.items()):
                return Rewrite((twin, node), (twin,), pairs)
    return None


def _signature(node: onnx.NodeProto) -> bytes:
    bare = copy(node)
    bare.ClearField("name")
    bare.ClearField("output")
    bare.ClearField("doc_string")
    bare.ClearField("metadata_props")
    fields = sorted(node.attribute, key=lambda field: field.name)
    del bare.attribute[:]
    bare.attribute.extend(fields)
    return bare.SerializeToString(deterministic=True)


DUPLICATES = Rule("common subexpression", (), find, exact=True)
