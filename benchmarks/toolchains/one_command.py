"""How long the one command takes on a ResNet-50-sized network, INT8 and report included.

    python -m benchmarks.toolchains.one_command [--keep FOLDER] [--engine onnxruntime]

ResNet-50 (He et al. 2015, table 1; 25.6 M parameters, batch norms unfused, 3 x 224 x 224) with random weights, whose
batch norms hold the statistics of what flows through it, as training leaves them; and no data of the user's:
`farrier optimize resnet50.onnx -o OUT`, as a person types it, in a process of its own. The figure is the whole
process's wall-clock time, with every engine that is installed unless `--engine` names some.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from farrier_converters.graph import run

from ..figure import emit

GOAL_S = 60.0
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width, blocks
EXPANSION = 4
CLASSES = 1000


class _ResNet:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float = 1.0) -> str:
        deviation = (2 / (inputs * kernel * kernel)) ** 0.5
        weight = self.rng.normal(0, deviation, (outputs, inputs, kernel, kernel))
        name = f"conv{len(self.nodes)}.w"
        pads = [kernel // 2] * 4
        x = self.add("Conv", [x, self.constant(name, weight)], pads=pads, strides=[stride, stride])
        fields = {
            "gamma": np.full(outputs, gain) * self.rng.uniform(0.8, 1.2, outputs),
            "beta": self.rng.normal(0, 0.1, outputs),
            "mean": self.rng.normal(0, 0.1, outputs),
            "variance": self.rng.uniform(0.8, 1.2, outputs),
        }
        norm = [self.constant(f"{x}.{key}", value) for key, value in fields.items()]
        return self.add("BatchNormalization", [x, *norm])

    def block(self, x: str, inputs: int, width: int, stride: int) -> str:
        y = self.add("Relu", [self.conv(x, inputs, width, 1)])
        y = self.add("Relu", [self.conv(y, width, width, 3, stride)])
        y = self.conv(y, width, width * EXPANSION, 1, gain=0.3)
        if stride != 1 or inputs != width * EXPANSION:
            x = self.conv(x, inputs, width * EXPANSION, 1, stride)
        return self.add("Relu", [self.add("Add", [y, x])])


def resnet50() -> onnx.ModelProto:
    net = _ResNet()
    x = net.add("Relu", [net.conv("images", 3, 64, 7, 2)])
    x = net.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (width, blocks) in enumerate(STAGES):
        for index in range(blocks):
            x = net.block(x, channels, width, 2 if stage and not index else 1)
            channels = width * EXPANSION
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x])])
    head = net.constant("fc.w", net.rng.normal(0, 0.02, (CLASSES, channels)))
    net.nodes.append(
        helper.make_node("Gemm", [x, head, net.constant("fc.b", np.zeros(CLASSES))], ["logits"], transB=1)
    )
    graph = helper.make_graph(
        net.nodes,
        "resnet50",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def settle(proto: onnx.ModelProto) -> None:
    """Give each batch norm, from first to last, the mean and variance per channel of its input on noise."""
    rows = np.random.default_rng(1).normal(size=(2, 3, 224, 224)).astype(np.float32)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    outputs = list(proto.graph.output)
    for norm in [n for n in proto.graph.node if n.op_type == "BatchNormalization"]:
        del proto.graph.output[:]
        proto.graph.output.append(helper.make_tensor_value_info(norm.input[0], TensorProto.FLOAT, None))
        values = np.asarray(run.session(proto).run(None, {"images": rows})[0])
        for name, value in ((norm.input[3], values.mean((0, 2, 3))), (norm.input[4], values.var((0, 2, 3)))):
            tensors[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--keep", type=Path, help="folder for the model and the results")
    arguments.add_argument(
        "--engine", help="try only these engines; else every one of this machine that is installed"
    )
    given = arguments.parse_args()
    keep = given.keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        path = folder / "resnet50.onnx"
        proto = resnet50()
        settle(proto)
        onnx.save(proto, path)
        start = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "farrier",
            "optimize",
            str(path),
            "-o",
            str(folder / "fitted"),
            "--json",
            *(("--engine", given.engine) if given.engine else ()),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.monotonic() - start
        facts = json.loads(done.stdout)
    for entry in facts["candidates"]:
        timed = entry["latency_ms"] or {}
        drop = "" if entry["drop"] is None else f"{entry['drop']:7.2%}"
        size = f"{(entry['bytes'] or 0) / 1e6:7.1f} MB"
        print(f"{entry['name']:18} {timed.get('p50', 0):8.2f} ms {size} {drop:>8}  {entry['reason']}")
    print(f"delivered: {facts['verdict']}")
    emit("one_command", seconds, goal=GOAL_S, unit="s", at_most=True)


if __name__ == "__main__":
    main()
