"""Store weights of many zeros in few bytes: values and the distances between them, or ONNX's own sparse form.

`packed` is for ONNX Runtime: the engine computes the dense weights once, when it opens the file, and then runs the same
kernels on the same bits. `with_sparse_initializers` is ONNX's standard form (`sparse_initializer`), for engines and
tools that read it; its indices take 8 bytes each, so that it is smaller than dense only above 2/3 of zeros in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..graph.edit import Graph, standard
from ..model import Model, from_proto

KEY = "farrier.packs-zeros"  # of a model's metadata
OPSET = 11  # the first with CumSum and ScatterElements
FEWEST = 1024  # elements; fewer are not worth the nodes
NODES_BYTES = 400  # what these take in a file
LONGEST = 255  # distance that one byte holds; a zero is stored where the next value is further away
INDEX_BYTES = 8
KINDS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def packed(model: Model) -> Model:
    """Return the model with sparse constants as values and one-byte distances, wherever that makes the file smaller.

    The outputs are the same to the bit, and the model's metadata says that it was packed. Constants inside of control
    flow, and graphs below operator set 11, stay.
    """
    graph = Graph(model)
    if graph.opset < OPSET:
        return model
    changed = False
    for name, tensor in list(graph.initializers.items()):
        if tensor.data_type not in KINDS or math.prod(tensor.dims) < FEWEST or graph.kept(name):
            continue
        value = np.asarray(graph.constant(name))
        distances, values = split(value.reshape(-1))
        if distances.nbytes + values.nbytes + NODES_BYTES >= value.nbytes:
            continue
        _unpack(graph, name, value, distances, values)
        changed = True
    if not changed:
        return model
    made = graph.build()
    if not packs_zeros(made):
        made.proto.metadata_props.add(key=KEY, value="1")
    return made


def packs_zeros(model: Model) -> bool:
    """Say whether a model was packed, so that a compiler uses its own format's form of sparse weights."""
    return any(field.key == KEY for field in model.proto.metadata_props)


def split(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances (uint8, at most 255) from each stored value to the one before it, and these values.

    The first distance is from just before the start. Values are those that are not zero (negative zeros are stored:
    the bits stay the same), and zeros that bridge long distances.
    """
    bits = flat.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[flat.dtype.itemsize])
    places = np.flatnonzero(bits)
    gaps = np.diff(places, prepend=-1)
    bridges = (gaps - 1) // LONGEST  # stored zeros before each value
    last = np.cumsum(bridges + 1) - 1  # where each value goes
    distances = np.full(len(gaps) + int(bridges.sum()), LONGEST, np.uint8)
    distances[last] = gaps - bridges * LONGEST
    values = np.zeros(len(distances), flat.dtype)
    values[last] = flat[places]
    return distances, values


def joined(distances: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Undo `split`."""
    flat = np.zeros(size, values.dtype)
    flat[np.cumsum(distances, dtype=np.int64) - 1] = values
    return flat


def unpacked(model: Model) -> Model:
    """Undo `packed`: the weights are constants again, for compilers and tools that look for them."""
    if not packs_zeros(model):
        return model
    graph = Graph(model)
    for node in list(graph.nodes):
        chain = _chain(graph, node)
        if chain is None:
            continue
        distances, values, shape = (np.asarray(graph.constant(name)) for name in chain)
        size = math.prod(int(n) for n in shape)
        value = joined(distances, values, size).reshape([int(n) for n in shape])
        graph.initializers[node.output[0]] = numpy_helper.from_array(value, node.output[0])
        graph.remove([node])
    graph.index()
    return graph.build()


def with_sparse_initializers(model: Model) -> Model:
    """Return the model with `sparse_initializer` for the constants that it makes smaller; the bits stay the same."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    inputs = {value.name for value in proto.graph.input}
    dense = []
    for tensor in proto.graph.initializer:
        value = numpy_helper.to_array(tensor) if tensor.data_type == onnx.TensorProto.FLOAT else None
        count = 0 if value is None else np.count_nonzero(value.view(np.uint32) if value.ndim else value)
        small = value is not None and count * (value.itemsize + INDEX_BYTES) + NODES_BYTES < value.nbytes
        if value is None or not small or tensor.name in inputs or not count:
            dense.append(tensor)
            continue
        places = np.flatnonzero(value.reshape(-1).view(np.uint32))
        made = onnx.SparseTensorProto(dims=value.shape)
        made.values.CopyFrom(numpy_helper.from_array(value.reshape(-1)[places], tensor.name))
        made.indices.CopyFrom(numpy_helper.from_array(places.astype(np.int64), f"{tensor.name}_places"))
        proto.graph.sparse_initializer.append(made)
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in dense]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return from_proto(proto, model.name)


def _unpack(graph: Graph, name: str, value: np.ndarray, distances: np.ndarray, values: np.ndarray) -> None:
    """Put the nodes that make the constant in its place; they have no names, as all that runs once at load."""
    stored = graph.add_constant(f"{name}_distances", distances)
    kept = graph.add_constant(f"{name}_kept", values)
    size = graph.add_constant(f"{name}_size", np.array([value.size], np.int64))
    shape = graph.add_constant(f"{name}_shape", np.array(value.shape, np.int64))
    axis = graph.add_constant(f"{name}_axis", np.array(0, np.int64))
    one = graph.add_constant(f"{name}_one", np.array(1, np.int32))
    names = {part: graph.fresh(f"{name}_{part}") for part in ("steps", "ends", "places", "zeros", "flat")}
    zero = helper.make_tensor("value", graph.initializers[name].data_type, [1], [0])
    steps: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        ("Cast", [stored], names["steps"], {"to": onnx.TensorProto.INT32}),
        ("CumSum", [names["steps"], axis], names["ends"], {}),
        ("Sub", [names["ends"], one], names["places"], {}),
        ("ConstantOfShape", [size], names["zeros"], {"value": zero}),
        ("ScatterElements", [names["zeros"], names["places"], kept], names["flat"], {"axis": 0}),
        ("Reshape", [names["flat"], shape], name, {}),
    )
    for op, inputs, output, attributes in steps:
        graph.nodes.append(helper.make_node(op, inputs, [output], **attributes))
    del graph.initializers[name]
    graph.index()


def _chain(graph: Graph, node: onnx.NodeProto) -> tuple[str, str, str] | None:
    """Return the names of distances, values and shape where a node ends what `_unpack` began."""
    names = list(node.input)
    if node.name or not standard(node, "Reshape") or len(names) < 2:
        return None
    scatter = graph.producer.get(names[0])
    if scatter is None or not standard(scatter, "ScatterElements"):
        return None
    step, found = graph.producer.get(scatter.input[1]), ""
    for op in ("Sub", "CumSum", "Cast"):
        if step is None or not standard(step, op):
            return None
        found = step.input[0]
        step = graph.producer.get(found)
    chain = found, scatter.input[2], names[1]
    return chain if all(name in graph.initializers for name in chain) else None
