"""The local API byte by byte: HTTP as clients really send it, limits, hostile input, and the protocol's own schema."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import math
import re
import socket
import threading
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_agent.oip import messages, tensors
from farrier_agent.oip.api import Api
from farrier_agent.oip.server import Server, ServerSettings
from farrier_agent.runtime import Runtime, RuntimeSettings
from farrier_contracts.errors import InputError

LIMITS = ServerSettings(
    max_body_bytes=1 << 20,
    max_held_bytes=4 << 20,
    max_head_bytes=4096,
    max_connections=64,
    head_limit_s=1.0,
    body_limit_s=1.0,
    sweep_s=0.1,
)


@pytest.fixture
def server(conv_bundle):
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    started, stop = threading.Event(), None
    found = SimpleNamespace(address=listening.getsockname())

    async def serve():
        nonlocal stop
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        with Runtime(
            conv_bundle, settings=RuntimeSettings(queue_limit=64), post=loop.call_soon_threadsafe
        ) as runtime:
            api = Api("net", runtime, max_body_bytes=LIMITS.max_body_bytes)
            server = Server(api.handle, settings=LIMITS)
            found.server, found.loop, found.stats = server, loop, runtime.stats
            server.listen([listening])
            started.set()
            await stop.wait()
            await server.drain(0.2)
            api.close()
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(60)
    yield found
    found.loop.call_soon_threadsafe(stop.set)
    thread.join()


def converse(address, data: bytes) -> bytes:
    """Send bytes, close our side, and read until the server closes its own."""
    with socket.create_connection(address, timeout=30) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server may have hung up already
        received = b""
        try:
            while chunk := client.recv(1 << 16):
                received += chunk
        except ConnectionError:
            pass
        return received


def statuses(received: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def is_alive(address) -> bool:
    return statuses(converse(address, b"GET /v2/health/live HTTP/1.1\r\n\r\n")) == [200]


def ask(address, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def infer_json(x) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.tolist()}
    return json.dumps({"id": "7", "inputs": [tensor]}).encode()


def post(body: bytes, *headers: bytes, path: bytes = b"/v2/models/net/infer") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# the protocol's own schema


def fits(value, schema, schemas) -> bool:
    """Check the part of JSON Schema that the specification uses."""
    if "$ref" in schema:
        return fits(value, schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    if "anyOf" in schema:
        return any(fits(value, option, schemas) for option in schema["anyOf"])
    kind = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    if not isinstance(value, kind[schema["type"]]):
        return False
    if schema["type"] == "array":
        return all(fits(item, schema["items"], schemas) for item in value)
    if schema["type"] != "object":
        return True
    known = schema.get("properties", {})
    rest = schema.get("additionalProperties", {})
    return all(key in value for key in schema.get("required", [])) and all(
        fits(item, known.get(key) or rest, schemas) for key, item in value.items() if known.get(key) or rest
    )


def test_answers_fit_the_published_schema(server, shared_data, inputs_of):
    yaml = pytest.importorskip("yaml")
    [text] = (shared_data / "open_inference_protocol").rglob("open_inference_rest.yaml")
    schemas = yaml.safe_load(text.read_text())["components"]["schemas"]
    x = inputs_of(1, 2)["x"]
    for method, path, body, status, schema in (
        ("GET", "/v2", None, 200, "metadata_server_response"),
        ("GET", "/v2/", None, 200, "metadata_server_response"),
        ("GET", "/v2/models/net", None, 200, "metadata_model_response"),
        ("GET", "/v2/models/net/versions/1.0", None, 200, "metadata_model_response"),
        ("GET", "/v2/models/nothing", None, 404, "metadata_model_error_response"),
        ("POST", "/v2/models/net/infer", infer_json(x), 200, "inference_response"),
        ("POST", "/v2/models/net/versions/1.0/infer", infer_json(x), 200, "inference_response"),
        ("POST", "/v2/models/net/infer", infer_json(x[:, :, :4]), 400, "inference_error_response"),
        ("POST", "/v2/models/net/infer", b"{}", 400, "inference_error_response"),
    ):
        response, answer = ask(server.address, method, path, body)
        assert response.status == status, answer
        assert fits(json.loads(answer), schemas[schema], schemas), (path, answer)
    assert not fits({"model_name": "net"}, schemas["inference_response"], schemas)


def test_health_answers_are_empty_unless_json_is_asked_for(server):
    assert ask(server.address, "GET", "/v2/health/ready")[1] == b""
    _, body = ask(server.address, "GET", "/v2/models/net/ready", headers={"Accept": "application/json"})
    assert json.loads(body) == {"name": "net", "ready": True}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/net/nothing", 404),
        ("GET", "/v2/models/net/infer", 405),
        ("POST", "/v2/models/net", 405),
        ("DELETE", "/v2", 405),
        ("POST", "/v2/repository/models/net/load", 501),
        ("GET", "/v2/trace/setting", 501),
        ("GET", "/v2/cudasharedmemory/status", 501),
        ("GET", "/v2/systemsharedmemory/region/none/status", 404),
        ("POST", "/v2/systemsharedmemory/region/a/register", 400),
    ],
)
def test_every_refusal_is_json(server, method, path, status):
    response, body = ask(server.address, method, path)
    assert response.status == status
    assert response.getheader("Content-Type") == "application/json"
    assert json.loads(body)["error"]


def test_a_request_whose_time_is_up_is_504(server, inputs_of):
    document = {**json.loads(infer_json(inputs_of(1)["x"])), "parameters": {"timeout": 1}}
    response, body = ask(server.address, "POST", "/v2/models/net/infer", json.dumps(document).encode())
    assert response.status == 504
    assert "timeout" in json.loads(body)["error"]
    assert server.stats.read().rejected == 1


def test_metrics_count_requests(server, inputs_of):
    x = inputs_of(1, 2)["x"]
    for _ in range(3):
        assert ask(server.address, "POST", "/v2/models/net/infer", infer_json(x))[0].status == 200
    assert ask(server.address, "POST", "/v2/models/net/infer", b"{}")[0].status == 400
    response, body = ask(server.address, "GET", "/metrics")
    lines = body.decode().splitlines()
    assert response.getheader("Content-Type").startswith("text/plain; version=0.0.4")
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    def value(name, label=""):
        return next(v for k, v in values.items() if k.startswith(name + "{") and label in k)

    assert value("inference_requests_total", 'outcome="success"') == 3
    assert value("inference_requests_total", 'outcome="error"') == 1
    assert value("inference_request_duration_seconds_bucket", 'le="+Inf"') == 3
    assert value("inference_items_total") == 6
    assert value("nv_inference_request_success") == 3
    assert value("inference_requests_in_flight") == 0


# HTTP as clients send it


def test_pipelined_requests_are_answered_in_order(server, conv_net, inputs_of):
    xs = [inputs_of(seed)["x"] for seed in range(40)]
    data = b"".join(post(infer_json(x)) + b"GET /v2/health/live HTTP/1.1\r\n\r\n" for x in xs)
    received = converse(server.address, data)
    assert statuses(received) == [200] * 80
    answers = [
        json.loads(part.partition(b"HTTP/1.1")[0]) for part in received.split(b"\r\n\r\n") if part[:1] == b"{"
    ]
    for x, answer in zip(xs, answers):
        got = np.array(answer["outputs"][0]["data"], np.float32)
        np.testing.assert_allclose(got, conv_net.direct({"x": x})["scores"][0], rtol=1e-5, atol=1e-5)


def test_thousands_of_pipelined_requests_need_no_deep_stack(server):
    received = converse(server.address, b"GET /v2 HTTP/1.1\r\n\r\n" * 5000)
    assert statuses(received) == [200] * 5000


def test_a_request_may_come_byte_by_byte(server, inputs_of):
    data = post(infer_json(inputs_of(1)["x"]))
    with socket.create_connection(server.address, timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), 7):
            client.sendall(data[start : start + 7])
        assert client.recv(12) == b"HTTP/1.1 200"


def test_chunked_bodies_and_expect_100(server, inputs_of):
    body = infer_json(inputs_of(1)["x"])
    half = len(body) // 2
    chunks = (
        b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:])) + b"0\r\n\r\n"
    )
    head = b"POST /v2/models/net/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    assert statuses(converse(server.address, head + chunks)) == [100, 200]


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_compressed_bodies(server, inputs_of, pack):
    coding = b"gzip" if pack is gzip.compress else b"deflate"
    body = infer_json(inputs_of(1)["x"])
    good = converse(server.address, post(pack(body), b"Content-Encoding: " + coding))
    assert statuses(good) == [200]
    bomb = converse(
        server.address, post(pack(bytes(LIMITS.max_body_bytes * 50)), b"Content-Encoding: " + coding)
    )
    assert statuses(bomb) == [400]
    assert b"when inflated" in bomb
    assert statuses(converse(server.address, post(pack(body)[:-9], b"Content-Encoding: " + coding))) == [400]
    assert b"unknown" in converse(server.address, post(body, b"Content-Encoding: br"))


def test_connections_are_kept_or_closed_as_asked(server):
    with socket.create_connection(server.address, timeout=30) as client:
        for _ in range(3):
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
            assert b"Connection: close" not in client.recv(1000)
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b"Connection: close" in client.recv(1000)
        assert client.recv(1000) == b""
    assert b"Connection: close" in converse(server.address, b"GET /v2/health/live HTTP/1.0\r\n\r\n")


# limits


def test_oversize_bodies_are_refused_before_they_are_read(server):
    limit = LIMITS.max_body_bytes
    head = b"POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (limit * 1000)
    received = converse(server.address, head + bytes(1000))
    assert statuses(received) == [413]
    assert b"Connection: close" in received
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    head = b"POST /v2/models/net/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert statuses(converse(server.address, head + chunk * 40)) in ([413], [])
    assert is_alive(server.address)


def test_memory_stays_bounded_while_many_send_at_once(server, eventually):
    """Each client sends most of a large body and stops: the server holds no more than its limit in all."""
    head = b"POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"
    clients = [socket.create_connection(server.address, timeout=30) for _ in range(12)]
    try:
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.sendall(head + bytes(900_000))
        held = LIMITS.max_held_bytes + (1 << 18)
        assert server.server._held <= held
    finally:
        for client in clients:
            client.close()
    eventually(lambda: server.server._held == 0 and server.server.connections == 0)
    assert is_alive(server.address)


def test_heads_are_bounded(server):
    long = b"GET /v2 HTTP/1.1\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n"
    assert statuses(converse(server.address, long)) == [431]
    assert statuses(converse(server.address, b"GET /" + b"v" * 20_000 + b" HTTP/1.1\r\n\r\n")) == [431]
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(2000))
    assert statuses(converse(server.address, b"GET /v2 HTTP/1.1\r\n" + many + b"\r\n")) == [431]


@pytest.mark.parametrize(
    "start", [b"GET /v2 HT", b"POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"]
)
def test_slow_clients_are_told_and_let_go(server, start):
    with socket.create_connection(server.address, timeout=30) as client:
        client.sendall(start)
        received = client.recv(1000)
    assert statuses(received) == [408]


def test_silent_connections_are_closed(server):
    with socket.create_connection(server.address, timeout=30) as client:
        assert client.recv(100) == b""


def test_a_client_that_never_reads_does_not_fill_the_memory(server, eventually):
    with socket.create_connection(server.address, timeout=30) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0.3)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += client.send(b"GET /v2/models/net HTTP/1.1\r\n\r\n" * 500)
        except OSError:  # the timeout: no TimeoutError before Python 3.10
            pass
        assert sent < 64 << 20  # the server stopped reading
    eventually(lambda: server.server.connections == 0)
    assert is_alive(server.address)


# hostile input


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=400))
def test_garbage_never_ends_the_server(garbage_server, data):
    received = converse(garbage_server, data)
    assert all(200 <= status < 600 for status in statuses(received))
    assert is_alive(garbage_server)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_requests_get_an_answer_each(garbage_server, data):
    good = post(infer_json(np.zeros((1, 1, 8, 8), np.float32)))
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    received = converse(garbage_server, bytes(damaged))
    assert all(200 <= status < 500 or status == 501 for status in statuses(received)), received
    assert is_alive(garbage_server)


@pytest.fixture(scope="module")
def garbage_server(conv_net, tmp_path_factory):
    """One server for all examples: the null engine behind the real HTTP."""
    from farrier_contracts import bundle as bundles
    from farrier_contracts.bundle import Artifact, Manifest

    folder = tmp_path_factory.mktemp("garbage")
    artifacts = (Artifact("model", "null", "null", "fp32", "null"),)
    manifest = Manifest("net", "1.0", tuple(conv_net.inputs), tuple(conv_net.outputs), artifacts)
    bundles.build(folder / "b", manifest, {"model": b""})
    bundle = bundles.unpack(folder / "b", folder / "store")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = listening.getsockname()
        ready, ends = threading.Event(), []

        async def serve():
            loop = asyncio.get_running_loop()
            stop = asyncio.Event()
            ends.append(lambda: loop.call_soon_threadsafe(stop.set))
            with Runtime(bundle, post=loop.call_soon_threadsafe) as runtime:
                server = Server(Api("net", runtime, max_body_bytes=1 << 20).handle, settings=LIMITS)
                server.listen([listening])
                ready.set()
                await stop.wait()
                await server.drain(0.2)

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        assert ready.wait(60)
        yield address
        ends[0]()
        thread.join()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
inputs = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y"]) | json_values,
        "datatype": st.sampled_from(["FP32", "INT8", "BOOL", "UINT64", "BYTES"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data": st.lists(st.integers(-300, 300) | st.floats(), max_size=6) | json_values,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "shared_memory_region", "shared_memory_byte_size"]),
            json_values,
        )
        | json_values,
    },
)


@settings(max_examples=400, deadline=None)
@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(inputs, max_size=3) | json_values},
        optional={"id": json_values, "outputs": json_values, "parameters": json_values},
    ),
    st.binary(max_size=20),
    st.integers(0, 200) | st.none(),
)
def test_any_document_is_read_or_refused_in_one_sentence(document, rest, length):
    head = json.dumps(document).encode()
    sentence = ""
    try:
        messages.decode(head + rest, len(head) if length is None else length, no_region)
    except InputError as error:
        sentence = str(error)
    assert "\n" not in sentence


def no_region(name, offset, size):
    raise InputError("no such region")


@given(st.integers(0, 2**64 - 1), st.sampled_from(["INT8", "UINT8", "INT64", "UINT64", "FP64", "BOOL"]))
def test_integers_come_through_json_whole_or_not_at_all(value, datatype):
    dtype = tensors.dtype_of("x", datatype)
    try:
        array = tensors.from_json("x", [value], dtype, (1,))
    except InputError:
        assert dtype.kind in "iu"
        assert value > np.iinfo(dtype).max
    else:
        assert dtype.kind not in "iu" or int(array[0]) == value


def test_what_json_cannot_say_is_refused():
    with pytest.raises(InputError, match="binary data"):
        tensors.to_json("y", np.array([1.0, math.nan]))


def test_binary_data_is_aligned_for_the_engine():
    raw = np.arange(4, dtype=np.float64).tobytes()
    for shift in range(8):
        view = memoryview(bytes(shift) + raw)[shift:]
        array = tensors.from_bytes("x", view, np.dtype("<f8"), (4,))
        assert array.flags.aligned
        np.testing.assert_array_equal(array, np.arange(4))
