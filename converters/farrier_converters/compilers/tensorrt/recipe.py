"""What the device must know to build an engine: shapes, precisions, memory, sparsity, the DLA."""

from __future__ import annotations

import onnx

from farrier_contracts.engine_build import EngineBuild, Profile
from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain
from farrier_contracts.tensors import DYNAMIC, TensorSpec

from ...graph.edit import Graph, standard
from ...model import Model
from .sparsity import sparse_layers

MOST_ROWS = 16  # of a batch, where the model leaves that free
TYPED_FROM = (11,)  # releases without precision flags: what the graph says is what is computed
AMPERE = 80  # the first compute capability with kernels for sparse weights
QUANTIZED_DLA = (11, 4)  # the first release whose DLA takes quantizers


def build_of(model: Model, toolchain: Toolchain) -> EngineBuild:
    """Return the recipe for a model; raises InputError where a free dimension or the DLA stands in the way.

    Of `toolchain.parameters`, it looks at `tensorrt` (release), `sm` (compute capability), `most_rows`, `workspace`
    (bytes) and `dla_core`.
    """
    given = toolchain.parameters
    typed, core = strongly_typed(toolchain), given.get("dla_core")
    if core is not None and quantized(model) and release(toolchain) < QUANTIZED_DLA:
        raise InputError(
            f"the DLA of TensorRT {given.get('tensorrt')} takes no graph with quantizers: build fp16 for it"
        )
    default = EngineBuild()
    return EngineBuild(
        profiles=profiles(model, int(given.get("most_rows", MOST_ROWS))),
        precisions=() if typed else precisions(model),
        strongly_typed=typed,
        sparse=int(given.get("sm", 0)) >= AMPERE and bool(sparse_layers(Graph(model))),
        dla_core=None if core is None else int(core),
        gpu_fallback=core is not None,
        workspace=int(given.get("workspace", default.workspace)),
    )


def profiles(model: Model, most_rows: int) -> dict[str, Profile]:
    """Return the shapes of inputs whose first dimension is free: from 1 to `most_rows`, best with 1."""
    found = {}
    for spec in model.inputs:
        if DYNAMIC not in spec.shape:
            continue
        if DYNAMIC in spec.shape[1:]:
            axis = spec.shape.index(DYNAMIC, 1)
            raise InputError(
                f"dimension {axis} of {spec.name} is free, and TensorRT must know how far it reaches: "
                "export the model with a fixed size there"
            )
        found[spec.name] = Profile(_rows(spec, 1), _rows(spec, 1), _rows(spec, most_rows))
    return found


def precisions(model: Model) -> tuple[str, ...]:
    """Return what a builder with precision flags may choose: float16 for the rest of a quantized graph, too."""
    if quantized(model):
        return ("fp16", "int8")
    half = onnx.TensorProto.FLOAT16
    halves = any(tensor.data_type == half for tensor in model.proto.graph.initializer)
    return ("fp16",) if halves else ()


def quantized(model: Model) -> bool:
    """Say whether a graph holds quantizers."""
    return any(standard(node, "QuantizeLinear", "DequantizeLinear") for node in model.proto.graph.node)


def strongly_typed(toolchain: Toolchain) -> bool:
    """Say whether the toolchain's release computes in the graph's own types."""
    return release(toolchain) >= TYPED_FROM


def release(toolchain: Toolchain) -> tuple[int, ...]:
    """Return the release as numbers: "8.5.2" is (8, 5, 2); one that is not given counts as 8."""
    text = str(toolchain.parameters.get("tensorrt", "8"))
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _rows(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    return (rows, *spec.shape[1:])
