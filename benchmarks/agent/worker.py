"""Start a real agent worker on one bundle, as the supervisor does, and read what it costs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from farrier_agent.stats import Stats
from farrier_contracts.bundle import Artifact, Batching, BatchPoint, Manifest, StoredBundle, build, unpack
from farrier_contracts.tensors import TensorSpec

NAME = "net"


@dataclass(frozen=True)
class Worker:
    """A serving worker: where it listens, and its process."""

    endpoint: str
    unix_socket: Path
    pid: int

    def cpu_us(self) -> float:
        """User and system time so far, in microseconds (a clock tick is 10 ms: measure over many requests)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") * 1e6


def bundle_of(
    proto: onnx.ModelProto, folder: Path, *, max_batch: int = 16, cache: bool = False
) -> StoredBundle:
    """Make and unpack a bundle around an ONNX graph with one input `x` and one output `y`."""
    from farrier_contracts.bundle import Cache

    def spec(value: onnx.ValueInfoProto) -> TensorSpec:
        dims = value.type.tensor_type.shape.dim
        return TensorSpec(value.name, "FP32", tuple(d.dim_value or -1 for d in dims))

    manifest = Manifest(
        NAME,
        "1",
        (spec(proto.graph.input[0]),),
        (spec(proto.graph.output[0]),),
        (Artifact("model.onnx", "onnx", "onnxruntime", "fp32", "host"),),
        batching=Batching(
            max_batch, tuple(BatchPoint(b, b / (b + 1)) for b in (1, 2, 4, 8, 16) if b <= max_batch)
        ),
        cache=Cache(cache),
    )
    path = folder / "net.farrier"
    build(path, manifest, {"model.onnx": proto.SerializeToString()})
    return unpack(path, folder / "store")


@contextmanager
def serving(bundle: StoredBundle, folder: Path) -> Iterator[Worker]:
    """Run a worker on a loopback port and a Unix socket until the block is left."""
    ours, theirs = socket.socketpair()
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(folder / "net.sock"))
    unix.listen(128)
    stats = folder / "stats"
    Stats.create(stats).close()
    fds = (tcp.fileno(), unix.fileno())
    arguments = [
        "--store",
        str(bundle.store),
        "--digest",
        bundle.digest,
        "--name",
        NAME,
        "--stats",
        str(stats),
    ]
    arguments += ["--listen-fd", ",".join(map(str, fds)), "--control-fd", str(theirs.fileno())]
    settings = ["--settings", json.dumps({"threads": 1})]
    process = subprocess.Popen(
        [sys.executable, "-m", "farrier_agent.worker", *arguments, *settings],
        pass_fds=(*fds, theirs.fileno()),
    )
    theirs.close()
    with process, ours, tcp, unix, ours.makefile("rw") as control:
        try:
            _expect(control.readline(), "ready")
            control.write('{"do": "serve"}\n')
            control.flush()
            _expect(control.readline(), "serving")
            yield Worker(f"http://127.0.0.1:{tcp.getsockname()[1]}", folder / "net.sock", process.pid)
        finally:
            process.terminate()


def _expect(line: str, event: str) -> None:
    document = json.loads(line or "{}")
    if document.get("event") != event:
        raise SystemExit(f"the worker did not become {event}: {document}")
