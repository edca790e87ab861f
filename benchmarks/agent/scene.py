"""A whole agent with one remembered deployment, its broker, and the bare process that it is compared with."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from farrier_agent.supervisor import remembered, slots

from .. import networks
from .worker import NAME, bundle_of

LIMIT_S = 60
POLL_S = 0.01
SHAPE = (1, 3, 64, 64)
# what an application without Farrier does: import, load, run once; then it waits to be looked at
BARE = f"""
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {{"x": numpy.ones({SHAPE}, numpy.float32)}})
print("ran", flush=True)
sys.stdin.read()
"""
BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": SHAPE, "data": [1] * int(np.prod(SHAPE))}]}
).encode()


class Scene:
    """A device's folder, ready for `farrier-agent run`, and the same model in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker_port, self.api_port = _free_ports(2)
        proto = networks.conv_net()
        self.model = folder / "model.onnx"
        self.model.write_bytes(proto.SerializeToString())
        state = folder / "state"
        state.mkdir()
        # batches of one, as the bare process runs; unpacked where the agent looks: STATE/store
        bundle = bundle_of(proto, state, max_batch=1)
        release = slots.Release(NAME, "1", self.api_port)
        slot = slots.Slot(NAME, wanted=release, good=slots.Build(release, bundle.digest))
        remembered.save(state / "deployments.json", version=1, slots=[slot])
        (folder / "root.json").write_text("{}")  # fetches would need it; nothing is fetched here
        self.config = folder / "agent.toml"
        self.config.write_text(
            f'device = "edge-1"\nfleet = "bench"\nstate_dir = "state"\n'
            f'[broker]\nurl = "mqtt://127.0.0.1:{self.broker_port}"\n'
            f'[repository]\nurl = "repository"\nroot = "root.json"\n'
        )

    @contextmanager
    def broker(self) -> Iterator[None]:
        """Run mosquitto until the block is left."""
        binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if binary is None:
            raise SystemExit("this benchmark needs mosquitto; install it with: apt install mosquitto")
        config = self.folder / "mosquitto.conf"
        config.write_text(f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\n")
        with (self.folder / "broker.log").open("wb") as log:
            process = subprocess.Popen([binary, "-c", str(config)], stdout=log, stderr=log)
        with process:
            try:
                _connected(self.broker_port).close()
                yield
            finally:
                process.terminate()

    @contextmanager
    def agent(self) -> Iterator[int]:
        """Run the agent until the block is left, then end it at once; gives the supervisor's process."""
        command = [sys.executable, "-m", "farrier_agent", "run", "--config", str(self.config)]
        with (self.folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        with process:
            try:
                yield process.pid
            finally:
                process.kill()  # an orderly end would wait for a collector's acknowledgements
        _wait_until_free(self.api_port)

    @contextmanager
    def bare(self) -> Iterator[int]:
        """Run the bare process; the block begins after its first inference."""
        command = [sys.executable, "-c", BARE, str(self.model)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with process:
            assert process.stdout
            if process.stdout.readline() != "ran\n":
                raise SystemExit("the bare process failed")
            yield process.pid  # its stdin is closed on the way out, which ends it

    def infer(self) -> None:
        """Ask the agent once, as soon as it listens."""
        head = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        with _connected(self.api_port) as link:
            link.sendall(head.encode() + BODY)
            answer = link.recv(1 << 16)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the agent answered {answer[:200]!r}")


class Births:
    """Waits at the broker for the birth message of the device."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self._born = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, "births")
        self._client.on_message = self._on_message
        self._client.on_connect = self._on_connect
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def wait(self) -> float:
        """Return when the next birth message arrived, in seconds of `time.perf_counter`."""
        if not self._born.wait(LIMIT_S):
            raise SystemExit("the agent did not connect to the broker")
        self._born.clear()
        return self._at

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, *_: object) -> None:
        self._client.subscribe("farrier/v1/bench/edge-1/birth", 1)

    def _on_message(self, _client: object, _data: object, message: object) -> None:
        if not message.retain:  # type: ignore[attr-defined] - a retained one is of an earlier life
            self._at = time.perf_counter()
            self._born.set()


def pss_mb(pid: int) -> float:
    """Return the proportional set size: private memory, and each shared page divided among its users."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this kernel tells no proportional set size")


def children(pid: int) -> list[int]:
    """Return the child processes of a process with one thread that starts them."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def _wait_until_free(port: int) -> None:
    """Wait for the worker to be gone with its sockets."""
    deadline = time.monotonic() + LIMIT_S
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while time.monotonic() < deadline:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                time.sleep(POLL_S)
            else:
                return
    raise SystemExit(f"the agent still listens on port {port}")


def _connected(port: int) -> socket.socket:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing listens on port {port}") from None
            time.sleep(POLL_S)
