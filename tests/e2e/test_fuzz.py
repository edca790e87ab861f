"""Mutated graphs through check, optimize and its compilers: an artifact or one sentence, never anything else.

FARRIER_FUZZ=1000 runs a thousand of them (half an hour).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mutants import spoil
from onnx import helper, numpy_helper

import farrier
from farrier import cli
from farrier.optimization import Settings, TrialSettings
from farrier_contracts import bundle
from farrier_contracts.errors import FarrierError
from farrier_converters.measure import ChildSettings, LatencySettings

COUNT = int(os.environ.get("FARRIER_FUZZ", "24"))
TARGETS = ("host", "raspberry-pi-4", "coral-usb", "jetson-orin", "cortex-m-ethos-u")
QUICK = Settings(
    trial=TrialSettings(
        child=ChildSettings(open_limit_s=30, run_limit_s=20),
        latency=LatencySettings(rounds=1, most_rounds=1, round_s=0.001),
        profile=LatencySettings(rounds=1, most_rounds=1, round_s=0.001),
        profile_batches=(1,),
    )
)


def net(nodes: list[onnx.NodeProto], taken: list[Any], given: list[Any], **weights: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, given)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seeds() -> Iterator[onnx.ModelProto]:
    rng = np.random.default_rng(0)
    node = helper.make_node

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    yield net(
        [
            node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "v", "c"], ["d"], pads=[1, 1, 1, 1]),
            node("Add", ["d", "b"], ["e"]),
            node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
            node("GlobalAveragePool", ["f"], ["g"]),
            node("Flatten", ["g"], ["h"]),
            node("Gemm", ["h", "m", "n"], ["i"], transB=1),
            node("Softmax", ["i"], ["y"], axis=1),
        ],
        ["N", 3, 8, 8],
        ["N", 4],
        w=noise(8, 3, 3, 3),
        v=noise(8, 8, 3, 3),
        c=noise(8),
        m=noise(4, 8),
        n=noise(4),
    )
    yield net(
        [
            node("Split", ["x"], ["a", "b"], axis=1),
            node("Conv", ["a", "w"], ["c"], group=2, pads=[1, 1, 1, 1]),
            node("Concat", ["c", "b"], ["d"], axis=1),
            node("Resize", ["d", "", "scales"], ["e"], mode="nearest"),
            node("Transpose", ["e"], ["f"], perm=[0, 2, 3, 1]),
            node("Reshape", ["f", "shape"], ["g"]),
            node("MatMul", ["g", "m"], ["h"]),
            node("Sigmoid", ["h"], ["y"]),
        ],
        [1, 4, 4, 4],
        [1, 64, 3],
        w=noise(2, 1, 3, 3),
        scales=np.array([1, 1, 2, 2], np.float32),
        shape=np.array([1, -1, 4], np.int64),
        m=noise(4, 3),
    )
    yield net(
        [
            node("LSTM", ["x", "w", "r"], ["a", "b"], hidden_size=4),
            node("Squeeze", ["b", "first"], ["c"]),
            node("MatMul", ["c", "m"], ["d"]),
            node("Tanh", ["d"], ["y"]),
        ],
        [5, 1, 3],
        [1, 2],
        w=noise(1, 16, 3),
        r=noise(1, 16, 4),
        first=np.array([0], np.int64),
        m=noise(4, 2),
    )


@pytest.fixture(scope="module")
def graphs() -> list[onnx.ModelProto]:
    made = list(seeds())
    for proto in made:
        onnx.checker.check_model(proto, full_check=True)
    return made


@pytest.fixture
def attempt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[onnx.ModelProto, str], str]:
    """Check and optimize one graph for a target; return "artifact" or "sentence"."""

    def run(proto: onnx.ModelProto, target: str) -> str:
        model, out = tmp_path / "m.onnx", tmp_path / "out"
        model.write_bytes(proto.SerializeToString())
        shutil.rmtree(out, ignore_errors=True)
        code = cli.main(["check", str(model), "--target", target])
        said = capsys.readouterr()
        assert code in (0, 2), said.err
        assert said.out.strip() if code == 0 else said.err.count("\n") == 1
        try:
            result = farrier.optimize(model, target=target, precision="fp32,int8", out=out, settings=QUICK)
        except FarrierError as error:
            refusal = error
        else:
            assert result.artifact.stat().st_size > 0
            bundle.verify(result.bundle)
            return "artifact"
        assert refusal.exit_code in (2, 3), refusal
        assert "\n" not in str(refusal)
        assert not out.exists()
        return "sentence"

    return run


def test_a_mutated_graph_gives_an_artifact_or_a_sentence(graphs, attempt):
    random = np.random.default_rng(2026)
    seen = set()
    for index in range(COUNT):
        proto = onnx.ModelProto()
        proto.CopyFrom(graphs[index % len(graphs)])
        if index >= len(graphs):  # the first ones as they are: a fuzz of what never works finds nothing
            spoil(proto, random)
        seen.add(attempt(proto, TARGETS[index % len(TARGETS)]))
    assert seen == {"artifact", "sentence"}
