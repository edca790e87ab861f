"""Which path does what: the handler behind the local API's server. One model per server, all in one thread."""

from __future__ import annotations

import json
import time
import traceback
from http import HTTPStatus
from typing import Any, Callable, Dict, List, Mapping, Optional
from urllib.parse import unquote

from farrier_contracts.errors import FarrierError, InputError

from ..batching.batcher import RejectedError
from ..runtime import Answer, Runtime
from . import documents, messages, metrics
from .http import (
    NotFoundError,
    Request,
    Response,
    UnsupportedError,
    json_response,
    plain_body,
    refusal,
    refusal_for,
    whole_number,
)
from .regions import Regions

Respond = Callable[[Response], None]

_UNSUPPORTED = ("trace", "logging", "cudasharedmemory")


class Api:
    """Answers the requests of one server for the model `name`. `ready` turns false when it drains."""

    def __init__(self, name: str, runtime: Runtime, *, max_body_bytes: int) -> None:
        self.ready = True
        self._name = name
        self._runtime = runtime
        self._manifest = runtime.manifest
        self._stats = runtime.stats
        self._max_body_bytes = max_body_bytes
        self._outputs = [spec.name for spec in self._manifest.outputs]
        self._regions = Regions()

    def handle(self, request: Request, respond: Respond) -> None:
        """Answer a request; `respond` is called exactly once, here or later in the same thread."""
        try:
            parts = [unquote(part) for part in request.path.strip("/").split("/")]
            if parts[:2] == ["v2", "models"] and parts[-1] == "infer":
                self._infer(request, parts, respond)
            else:
                respond(self._answer(request, parts))
        except FarrierError as error:
            respond(refusal_for(error))
        except Exception as error:  # a fault of ours must not leave the client without an answer
            traceback.print_exc()
            respond(refusal_for(error))

    def close(self) -> None:
        """Close the shared memory regions."""
        self._regions.unregister()

    def _answer(self, request: Request, parts: List[str]) -> Response:
        if parts == ["metrics"]:
            return _only("GET", request) or self._metrics()
        if parts[0] != "v2":
            raise NotFoundError(f"there is nothing at {request.path!r:.200}: the API begins at /v2")
        if len(parts) == 1:
            return _only("GET", request) or json_response(documents.server_metadata())
        table: Mapping[str, Callable[[Request, List[str]], Response]] = {
            "health": self._health,
            "models": self._models,
            "repository": self._repository,
            "systemsharedmemory": self._shared_memory,
        }
        if parts[1] in _UNSUPPORTED:
            raise UnsupportedError(f"the {parts[1]} extension is not supported here")
        if parts[1] not in table:
            raise NotFoundError(f"there is nothing at {request.path!r:.200}")
        return table[parts[1]](request, parts[2:])

    def _health(self, request: Request, parts: List[str]) -> Response:
        if parts == ["live"]:
            return _only("GET", request) or _state(request, "live", True)
        if parts == ["ready"]:
            return _only("GET", request) or _state(request, "ready", self.ready)
        raise NotFoundError(f"there is nothing at {request.path!r:.200}: ask for live or ready")

    def _models(self, request: Request, parts: List[str]) -> Response:
        if parts == ["stats"]:
            return _only("GET", request) or self._statistics()
        rest = self._known_model(parts)
        found = _only("GET", request)
        if found is not None:
            return found
        if not rest:
            return json_response(documents.model_metadata(self._name, self._manifest))
        if rest == ["ready"]:
            return _state(request, "ready", self.ready, name=self._name)
        if rest == ["config"]:
            cached = self._runtime.cache.enabled
            return json_response(documents.model_config(self._name, self._manifest, cached=cached))
        if rest == ["stats"]:
            return self._statistics()
        if rest[0] == "trace":
            raise UnsupportedError("the trace extension is not supported here")
        raise NotFoundError(f"there is nothing at {request.path!r:.200}")

    def _known_model(self, parts: List[str]) -> List[str]:
        """Return what follows `NAME[/versions/V]`; raises NotFoundError for another model or version."""
        if not parts or parts[0] != self._name:
            raise NotFoundError(f"there is no model {'/'.join(parts[:1])!r:.80} here: this is {self._name!r}")
        if parts[1:2] != ["versions"]:
            return parts[1:]
        if parts[2:3] != [self._manifest.version]:
            raise NotFoundError(
                f"model {self._name!r} has no version {'/'.join(parts[2:3])!r:.80}: it is {self._manifest.version}"
            )
        return parts[3:]

    def _repository(self, request: Request, parts: List[str]) -> Response:
        if parts == ["index"]:
            index = documents.repository_index(self._name, self._manifest.version, ready=self.ready)
            return _only("POST", request) or json_response(index)
        if parts[:1] == ["models"] and parts[2:] in (["load"], ["unload"]):
            raise UnsupportedError("models come and go with the device's desired state, not through this API")
        raise NotFoundError(f"there is nothing at {request.path!r:.200}")

    def _shared_memory(self, request: Request, parts: List[str]) -> Response:
        name: Optional[str] = None
        if parts[:1] == ["region"] and len(parts) == 3:
            name, parts = parts[1], parts[2:]
        if parts == ["status"]:
            return _only("GET", request) or json_response(self._regions.status(name))
        if parts == ["unregister"]:
            return _only("POST", request) or self._done(self._regions.unregister, name)
        if parts == ["register"] and name is not None:
            wanted = _object(plain_body(request, max_bytes=self._max_body_bytes))
            arguments = (name, wanted.get("key"), wanted.get("offset", 0), wanted.get("byte_size"))
            return _only("POST", request) or self._done(self._regions.register, *arguments)
        raise NotFoundError(f"there is nothing at {request.path!r:.200}")

    @staticmethod
    def _done(action: Callable[..., None], *arguments: Any) -> Response:
        action(*arguments)
        return Response()

    def _statistics(self) -> Response:
        return json_response(documents.statistics(self._name, self._manifest.version, self._stats.read()))

    def _metrics(self) -> Response:
        self._stats.set("queue_depth", self._runtime.batcher.depth)
        labels = {
            "model_name": self._name,
            "model_version": self._manifest.version,
            "model_digest": self._manifest.digest[:12],
        }
        text = metrics.render(self._stats.read(), labels)
        return Response(200, [text.encode()], metrics.CONTENT_TYPE)

    def _infer(self, request: Request, parts: List[str], respond: Respond) -> None:
        start = time.monotonic_ns()
        self._stats.add("in_flight")
        try:
            if self._known_model(parts[2:]) != ["infer"]:
                raise NotFoundError(f"there is nothing at {request.path!r:.200}")
            wrong_method = _only("POST", request)
            if wrong_method is not None:
                self._count(None, start)
                respond(wrong_method)
                return
            wanted = self._decoded(request)

            def done(answer: Answer) -> None:
                respond(self._finished(wanted, answer, start))

            self._runtime.submit(wanted.inputs, done, timeout_s=wanted.timeout_s)
        except Exception as error:
            self._count(error, start)
            if not isinstance(error, FarrierError):
                traceback.print_exc()
            respond(refusal_for(error))

    def _decoded(self, request: Request) -> messages.InferRequest:
        body = plain_body(request, max_bytes=self._max_body_bytes)
        length = whole_number(request.headers.get(b"inference-header-content-length"))
        wanted = messages.decode(body, length, self._regions.read)
        messages.check_wanted(wanted, self._outputs)
        return wanted

    def _finished(self, wanted: messages.InferRequest, answer: Answer, start: int) -> Response:
        error = answer.error
        if answer.outputs is not None:
            names: Dict[str, Any] = {"model": self._name, "version": self._manifest.version}
            try:
                response = messages.encode(wanted, answer.outputs, write=self._regions.write, **names)
            except FarrierError as unfit:
                error = unfit
            else:
                self._count(None, start, answered=True)
                return response
        self._count(error, start)
        return refusal_for(error or FarrierError("the model gave no answer"))

    def _count(self, error: Optional[Exception], start: int, *, answered: bool = False) -> None:
        stats = self._stats
        stats.add("in_flight", -1)
        if answered:
            stats.add("requests")
            stats.observe(time.monotonic_ns() - start)
        else:
            stats.add("rejected" if isinstance(error, RejectedError) else "errors")


def _only(method: str, request: Request) -> Optional[Response]:
    """Return a refusal where the request's method is another one."""
    if request.method == method:
        return None
    response = refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.path!r:.200} takes {method} only")
    return Response(response.status, response.chunks, headers={"Allow": method})


def _state(request: Request, word: str, state: bool, **more: str) -> Response:
    """Return a health answer: its status says all, and a body comes only for those who ask for JSON."""
    status = 200 if state else HTTPStatus.SERVICE_UNAVAILABLE
    return json_response({**more, word: state}, status=status) if request.wants_json() else Response(status)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON") from None
    if not isinstance(document, dict):
        raise InputError("the request must be a JSON object")
    return document
