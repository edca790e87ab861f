"""The float constants besides the weights (biases, norms, tables): stored in 16 bits, widened when the engine loads."""

from __future__ import annotations

import numpy as np

from ..graph.compact import palette
from ..graph.edit import Graph
from .pools import Pool, Writer


def halve_rest(graph: Graph, *, min_elements: int) -> None:
    """Store float constants as float16, in one tensor, where that keeps 11 bits of each value that counts."""
    graph.index()
    palette.pack(graph)
    writer = Writer(graph)
    pool = Pool(writer, "h")
    used = {name for node in graph.nodes for name in node.input}
    fixed = graph.captured | set(graph.outputs)
    for name in [n for n in graph.initializers if n in used and n not in fixed]:
        tensor = graph.initializers[name]
        value = graph.constant(name) if tensor.data_type == tensor.FLOAT else None
        if value is None or value.size < min_elements or not _fits_half(value):
            continue
        piece = pool.add(value.astype(np.float16).reshape(-1))
        if value.ndim != 1:
            piece = writer.node("Reshape", [piece, writer.shape(value.shape)], "h")
        graph.rename_reads(name, piece)
    if pool.pieces:
        pool.cut(writer.cast(graph.add_constant("h", pool.whole())))
    graph.index()


def _fits_half(value: np.ndarray) -> bool:
    largest = float(np.abs(value).max(initial=0))
    if not largest <= float(np.finfo(np.float16).max):  # NaN included
        return False
    error = np.abs(value.astype(np.float16).astype(np.float32) - value)
    return bool((error <= np.maximum(np.abs(value), largest / 256) / 2048).all())
