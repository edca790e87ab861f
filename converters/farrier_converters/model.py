"""An ONNX model: read from hostile files, written atomically."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import external_data_helper, helper, inliner

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import DATATYPES, DYNAMIC, TensorSpec

_PACKED_BITS = {  # element types of fewer bits than a byte
    getattr(onnx.TensorProto, name): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2))
    if hasattr(onnx.TensorProto, name)
}
_ODD_BITS = tuple(value for name, value in onnx.TensorProto.DataType.items() if name.startswith("FLOAT6"))
STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class ModelSettings:
    """Limits on a model file."""

    max_bytes: int = (1 << 31) - 1  # of the file with its external data; what one protobuf message can hold
    max_depth: int = 16  # of subgraphs inside subgraphs


@dataclass(frozen=True)
class Model:
    """An ONNX graph, never mutated: each pass makes a new one. Initializers are not among `inputs`."""

    proto: onnx.ModelProto
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def from_proto(proto: onnx.ModelProto, name: str) -> Model:
    """Wrap a checked graph; raises InputError for an input or output that is no plain tensor."""
    initializers = {tensor.name for tensor in proto.graph.initializer}
    inputs = tuple(_spec(value, "input") for value in proto.graph.input if value.name not in initializers)
    return Model(proto, name, inputs, tuple(_spec(value, "output") for value in proto.graph.output))


def load(path: Path, *, settings: ModelSettings = ModelSettings()) -> Model:
    """Read and check an ONNX file, or import another framework's; raises InputError with one sentence.

    External data is read only from inside the model's own folder. Functions of the model's own are inlined. What an
    import has to say about itself is left out: `importers.read` returns that too.
    """
    from . import importers  # they make models themselves

    if importers.foreign(path):
        return importers.read(path, max_bytes=settings.max_bytes).model
    proto = _parse(path, settings)
    _read_external_data(proto, path, settings)
    _check_tensors(proto.graph, path, settings.max_depth)
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    _check_operators(proto, path)
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a valid ONNX graph: {_first_line(error)}") from None
    return from_proto(proto, path.stem)


def save(model: Model, path: Path) -> None:
    """Write the model to `path` in one step: equal models give equal bytes. Raises InputError, OSError."""
    try:
        content = model.proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):
        raise InputError(f"the model {model.name} is too large for one ONNX file (2 GiB)") from None
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a control-flow node holds."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def opset(proto: onnx.ModelProto) -> int:
    """Return the version of the standard operator set that the model uses."""
    return next((o.version for o in proto.opset_import if o.domain in STANDARD_DOMAINS), 1)


def _parse(path: Path, settings: ModelSettings) -> onnx.ModelProto:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the .onnx file inside it")
    try:
        size = path.stat().st_size
        if size > settings.max_bytes:
            raise InputError(f"{path} has {size} bytes, more than the limit of {settings.max_bytes}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no model at {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise InputError(f"{path} is not an ONNX file, or it is truncated") from None
    if not proto.graph.node and not proto.graph.output:
        raise InputError(f"{path} is not an ONNX file, or it holds no graph")
    return proto


def _read_external_data(proto: onnx.ModelProto, path: Path, settings: ModelSettings) -> None:
    folder = path.parent.resolve()
    total = 0
    for tensor in external_data_helper._get_all_tensors(proto):
        if not external_data_helper.uses_external_data(tensor):
            continue
        try:
            info = external_data_helper.ExternalDataInfo(tensor)
            file = folder / info.location
            inside = file.resolve().is_relative_to(folder) and not file.is_symlink()
            size = file.stat().st_size if inside and file.is_file() else -1
        except (ValueError, OSError):
            raise InputError(f"{path} refers to external data in a way that cannot be read") from None
        if not inside:
            raise InputError(f"{path} refers to data outside of its own folder: {info.location!r}")
        if size < 0:
            raise InputError(f"{path} needs its data file {info.location!r}, which is not beside it")
        if (info.offset or 0) < 0 or (info.offset or 0) + (info.length or 0) > size:
            raise InputError(f"{path} needs more data than {info.location!r} holds; it is truncated")
        total += info.length or size - (info.offset or 0)
        if total > settings.max_bytes:
            raise InputError(f"{path} has more external data than the limit of {settings.max_bytes} bytes")
        external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _check_tensors(graph: onnx.GraphProto, path: Path, depth: int) -> None:
    if depth == 0:
        raise InputError(f"{path} nests its subgraphs too deeply")
    _check_texts(graph, path)
    for tensor in (*graph.initializer, *_attribute_tensors(graph)):
        if tensor.data_type not in onnx.TensorProto.DataType.values() or tensor.data_type == 0:
            raise InputError(f"{path}: tensor {tensor.name!r} has an unknown element type {tensor.data_type}")
        if any(size < 0 for size in tensor.dims):
            raise InputError(f"{path}: tensor {tensor.name!r} has a negative dimension")
        if not _is_whole(tensor):
            raise InputError(
                f"{path}: what tensor {tensor.name!r} holds does not fill its shape {list(tensor.dims)}"
            )
    for node in graph.node:
        for inner in subgraphs(node):
            _check_tensors(inner, path, depth - 1)


def _attribute_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for node in graph.node:
        for field in node.attribute:
            if field.HasField("t"):
                yield field.t
            yield from field.tensors


def _is_whole(tensor: onnx.TensorProto) -> bool:
    """Say whether a tensor holds as many elements as its shape says; packed types count in whole bytes."""
    if tensor.data_type in _ODD_BITS:
        return True
    elements = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        bits = (
            _PACKED_BITS.get(tensor.data_type)
            or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        )
        return len(tensor.raw_data) == -(-elements * bits // 8)
    if tensor.data_type in _PACKED_BITS:
        return True  # how many of them one number holds differs between versions of ONNX
    parts = 2 if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128) else 1
    return len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))) == parts * elements


def _check_texts(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse names that are not UTF-8: protobuf's Python gives them as bytes, which fit nowhere."""
    for node in graph.node:
        texts = (node.op_type, node.domain, node.name, *node.input, *node.output)
        if not all(isinstance(text, str) for text in (*texts, *(field.name for field in node.attribute))):
            raise InputError(f"{path} holds a name that is not text; it is damaged")
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if not isinstance(named.name, str):
            raise InputError(f"{path} holds a name that is not text; it is damaged")


def _check_operators(proto: onnx.ModelProto, path: Path) -> None:
    versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    newest = onnx.defs.onnx_opset_version()
    if versions.get("", 1) > newest:
        raise InputError(f"{path} uses opset {versions['']}; the newest that is known here is {newest}")
    graphs = [proto.graph]
    while graphs:
        for node in graphs.pop().node:
            domain = "" if node.domain == "ai.onnx" else node.domain
            version = versions.get(domain, 0)
            if not _known(node.op_type, domain, version):
                where = f"domain {domain or 'ai.onnx'!r}, opset {version}"
                raise InputError(
                    f"{path} uses the operator {node.op_type!r} ({where}), which is unknown here; "
                    "export the model with standard ONNX operators"
                )
            graphs.extend(subgraphs(node))


def _known(op: str, domain: str, version: int) -> bool:
    try:
        onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return (domain, op) in _runtime_operators()
    return True


@lru_cache(maxsize=1)
def _runtime_operators() -> frozenset[tuple[str, str]]:
    """Return the operators outside of the ONNX standard that ONNX Runtime brings along."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    return frozenset(
        (s.domain, s.name) for s in get_all_operator_schema() if s.domain not in ("", "ai.onnx.ml")
    )


def _spec(value: onnx.ValueInfoProto, kind: str) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise InputError(f"the model's {kind} {value.name!r} is not a tensor")
    tensor = value.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except (KeyError, TypeError):
        dtype = f"type {tensor.elem_type}"
    datatype = "BYTES" if tensor.elem_type == onnx.TensorProto.STRING else DATATYPES.get(dtype)
    if datatype is None:
        raise InputError(
            f"the model's {kind} {value.name!r} has an element type that cannot be served: {dtype}"
        )
    shape = (
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else DYNAMIC for d in tensor.shape.dim
    )
    return TensorSpec(value.name, datatype, tuple(shape))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "unknown error")
