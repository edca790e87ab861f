"""Rebuild the CIFAR-10 ResNet20 of a legacy torch checkpoint as ONNX, without torch.

    python examples/resnet20.py resnet20-12fca82f.th resnet20.onnx

The network is the one of He et al. 2015, section 4.2, with option-A shortcuts: a stride-2 slice whose missing
channels are zeros. Batch norms stay nodes of their own, so that an optimizer has something to fuse. Input
`images` [N, 3, 32, 32] float32, normalised with mean .485 .456 .406 and std .229 .224 .225; output `logits`
[N, 10].
"""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

MAGIC = 0x1950A86A20F9469CFC6C  # opens the old `torch.save` format, before the zip one
PROTOCOL = 1001
MAX_ELEMENTS = 1 << 28  # of one storage
WIDTHS = (16, 32, 64)
OPSET = 17
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a legacy checkpoint's `state_dict`, without the prefix `module.`.

    Its pickles may build ordered dictionaries and tensors and nothing else; ValueError says what they tried.
    """
    with path.open("rb") as file:
        if _TensorUnpickler(file).load() != MAGIC or _TensorUnpickler(file).load() != PROTOCOL:
            raise ValueError(f"{path} is not a legacy torch checkpoint")
        _TensorUnpickler(file).load()  # sizes of C types, which the array dtypes above fix
        reader = _TensorUnpickler(file)
        document = reader.load()
        for key in _TensorUnpickler(file).load():
            reader.fill(key, file)
    tensors = document["state_dict"]
    return {name.removeprefix("module."): tensor.array() for name, tensor in tensors.items()}


class _Tensor:
    """A view on a storage whose bytes come later in the file."""

    def __init__(
        self, storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if offset < 0 or min(strides, default=0) < 0 or min(shape, default=1) < 1 or last >= storage.size:
            raise ValueError("a tensor reaches outside of its storage")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        size = self.storage.itemsize
        view = self.storage[self.offset :]
        return np.lib.stride_tricks.as_strided(view, self.shape, [s * size for s in self.strides]).copy()


class _TensorUnpickler(pickle.Unpickler):
    """Reads tensors, and refuses every other class that the pickle names."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor"):
            return _Tensor
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *fields: _Tensor(*fields[:4])
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise ValueError(f"the checkpoint names {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _location, elements, view = pid
        if kind != "storage" or view is not None or not 0 <= elements <= MAX_ELEMENTS:
            raise ValueError(f"unknown storage {pid!r}")
        return self.storages.setdefault(key, np.zeros(elements, dtype))

    def fill(self, key: str, file: IO[bytes]) -> None:
        """Read the bytes of one storage; they stand in the file after its number of elements."""
        storage = self.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.size:
            raise ValueError(f"storage {key} is damaged")
        raw = file.read(storage.nbytes)
        if len(raw) != storage.nbytes:
            raise ValueError("the checkpoint is truncated")
        storage[:] = np.frombuffer(raw, storage.dtype)


class _Builder:
    """Collects nodes and initializers; each method returns the name of the tensor it makes."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv_norm(self, x: str, conv: str, norm: str, *, stride: int = 1) -> str:
        weight = self.constant(f"{conv}.weight", self.weights[f"{conv}.weight"])
        x = self.node("Conv", [x, weight], conv, pads=[1, 1, 1, 1], strides=[stride, stride])
        fields = ("weight", "bias", "running_mean", "running_var")
        parameters = [self.constant(f"{norm}.{f}", self.weights[f"{norm}.{f}"]) for f in fields]
        return self.node("BatchNormalization", [x, *parameters], norm)

    def shortcut(self, x: str, prefix: str, grow: int) -> str:
        """Every second pixel, with `grow` channels of zeros, half before and half after."""
        bounds = {"starts": [0, 0], "ends": [1 << 30] * 2, "axes": [2, 3], "steps": [2, 2]}
        names = [self.constant(f"{prefix}.{k}", np.array(v, np.int64)) for k, v in bounds.items()]
        x = self.node("Slice", [x, *names], f"{prefix}.slice")
        half = grow // 2
        pads = self.constant(f"{prefix}.pads", np.array([0, half, 0, 0, 0, half, 0, 0], np.int64))
        return self.node("Pad", [x, pads], f"{prefix}.pad")

    def block(self, x: str, prefix: str, *, stride: int, grow: int) -> str:
        y = self.conv_norm(x, f"{prefix}.conv1", f"{prefix}.bn1", stride=stride)
        y = self.node("Relu", [y], f"{prefix}.relu1")
        y = self.conv_norm(y, f"{prefix}.conv2", f"{prefix}.bn2")
        x = self.shortcut(x, f"{prefix}.shortcut", grow) if grow else x
        y = self.node("Add", [y, x], f"{prefix}.add")
        return self.node("Relu", [y], f"{prefix}.relu2")


def build(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the network as ONNX; its depth follows from the checkpoint's keys (20, 32, 44, 56, 110)."""
    b = _Builder(weights)
    x = b.node("Relu", [b.conv_norm("images", "conv1", "bn1")], "relu1")
    depth = sum(key.startswith("layer1.") and key.endswith(".conv1.weight") for key in weights)
    for stage, width in enumerate(WIDTHS, start=1):
        for index in range(depth):
            first = stage > 1 and index == 0
            x = b.block(
                x, f"layer{stage}.{index}", stride=1 + first, grow=width - WIDTHS[stage - 2] if first else 0
            )
    x = b.node("GlobalAveragePool", [x], "pool")
    x = b.node("Flatten", [x], "flatten")
    head = [b.constant(f"linear.{f}", weights[f"linear.{f}"]) for f in ("weight", "bias")]
    b.node("Gemm", [x, *head], "logits", transB=1)
    graph = helper.make_graph(
        b.nodes,
        "resnet_cifar10",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 10])],
        initializer=list(b.initializers.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Read the checkpoint named first and write the ONNX file named second."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    model = build(read_checkpoint(Path(sys.argv[1])))
    Path(sys.argv[2]).write_bytes(model.SerializeToString(deterministic=True))
    print(f"wrote {sys.argv[2]}: {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
