"""What a graph says about how its weights are stored."""

from __future__ import annotations

from collections import Counter

import onnx

PRECISION_KEY = "farrier.precision"  # in a node's metadata: what its weights are stored in


def mark(node: onnx.NodeProto, precision: str) -> None:
    """Note on a node what its weights are stored in."""
    kept = [field for field in node.metadata_props if field.key != PRECISION_KEY]
    del node.metadata_props[:]
    node.metadata_props.extend(kept)
    node.metadata_props.add(key=PRECISION_KEY, value=precision)


def stored_precision(node: onnx.NodeProto) -> str | None:
    """Return what a node's weights are stored in, where that is not how it computes."""
    return next((field.value for field in node.metadata_props if field.key == PRECISION_KEY), None)


def weights_precision(proto: onnx.ModelProto) -> str | None:
    """Return what most of a graph's weights are stored in, None where it does not say."""
    found = Counter(stored_precision(node) for node in proto.graph.node)
    del found[None]
    return min(found, key=lambda name: (-found[name], str(name))) if found else None
