"""How long `farrier check` takes as a command, from nothing to the answer, on a network of 500 nodes.

    python -m benchmarks.toolchains.check_time [--nodes 500] [--runs 5]

A chain of residual blocks in ONNX is read for ONNX Runtime's rules, and lowered to TFLite for the Edge TPU's.
The figure is the slower median, in seconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..figure import emit

TARGETS = ("x86-vnni", "coral-usb")
CHANNELS, SIDE = 32, 28


def network(nodes: int, path: Path) -> Path:
    """Write blocks of Conv, Relu, Conv, Add, Relu until there are so many nodes."""
    shape = [1, CHANNELS, SIDE, SIDE]
    made, constants, name = [], [], "x"
    while len(made) < nodes:
        number = len(made)
        for half in ("a", "b"):
            weights = np.full((CHANNELS, CHANNELS, 3, 3), 0.01, np.float32)
            constants.append(numpy_helper.from_array(weights, f"w{number}{half}"))
        names = [f"{kind}{number}" for kind in ("c", "r", "d", "s", "y")]
        made += [
            helper.make_node("Conv", [name, f"w{number}a"], [names[0]], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [names[0]], [names[1]]),
            helper.make_node("Conv", [names[1], f"w{number}b"], [names[2]], pads=[1, 1, 1, 1]),
            helper.make_node("Add", [names[2], name], [names[3]]),
            helper.make_node("Relu", [names[3]], [names[4]]),
        ]
        name = names[4]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end in ("x", name)]
    graph = helper.make_graph(made, "blocks", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def seconds(path: Path, target: str) -> float:
    command = [sys.executable, "-m", "farrier", "check", str(path), "--target", target, "--json"]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    taken: dict[str, list[float]] = {target: [] for target in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        path = network(options.nodes, Path(folder) / "blocks.onnx")
        for _ in range(options.runs):
            for target in TARGETS:
                taken[target].append(seconds(path, target))
    medians = {target: statistics.median(values) for target, values in taken.items()}
    for target, median in medians.items():
        print(f"{target:10} {median:.2f} s, {options.nodes} nodes")
    emit("check_seconds", max(medians.values()), goal=2.0, unit="s", at_most=True)


if __name__ == "__main__":
    main()
