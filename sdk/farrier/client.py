"""A small client of the agents' local API: Open Inference Protocol v2 over HTTP, binary tensors both ways."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from farrier_contracts.errors import FarrierError, UsageError
from farrier_contracts.tensors import DATATYPES, NUMPY_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

HEADER_LENGTH = "Inference-Header-Content-Length"
REPLY_MAX_BYTES = 256 << 20


class InferenceError(FarrierError):
    """The agent refused a request or did not answer; the message is its own sentence."""


@dataclass(frozen=True)
class Reply:
    """The outputs of one request by name, and what the agent said about it."""

    outputs: Mapping[str, np.ndarray]
    parameters: Mapping[str, Any]


class Client:
    """One kept-alive connection to one endpoint, `http://HOST:PORT`; not to be shared between threads."""

    def __init__(self, endpoint: str, *, timeout_s: float = 10.0) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme != "http" or not parts.hostname:
            raise UsageError(f"an endpoint is http://HOST:PORT, not {endpoint!r}")
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        self._endpoint = endpoint

    def __enter__(self) -> Client:
        """Return the client itself; leaving closes the connection."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ready(self, model: str) -> bool:
        """Say whether the deployment answers requests."""
        return self._request("GET", f"/v2/models/{model}/ready")[0] == 200

    def infer(self, model: str, inputs: Mapping[str, np.ndarray]) -> Reply:
        """Run one request; raises InferenceError."""
        header, body = _encode(inputs)
        headers = {HEADER_LENGTH: str(len(header)), "Content-Type": "application/octet-stream"}
        status, reply_headers, data = self._request(
            "POST", f"/v2/models/{model}/infer", header + body, headers
        )
        if status != 200:
            raise InferenceError(f"{self._endpoint} answered {status}: {_error(data)}")
        return _decode(data, reply_headers.get(HEADER_LENGTH))

    def _request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            response = self._connection.getresponse()
            data = response.read(REPLY_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request starts on a fresh connection
            raise InferenceError(
                f"{self._endpoint} does not answer: {error or type(error).__name__}"
            ) from error
        return response.status, response.headers, data


def _encode(inputs: Mapping[str, np.ndarray]) -> tuple[bytes, bytes]:
    tensors, blobs = [], []
    for name, array in inputs.items():
        blob = array.tobytes()
        blobs.append(blob)
        tensors.append(
            {
                "name": name,
                "datatype": DATATYPES[array.dtype.name],
                "shape": list(array.shape),
                "parameters": {"binary_data_size": len(blob)},
            }
        )
    document = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    return json.dumps(document).encode(), b"".join(blobs)


def _decode(data: bytes, header_length: str | None) -> Reply:
    import numpy as np

    length = int(header_length) if header_length else len(data)
    document = json.loads(data[:length])
    offset, outputs = length, {}
    for tensor in document["outputs"]:
        dtype, shape = np.dtype(NUMPY_NAMES[tensor["datatype"]]), tensor["shape"]
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.array(tensor["data"], dtype).reshape(shape)
        else:
            array = np.frombuffer(data, dtype, size // dtype.itemsize, offset).reshape(shape)
            offset += size
        outputs[tensor["name"]] = array
    return Reply(outputs, document.get("parameters", {}))


def _error(data: bytes) -> str:
    try:
        return str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return data[:200].decode(errors="replace") or "no reason given"
