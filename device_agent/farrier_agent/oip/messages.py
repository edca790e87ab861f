"""Inference requests and answers of the Open Inference Protocol v2, with its binary tensor data extension.

Specification: kserve/open-inference-protocol, inference_rest.md; Triton's extension_binary_data.md and
extension_shared_memory.md. Pure, but for the shared memory that the caller's `read` and `write` reach.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from farrier_contracts.errors import InputError

from . import tensors
from .http import JSON, OCTETS, Chunk, Response, UnsupportedError, compact_json

MAX_TENSORS = 1024
MAX_ID = 1024  # characters
REMEMBERED_HEADS = 64  # a client's binary requests differ in their tensors, seldom in the JSON before them
REMEMBERED_MAX_BYTES = 2048  # of one such head

Read = Callable[[str, int, int], Chunk]  # region, offset, size -> bytes
Write = Callable[[str, int, bytes], None]


@dataclass(frozen=True)
class Wanted:
    """One requested output; with a `region`, it goes into shared memory and at most `size` bytes of it."""

    name: str
    binary: bool
    region: Optional[str] = None
    offset: int = 0
    size: int = 0


@dataclass(frozen=True)
class Given:
    """One input as a request describes it: its data is in the JSON, in `size` bytes of the body, or in a region."""

    name: str
    dtype: np.dtype
    shape: Tuple[int, ...]
    data: Any = None
    size: Optional[int] = None
    region: Optional[Tuple[str, int, int]] = None


@dataclass(frozen=True)
class Head:
    """The JSON of a request, checked."""

    id: Optional[str]
    inputs: Tuple[Given, ...]
    wanted: Optional[Tuple[Wanted, ...]]
    binary: bool
    timeout_s: Optional[float]


@dataclass(frozen=True)
class InferRequest:
    """A decoded request. Without `wanted`, every output is wanted, as `binary` says."""

    id: Optional[str]
    inputs: Mapping[str, np.ndarray]
    wanted: Optional[Tuple[Wanted, ...]]
    binary: bool
    timeout_s: Optional[float]


def decode(body: bytes, header_length: Optional[int], read: Read) -> InferRequest:
    """Read a request body: a JSON object of `header_length` bytes (None: all of it), then binary tensors.

    Raises InputError in one sentence.
    """
    if header_length is not None and header_length > len(body):
        raise InputError(
            f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes"
        )
    text = body if header_length is None else body[:header_length]
    repeats = header_length is not None and header_length <= REMEMBERED_MAX_BYTES
    head = _remembered_head(text) if repeats else _head(text)
    inputs = _inputs(head.inputs, memoryview(body)[len(text) :], read)
    return InferRequest(head.id, inputs, head.wanted, head.binary, head.timeout_s)


def encode(
    request: InferRequest, outputs: Mapping[str, np.ndarray], *, model: str, version: str, write: Write
) -> Response:
    """Return the answer to a request; raises InputError where a wanted output cannot be given as asked."""
    wanted = request.wanted or [Wanted(name, request.binary) for name in outputs]
    if request.id is None and all(want.binary and want.region is None for want in wanted):
        blobs = [tensors.to_bytes(outputs[want.name]) for want in wanted]
        shapes = tuple((want.name, outputs[want.name].dtype, outputs[want.name].shape) for want in wanted)
        return _binary(_remembered_answer(model, version, shapes), blobs)
    described, blobs = [], []
    for want in wanted:
        array = outputs[want.name]
        entry = _describe(want.name, array.dtype, array.shape)
        if want.region is not None:
            entry["parameters"] = _put(want, tensors.to_bytes(array), write)
        elif want.binary:
            blobs.append(tensors.to_bytes(array))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = tensors.to_json(want.name, array)
        described.append(entry)
    document: Dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if request.id is not None:
        document["id"] = request.id
    return _binary(compact_json(document), blobs)


def _binary(head: bytes, blobs: List[bytes]) -> Response:
    if not blobs:
        return Response(200, [head], JSON)
    return Response(200, [head, *blobs], OCTETS, {"Inference-Header-Content-Length": str(len(head))})


def _describe(name: str, dtype: np.dtype, shape: Tuple[int, ...]) -> Dict[str, Any]:
    return {"name": name, "datatype": tensors.datatype_of(dtype), "shape": list(shape)}


@lru_cache(maxsize=REMEMBERED_HEADS)
def _remembered_answer(
    model: str, version: str, outputs: Tuple[Tuple[str, np.dtype, Tuple[int, ...]], ...]
) -> bytes:
    """Return the JSON before binary outputs, which depends on their shapes alone."""
    described = []
    for name, dtype, shape in outputs:
        size = math.prod(shape) * dtype.itemsize
        described.append({**_describe(name, dtype, shape), "parameters": {"binary_data_size": size}})
    return compact_json({"model_name": model, "model_version": version, "outputs": described})


def check_wanted(request: InferRequest, known: Sequence[str]) -> None:
    """Raise InputError where an output is asked for that the model does not have, or one twice."""
    seen = set()
    for want in request.wanted or ():
        if want.name not in known or want.name in seen:
            raise InputError(
                f"output {want.name!r:.80} is unknown or asked for twice (known: {', '.join(known)})"
            )
        seen.add(want.name)


def _head(text: bytes) -> Head:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON: check Inference-Header-Content-Length too") from None
    if not isinstance(document, dict):
        raise InputError("the request must be a JSON object")
    parameters = _parameters(document, "the request")
    identity = document.get("id")
    if identity is not None and (not isinstance(identity, str) or len(identity) > MAX_ID):
        raise InputError(f"the request's id must be a text of at most {MAX_ID} characters")
    binary = _flag(parameters, "binary_data_output")
    given = tuple(map(_given, _list(document, "inputs")))
    seen = set()
    for each in given:
        if each.name in seen:
            raise InputError(f"input {each.name!r:.80} is given twice")
        seen.add(each.name)
    wanted = document.get("outputs")
    return Head(
        identity,
        given,
        tuple(_wanted(item, binary) for item in _list(document, "outputs")) if wanted else None,
        binary,
        _timeout_s(parameters),
    )


_remembered_head = lru_cache(maxsize=REMEMBERED_HEADS)(_head)


def _given(item: Any) -> Given:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise InputError("each input must be an object with name, datatype, shape and data")
    name = item["name"]
    parameters = _parameters(item, f"input {name!r:.80}")
    dtype = tensors.dtype_of(name, item.get("datatype"))
    shape = tensors.shape_of(name, item.get("shape"))
    if "shared_memory_region" in parameters:
        return Given(name, dtype, shape, region=_region(parameters))
    if "binary_data_size" in parameters:
        return Given(name, dtype, shape, size=_whole(parameters, "binary_data_size"))
    return Given(name, dtype, shape, data=item.get("data"))


def _inputs(given: Sequence[Given], rest: memoryview, read: Read) -> Dict[str, np.ndarray]:
    arrays: Dict[str, np.ndarray] = {}
    start = 0
    for each in given:
        name = each.name
        if each.region is not None:
            arrays[name] = tensors.from_bytes(name, read(*each.region), each.dtype, each.shape)
        elif each.size is not None:
            end = start + each.size
            if end > len(rest):
                raise InputError(f"the body ends inside the binary data of input {name!r:.80}")
            arrays[name] = tensors.from_bytes(name, rest[start:end], each.dtype, each.shape)
            start = end
        else:
            arrays[name] = tensors.from_json(name, each.data, each.dtype, each.shape)
    if start != len(rest):
        raise InputError(f"{len(rest) - start} bytes of binary data belong to no input")
    return arrays


def _wanted(item: Any, binary: bool) -> Wanted:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise InputError("each output must be an object with a name")
    parameters = _parameters(item, "an output")
    if parameters.get("classification"):
        raise UnsupportedError(
            "the classification extension is not supported here: sort the scores in the client"
        )
    if "shared_memory_region" in parameters:
        region, offset, size = _region(parameters)
        return Wanted(item["name"], True, region, offset, size)
    return Wanted(item["name"], _flag(parameters, "binary_data", default=binary))


def _put(want: Wanted, data: bytes, write: Write) -> Dict[str, Any]:
    if len(data) > want.size:
        raise InputError(f"output {want.name!r} has {len(data)} bytes, its shared memory has {want.size}")
    write(want.region or "", want.offset, data)
    return {
        "shared_memory_region": want.region,
        "shared_memory_offset": want.offset,
        "shared_memory_byte_size": len(data),
    }


def _region(parameters: Mapping[str, Any]) -> Tuple[str, int, int]:
    name = parameters["shared_memory_region"]
    if not isinstance(name, str):
        raise InputError("shared_memory_region must be a name")
    offset = _whole(parameters, "shared_memory_offset") if "shared_memory_offset" in parameters else 0
    return name, offset, _whole(parameters, "shared_memory_byte_size")


def _timeout_s(parameters: Mapping[str, Any]) -> Optional[float]:
    """Return the `timeout` parameter, microseconds there, in seconds; 0 means none."""
    microseconds = _whole(parameters, "timeout") if "timeout" in parameters else 0
    return microseconds / 1e6 or None


def _parameters(item: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InputError(f"the parameters of {what} must be an object")
    return parameters


def _list(document: Mapping[str, Any], key: str) -> List[Any]:
    items = document.get(key)
    if not isinstance(items, list) or len(items) > MAX_TENSORS:
        raise InputError(f"{key} must be a list of at most {MAX_TENSORS} tensors")
    return items


def _whole(parameters: Mapping[str, Any], key: str) -> int:
    value = parameters.get(key)
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise InputError(f"parameter {key} must be a whole number of at least 0")
    return value


def _flag(parameters: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"parameter {key} must be true or false")
    return value
