"""The worker process: its life, a swap under load, a kill, bad bundles."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from farrier_agent.runtime import Runtime
from farrier_agent.stats import Stats
from farrier_contracts.tensors import TensorSpec

CLIENTS = 8
SWAPS = 4


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def infer_body(x: np.ndarray) -> tuple[bytes, dict[str, str]]:
    described = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
    document = {
        "inputs": [{**described, "parameters": {"binary_data_size": x.nbytes}}],
        "outputs": [{"name": "scores", "parameters": {"binary_data": False}}],
    }
    head = json.dumps(document).encode()
    return head + x.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def ask(connection, x):
    body, headers = infer_body(x)
    connection.request("POST", "/v2/models/net/infer", body, headers)
    response = connection.getresponse()
    document = json.loads(response.read())
    assert response.status == 200, document
    [output] = document["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_it_loads_serves_drains_and_exits(start_worker, conv_bundle, conv_net, inputs_of, place):
    worker = start_worker(conv_bundle)
    ready = worker.event()
    assert (ready["event"], ready["golden"]) == ("ready", 8)
    assert ready["load_ms"] > 0
    worker.send(do="serve")
    assert worker.event() == {"event": "serving"}
    x = inputs_of(1)["x"]
    for connection in (UnixConnection(place.path), http.client.HTTPConnection(place.url)):
        np.testing.assert_allclose(ask(connection, x), conv_net.direct({"x": x})["scores"], rtol=1e-5)
        connection.close()
    worker.send(do="drain", within_s=10)
    assert worker.event() == {"event": "drained"}
    assert worker.process.wait(30) == 0
    assert Path(place.path).is_socket()  # it belongs to the supervisor, and the next worker uses it
    with Stats.open(worker.stats) as stats:
        assert stats.read().requests == 2


def test_the_heartbeat_goes_on(start_worker, conv_bundle, eventually):
    worker = start_worker(conv_bundle).serve()
    with Stats.open(worker.stats) as stats:
        first = stats.read().heartbeat
        eventually(lambda: stats.read().heartbeat > first + 1)


def test_the_heartbeat_stops_while_the_engine_hangs(start_worker, make_bundle, eventually):
    """A real model that runs for minutes: a loop of multiplications."""
    bundle = make_bundle(
        endless_model(), [TensorSpec("n", "INT64", (1,))], [TensorSpec("y", "FP32", (64, 64))]
    )
    worker = start_worker(bundle).serve()
    with Stats.open(worker.stats) as stats, socket.create_connection(worker.address) as client:
        n = {"name": "n", "datatype": "INT64", "shape": [1], "data": [1 << 40]}
        body = json.dumps({"inputs": [n]}).encode()
        client.sendall(b"POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: stats.read().in_flight == 1)
        beats = eventually_still(lambda: stats.read().heartbeat)
        assert stats.read().heartbeat == beats
        worker.process.kill()


def endless_model() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    start = numpy_helper.from_array(np.eye(64, dtype=np.float32), "start")
    true = numpy_helper.from_array(np.array(True), "true")
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "state"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [64, 64]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [64, 64]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["n"], ["count"]),
            helper.make_node("Loop", ["count", "true", "start"], ["y"], body=body),
        ],
        "endless",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [start, true],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def eventually_still(read, *, for_s: float = 1.5):
    """Return a value once it has not changed for a while."""
    event = threading.Event()
    value = read()
    for _ in range(40):
        event.wait(for_s)
        if read() == value:
            return value
        value = read()
    pytest.fail("it never stood still")


def test_a_swap_under_load_drops_no_request(start_worker, conv_bundle, inputs_of, place):
    """Clients keep asking, on kept-alive and on fresh connections, while workers take turns on the same sockets."""
    stop, failures, answered = threading.Event(), [], [0] * CLIENTS
    with Runtime(conv_bundle) as reference:
        cases = [inputs_of(seed, 1 + seed % 3)["x"] for seed in range(16)]
        wanted = [reference.infer({"x": x})["scores"] for x in cases]

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(place.url) if number % 2 else UnixConnection(place.path)
        try:
            while not stop.is_set():
                case = (number + answered[number]) % len(cases)
                got = ask(connection, cases[case])
                if not np.allclose(got, wanted[case], rtol=1e-4, atol=1e-5):
                    failures.append((number, "wrong answer"))
                answered[number] += 1
                if number % 4 == 0:
                    connection.close()
        except Exception as error:
            failures.append((number, repr(error)))
        finally:
            connection.close()

    worker = start_worker(conv_bundle, stats="stats-0").serve()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for turn in range(1, SWAPS + 1):
        successor = start_worker(conv_bundle, stats=f"stats-{turn}").serve()
        worker.send(do="drain", within_s=30)
        assert worker.event() == {"event": "drained"}
        assert worker.process.wait(30) == 0
        worker = successor
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    counted = 0
    for turn in range(SWAPS + 1):
        with Stats.open(worker.stats.with_name(f"stats-{turn}")) as stats:
            counted += stats.read().requests
    assert counted == sum(answered)
    print(f"{sum(answered)} requests over {SWAPS} swaps, none failed")


def test_32_clients_at_once_all_get_their_own_answers_from_shared_runs(
    start_worker, conv_bundle, inputs_of, place
):
    worker = start_worker(conv_bundle).serve()
    with Runtime(conv_bundle) as reference:
        cases = [inputs_of(seed, 1 + seed % 3)["x"] for seed in range(32)]
        wanted = [reference.infer({"x": x})["scores"] for x in cases]
    failures, together = [], threading.Barrier(32)

    def client(number: int) -> None:
        connection = UnixConnection(place.path)
        try:
            for step in range(15):
                together.wait(60)
                case = (number + step) % 32
                if not np.allclose(ask(connection, cases[case]), wanted[case], rtol=1e-4, atol=1e-5):
                    failures.append((number, step))
        except Exception as error:
            failures.append((number, repr(error)))
            together.abort()
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with Stats.open(worker.stats) as stats:
        seen = stats.read()
    assert seen.requests == 32 * 15
    assert seen.items == 15 * sum(len(x) for x in cases)
    assert seen.executions < seen.requests  # some ran together


def test_a_full_queue_is_503(start_worker, conv_bundle, inputs_of, place):
    start_worker(conv_bundle, queue_limit=0).serve()
    connection = UnixConnection(place.path)
    body, headers = infer_body(inputs_of(1)["x"])
    connection.request("POST", "/v2/models/net/infer", body, headers)
    response = connection.getresponse()
    assert (response.status, response.getheader("Retry-After")) == (503, "1")
    assert "requests wait already" in json.loads(response.read())["error"]
    connection.close()


def test_a_killed_worker_keeps_its_statistics(start_worker, conv_bundle, inputs_of, place):
    worker = start_worker(conv_bundle).serve()
    connection = UnixConnection(place.path)
    for seed in range(5):
        ask(connection, inputs_of(seed)["x"])
    connection.close()
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    again = start_worker(conv_bundle).serve()
    connection = UnixConnection(place.path)
    ask(connection, inputs_of(6)["x"])
    connection.close()
    with Stats.open(again.stats) as stats:
        assert stats.read().requests == 6


def test_it_ends_with_its_supervisor(start_worker, conv_bundle):
    serving, loading = start_worker(conv_bundle).serve(), start_worker(conv_bundle, stats="other")
    for worker in (serving, loading):
        worker.control.shutdown(socket.SHUT_RDWR)
        assert worker.process.wait(30) == 0


def test_sigterm_drains(start_worker, conv_bundle):
    worker = start_worker(conv_bundle).serve()
    worker.process.terminate()
    assert worker.event() == {"event": "drained"}
    assert worker.process.wait(30) == 0


def test_a_bad_bundle_fails_with_a_sentence(start_worker, make_bundle, conv_net, conv_bundle):
    worker = start_worker(make_bundle(b"no model", conv_net.inputs, conv_net.outputs))
    failed = worker.event()
    assert failed["event"] == "failed"
    assert "cannot load the model" in failed["reason"]
    assert worker.process.wait(30) == 2
    conv_bundle.part("model").write_bytes(conv_net.model[:-1] + b"\xff")
    worker = start_worker(conv_bundle)
    assert "'model' is damaged" in worker.event()["reason"]
    assert worker.process.wait(30) == 2


def test_nonsense_on_the_control_socket_is_ignored(start_worker, conv_bundle):
    worker = start_worker(conv_bundle).serve()
    worker.control.sendall(b'nonsense\n[]\n{"do": "dance"}\n\xff\xfe\n')
    worker.send(do="drain", within_s=1)
    assert worker.event() == {"event": "drained"}


@pytest.mark.parametrize("settings", [{"speed": 9}, {"threads": "many"}, {"max_body_bytes": -1}])
def test_wrong_settings_are_refused(start_worker, conv_bundle, settings):
    worker = start_worker(conv_bundle, **settings)
    assert worker.process.wait(30) == 2
