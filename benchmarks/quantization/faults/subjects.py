"""Networks with rows for `benchmarks.quantization.drop_doctor`: real ones, and one that is trained here in seconds."""

from __future__ import annotations

import importlib.util
import io
import itertools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from farrier_converters import data, model, npz

ROOT = Path(__file__).resolve().parents[3]
EVALUATION, CALIBRATION = 256, 128


@dataclass(frozen=True)
class Subject:
    """A float network with labelled rows (or none), as files and in memory."""

    name: str
    model: model.Model
    rows: Path
    calib: Path
    calibration: data.Dataset
    convolutions: bool = True


def subject(
    name: str, proto: onnx.ModelProto, x: np.ndarray, labels: np.ndarray | None, folder: Path, **facts: bool
) -> Subject:
    """Cut the rows: the first are evaluated, the last calibrate."""
    source = model.from_proto(proto, name)
    key = source.inputs[0].name
    half = min(EVALUATION, len(x) // 2)
    rows, calib = folder / f"{name}.npz", folder / f"{name}-calib.npz"
    evaluated = {key: x[:half]} if labels is None else {key: x[:half], "labels": labels[:half]}
    rows.write_bytes(npz.to_bytes(evaluated))
    calib.write_bytes(npz.to_bytes({key: x[half : half + CALIBRATION]}))
    return Subject(name, source, rows, calib, data.load(calib, source.inputs), **facts)


def resnets(shared: Path, folder: Path) -> Iterator[Subject]:
    """CIFAR-10 ResNets that others trained."""
    if not (shared / "cifar10_jpg").is_dir():
        return
    spec = importlib.util.spec_from_file_location("resnet20", ROOT / "examples" / "resnet20.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    x, labels = cifar10(shared, EVALUATION + CALIBRATION)
    for file in sorted((shared / "resnet_cifar10_pth" / "pretrained_models").glob("resnet*.th")):
        yield subject(
            file.stem.partition("-")[0], script.build(script.read_checkpoint(file)), x, labels, folder
        )


def cifar10(shared: Path, count: int, *, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return normalised pictures [N, 3, 32, 32] and labels."""
    from PIL import Image

    with zipfile.ZipFile(shared / "cifar10_jpg" / "cifar10_jpg_train_10000.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".jpg"))
        classes = sorted({n.split("/")[1] for n in names})
        chosen = [names[i] for i in np.random.default_rng(seed).permutation(len(names))[:count]]
        pictures = [np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("RGB")) for n in chosen]
    x = (np.stack(pictures) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    labels = np.array([classes.index(n.split("/")[1]) for n in chosen])
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32), labels


def ultraface(shared: Path, folder: Path) -> Iterator[Subject]:
    """A face detector, on crops of photographs; its outputs are compared, there are no labels."""
    path = shared / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx"
    if not path.exists():
        return
    yield subject("ultraface", model.load(path).proto, photographs(shared, 96), None, folder)


def photographs(shared: Path, count: int, *, seed: int = 5) -> np.ndarray:
    """Return crops of the photographs, [N, 3, 240, 320], as the detector wants them."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    names = ("cat.bmp", "bird.bmp", "parrot.jpg", "grace_hopper.bmp", "hot_dog.jpg")
    images = [Image.open(shared / "coral" / name).convert("RGB") for name in names]
    rows = []
    for number in range(count):
        image = images[number % len(images)]
        side = rng.uniform(0.4, 1.0)
        width, height = int(image.width * side), int(image.height * side)
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        crop = image.crop((left, top, left + width, top + height)).resize((320, 240))
        rows.append((np.asarray(crop, np.float32).transpose(2, 0, 1) - 127) / 128)
    return np.stack(rows).astype(np.float32)


def digits(_shared: Path, folder: Path) -> Iterator[Subject]:
    """The demo's network."""
    assets = ROOT / "sdk" / "farrier" / "showcase" / "assets"
    with np.load(assets / "digits-eval.npz") as rows:
        yield subject(
            "digits", model.load(assets / "digits.onnx").proto, rows["image"], rows["labels"], folder
        )


def mnist1d(shared: Path, folder: Path) -> Iterator[Subject]:
    """A perceptron, trained here."""
    path = shared / "mnist1d" / "mnist1d.npz"
    if not path.exists():
        return
    with np.load(path, allow_pickle=False) as rows:
        x, y, x_test, y_test = (rows[k] for k in ("x", "y", "x_test", "y_test"))
    weights = train_perceptron(x.astype(np.float32), y)
    yield subject(
        "mnist1d", perceptron(weights), x_test.astype(np.float32), y_test, folder, convolutions=False
    )


def train_perceptron(
    x: np.ndarray, y: np.ndarray, *, width: int = 128, steps: int = 3000
) -> list[np.ndarray]:
    """Train 40-`width`-`width`-10 by momentum and mini-batches of 128, in numpy."""
    rng = np.random.default_rng(0)
    sizes = [x.shape[1], width, width, 10]
    layers = [rng.normal(0, (2 / m) ** 0.5, (m, n)).astype(np.float32) for m, n in itertools.pairwise(sizes)]
    biases = [np.zeros(n, np.float32) for n in sizes[1:]]
    velocity = [np.zeros_like(w) for w in (*layers, *biases)]
    for step in range(steps):
        rows = rng.integers(len(x), size=128)
        values = [x[rows]]
        for index, (weight, bias) in enumerate(zip(layers, biases, strict=True)):
            z = values[-1] @ weight + bias
            values.append(np.maximum(z, 0) if index < 2 else z)
        grown = np.exp(values[-1] - values[-1].max(axis=1, keepdims=True))
        gradient = grown / grown.sum(axis=1, keepdims=True)
        gradient[np.arange(128), y[rows]] -= 1
        gradients: list[np.ndarray] = [np.zeros(0)] * 6
        for index in (2, 1, 0):
            gradients[index] = values[index].T @ gradient / 128 + 1e-4 * layers[index]
            gradients[3 + index] = gradient.mean(axis=0)
            gradient = (gradient @ layers[index].T) * (values[index] > 0)
        rate = 0.1 * (1 - step / steps)
        for parameter, speed, slope in zip((*layers, *biases), velocity, gradients, strict=True):
            np.subtract(0.9 * speed, rate * slope, out=speed)
            np.add(parameter, speed, out=parameter)
    return [v for pair in zip(layers, biases, strict=True) for v in pair]


def perceptron(weights: list[np.ndarray]) -> onnx.ModelProto:
    """Return the network as ONNX."""
    nodes, last = [], "x"
    for index in range(3):
        out = "y" if index == 2 else f"z{index}"
        nodes.append(helper.make_node("Gemm", [last, f"w{index}", f"b{index}"], [out], name=f"dense{index}"))
        if index < 2:
            nodes.append(helper.make_node("Relu", [out], [f"h{index}"], name=f"relu{index}"))
            last = f"h{index}"
    names = [f"{kind}{index}" for index in range(3) for kind in "wb"]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weights[0].shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [
            numpy_helper.from_array(np.ascontiguousarray(w, np.float32), n)
            for n, w in zip(names, weights, strict=True)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SUBJECTS: list[Callable[[Path, Path], Iterator[Subject]]] = [resnets, ultraface, digits, mnist1d]
