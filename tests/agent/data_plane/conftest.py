"""Models and bundles for the data plane's tests: real ones, built here or taken from the shared data."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farrier_contracts import bundle as bundles
from farrier_contracts.bundle import Artifact, Batching, BatchPoint, Cache, Golden, Manifest, StoredBundle
from farrier_contracts.tensors import TensorSpec

WORKER_LIMIT_S = 60.0

Arrays = Mapping[str, np.ndarray]


def npz(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@dataclass
class Maker:
    """Builds bundles in a folder; keeps both the file and the unpacked form."""

    folder: Path
    count: int = 0

    def __call__(
        self,
        model: bytes,
        inputs: list[TensorSpec],
        outputs: list[TensorSpec],
        *,
        engine: str = "onnxruntime",
        max_batch: int = 1,
        golden: Arrays | None = None,
        atol: float = 1e-4,
        cache: bool = True,
        options: Mapping[str, object] | None = None,
        **fields: object,
    ) -> StoredBundle:
        self.count += 1
        manifest = Manifest(
            name="model",
            version="1.0",
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            artifacts=(Artifact("model", engine, engine, "fp32", "host", options or {}),),
            golden=Golden("golden.npz", {spec.name: atol for spec in outputs})
            if golden is not None
            else None,
            batching=Batching(
                max_batch, tuple(BatchPoint(n, 0.5 + 0.1 * n) for n in (1, 2, 4, 8, 16) if n <= max_batch)
            ),
            cache=Cache(cache),
            **fields,  # type: ignore[arg-type]
        )
        parts = {"model": model}
        if golden is not None:
            parts["golden.npz"] = npz(golden)
        path = self.folder / f"{self.count}.farrier"
        bundles.build(path, manifest, parts)
        return bundles.unpack(path, self.folder / "store")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Maker:
    folder = tmp_path / "bundles"
    folder.mkdir()
    return Maker(folder)


@dataclass(frozen=True)
class Net:
    """A model's bytes, its tensors, and a direct run of it to compare with."""

    model: bytes
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    def direct(self, inputs: Arrays) -> dict[str, np.ndarray]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(self.model, options)
        names = [spec.name for spec in self.outputs]
        return dict(zip(names, session.run(names, dict(inputs))))


@pytest.fixture(scope="session")
def conv_net() -> Net:
    """A convolution with two outputs: class scores (FP32) and the best class (INT64); axis 0 is free."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(8, 1, 3, 3)).astype(np.float32),
        "b": random.normal(size=8).astype(np.float32),
        "d": random.normal(size=(8, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 5]),
            helper.make_tensor_value_info("best", TensorProto.INT64, ["n", 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Net(
        model.SerializeToString(),
        [TensorSpec("x", "FP32", (-1, 1, 8, 8))],
        [TensorSpec("scores", "FP32", (-1, 5)), TensorSpec("best", "INT64", (-1, 1))],
    )


@pytest.fixture(scope="session")
def stored_model() -> Callable[..., Any]:
    """Build a graph of one MatMul with weights stored as INT8: `stored_model(weights, scale, axis=, zero=)`."""
    from onnx import TensorProto, helper, numpy_helper

    def make(weights, scale, *, axis=0, zero=True):
        per_channel = scale.ndim == 1
        attributes = {"axis": axis} if per_channel else {}
        names = ["w", "ws", "wz"] if zero else ["w", "ws"]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", names, ["wd"], **attributes),
            helper.make_node("MatMul", ["xd", "wd"], ["y"]),
        ]
        constants = {
            "s": np.float32(0.05),
            "z": np.int8(0),
            "w": weights,
            "ws": scale,
            "wz": np.zeros(scale.shape, np.int8),
        }
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, weights.shape[0]])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, weights.shape[1]])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="tests")

    return make


@pytest.fixture
def conv_bundle(make_bundle: Maker, conv_net: Net) -> StoredBundle:
    """The convolution with batches up to 16, eight golden cases and no cache."""
    x = np.random.default_rng(1).normal(size=(8, 1, 8, 8)).astype(np.float32)
    golden = {"in.x": x, **{f"out.{name}": array for name, array in conv_net.direct({"x": x}).items()}}
    return make_bundle(
        conv_net.model, conv_net.inputs, conv_net.outputs, max_batch=16, golden=golden, cache=False
    )


@pytest.fixture
def inputs_of() -> Callable[[int, int], Arrays]:
    """Inputs for the convolution: `inputs_of(seed, rows)`."""

    def make(seed: int, rows: int = 1) -> Arrays:
        return {"x": np.random.default_rng(seed).normal(size=(rows, 1, 8, 8)).astype(np.float32)}

    return make


class Worker:
    """A worker process as the supervisor starts it, with its end of the control socket."""

    def __init__(
        self, bundle: StoredBundle, sockets: list[socket.socket], stats: Path, settings: dict
    ) -> None:
        mine, theirs = socket.socketpair()
        fds = [listening.fileno() for listening in sockets]
        command = [
            *(
                sys.executable,
                "-m",
                "farrier_agent.worker",
                "--store",
                bundle.store,
                "--digest",
                bundle.digest,
            ),
            *("--name", "net", "--listen-fd", ",".join(map(str, fds)), "--control-fd", str(theirs.fileno())),
            *("--stats", stats, "--settings", json.dumps(settings)),
        ]
        self.stats = stats
        self.address = sockets[0].getsockname()
        self.process = subprocess.Popen(list(map(str, command)), pass_fds=[*fds, theirs.fileno()])
        theirs.close()
        mine.settimeout(WORKER_LIMIT_S)
        self.control = mine
        self._lines = mine.makefile("rb")

    def event(self) -> dict:
        return json.loads(self._lines.readline() or b'{"event": "gone"}')

    def send(self, **order: object) -> None:
        self.control.sendall(json.dumps(order).encode() + b"\n")

    def serve(self) -> Worker:
        ready = self.event()
        assert ready["event"] == "ready", ready
        self.send(do="serve")
        assert self.event() == {"event": "serving"}
        return self

    def close(self) -> None:
        self._lines.close()
        self.control.close()
        try:
            self.process.wait(WORKER_LIMIT_S)
        finally:
            self.process.kill()
            self.process.wait()


@dataclass
class Place:
    """Where a worker serves: a TCP port and a Unix socket, held open for all workers of one test."""

    tcp: socket.socket
    unix: socket.socket

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.tcp.getsockname()[1]}"

    @property
    def path(self) -> str:
        return self.unix.getsockname()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    folder = Path(tempfile.mkdtemp(prefix="fa"))  # a Unix socket's path is at most 107 bytes long
    tcp.bind(("127.0.0.1", 0))
    unix.bind(str(folder / "s"))
    for listening in (tcp, unix):
        listening.listen(256)
    yield Place(tcp, unix)
    tcp.close()
    unix.close()
    shutil.rmtree(folder)


@pytest.fixture
def start_worker(place: Place, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start workers on the test's place: `start_worker(bundle, **settings)`; each is ended after the test."""
    workers: list[Worker] = []

    def start(bundle: StoredBundle, *, stats: str = "stats", **settings: object) -> Worker:
        worker = Worker(bundle, [place.tcp, place.unix], tmp_path / stats, settings)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.close()
