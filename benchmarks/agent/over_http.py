"""What a small request costs through the agent's local API, against the bare session: CPU time per inference.

    python -m benchmarks.agent.over_http

DS-CNN (2 kB input), one engine thread, the response cache off. The agent is a real worker process on loopback TCP,
driven by 32 kept-alive connections from a client process; the bare session runs batch 1 in this process. Both sides
take turns. Only the worker's CPU time counts, not the client's.
"""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import onnxruntime

from .. import networks
from ..figure import emit
from .worker import NAME, Worker, bundle_of, serving

ROUNDS, REQUESTS, CLIENTS = 10, 3200, 32
GOAL_RATIO = 2.5  # lean hand-made servers need about 2 on this model; LitServe, BentoML and MLServer 13 to 17
_HEADER = "Inference-Header-Content-Length"


def request_bytes(x: np.ndarray) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "parameters": {"binary_data_size": x.nbytes}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return header + x.tobytes(), {_HEADER: str(len(header))}


def drive(worker: Worker, bodies: list[tuple[bytes, dict[str, str]]]) -> None:
    """Send REQUESTS requests over CLIENTS connections, one thread each; any error ends the benchmark."""
    address = urlsplit(worker.endpoint)
    failures: list[str] = []

    def client(index: int) -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        for number in range(REQUESTS // CLIENTS):
            body, headers = bodies[(index + number) % len(bodies)]
            connection.request("POST", f"/v2/models/{NAME}/infer", body, headers)
            response = connection.getresponse()
            data = response.read()
            if response.status != 200:
                failures.append(f"{response.status}: {data[:200]!r}")
        connection.close()

    threads = [threading.Thread(target=client, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"the agent answered {failures[0]}")


def main() -> None:
    proto = networks.ds_cnn()
    xs = [np.random.default_rng(n).normal(size=(1, 1, 49, 10)).astype(np.float32) for n in range(16)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    raw_us, agent_us, rates = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(bundle_of(proto, folder), folder) as worker:
            bodies = [request_bytes(x) for x in xs]
            drive(worker, bodies)  # warm-up
            for _ in range(ROUNDS):
                start = time.process_time()
                for number in range(REQUESTS):
                    session.run(None, {"x": xs[number % len(xs)]})
                raw_us.append((time.process_time() - start) / REQUESTS * 1e6)
                before, clock = worker.cpu_us(), time.monotonic()
                drive(worker, bodies)
                agent_us.append((worker.cpu_us() - before) / REQUESTS)
                rates.append(REQUESTS / (time.monotonic() - clock))
    raw, agent = statistics.median(raw_us), statistics.median(agent_us)
    print(f"session.run    {raw:7.1f} CPU us per inference (batch 1, in process)")
    print(
        f"agent, HTTP    {agent:7.1f} CPU us per request ({CLIENTS} clients, {statistics.median(rates):.0f} requests/s)"
    )
    emit("agent_http_over_raw", agent / raw, goal=GOAL_RATIO, unit="x CPU time", at_most=True)


if __name__ == "__main__":
    main()
