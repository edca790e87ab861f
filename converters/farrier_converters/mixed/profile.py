"""How long each layer takes in ONNX Runtime, from its own profile."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from farrier_contracts.errors import InputError

from ..graph import run
from ..graph.edit import Graph, standard
from ..model import Model

RUNS = 12
WARM = 2  # runs before those that count
FUSED = ("Relu", "Clip", "Add", "Sigmoid", "LeakyRelu", "HardSigmoid")  # by the engine, into a convolution
_SUFFIX = re.compile(r"(_token_\d+|_nchwc|_nhwc|_kernel_time|/duplicated|_fused)+$")


def layer_ms(
    model: Model, names: Mapping[str, str], feeds: dict[str, np.ndarray], *, threads: int = 1
) -> dict[str, float]:
    """Return the median milliseconds of each layer; `names` (see `aliases`) says whose each kernel is.

    A layer that none of the kernels belongs to is given an equal share of the time that nobody claims.
    """
    found: dict[str, float] = defaultdict(float)
    unclaimed = 0.0
    for name, ms in _kernels(model, feeds, threads).items():
        layer = names.get(_SUFFIX.sub("", name))
        if layer is None:
            unclaimed += ms
        else:
            found[layer] += ms
    layers = dict.fromkeys(names.values())
    missing = sum(layer not in found for layer in layers)
    return {layer: found[layer] if layer in found else unclaimed / missing for layer in layers}


def aliases(model: Model, layers: Sequence[str]) -> dict[str, str]:
    """Return the names that a kernel of each layer (named by its first output) may have, here and once quantized.

    ONNX Runtime names a fused operator after its node or after one of the tensors that the fusion swallowed.
    """
    graph = Graph(model)
    claims: dict[str, set[str]] = defaultdict(set)
    for layer in layers:
        chain = [graph.producer[layer]]
        while (reader := graph.only_reader(chain[-1].output[0])) is not None and standard(reader, *FUSED):
            chain.append(reader)
        for name in {chain[0].name, *(name for node in chain for name in node.output)} - {""}:
            claims[name].add(layer)
        claims[layer].add(layer)
    return {name: next(iter(owners)) for name, owners in claims.items() if len(owners) == 1}


def weight_bytes(model: Model, layer: str) -> float:
    """Return the bytes of the constants that a layer (named by its first output) reads."""
    node = next(node for node in model.proto.graph.node if layer in node.output)
    names = set(node.input[1:])
    return float(sum(t.ByteSize() for t in model.proto.graph.initializer if t.name in names))


def _kernels(model: Model, feeds: dict[str, np.ndarray], threads: int) -> dict[str, float]:
    """Return the median milliseconds per run of every kernel, by ONNX Runtime's name for it."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.intra_op_num_threads = threads
        options.log_severity_level = run.QUIET
        try:
            session = ort.InferenceSession(
                model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            for _ in range(RUNS + WARM):
                session.run(None, feeds)
        except run.runtime_errors() as error:
            raise InputError(f"the model does not run: {run.brief(error)}") from None
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"]].append(event["dur"] / 1e3)
    return {name: float(np.median(values[WARM:] or values)) for name, values in times.items()}
