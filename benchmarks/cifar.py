"""ResNet20 and the pictures of cifar10_jpg, for the benchmarks that train or round."""

from __future__ import annotations

import importlib.util
import io
import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from farrier_contracts.targets import Arithmetic
from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto

ROOT = Path(__file__).resolve().parent.parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TARGET = Arithmetic("u8", 8)
CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}


def resnet20(data: Path) -> Model:
    return resnet(data, "resnet20")


def resnet(data: Path, name: str) -> Model:
    """Return one of the networks of `CHECKPOINTS`, as it was published."""
    spec = importlib.util.spec_from_file_location("resnet20", ROOT / "examples" / "resnet20.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkpoint = data / "resnet_cifar10_pth" / "pretrained_models" / CHECKPOINTS[name]
    return from_proto(module.build(module.read_checkpoint(checkpoint)), name)


def pictures(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Every picture, normalised, and its label."""
    with zipfile.ZipFile(data / "cifar10_jpg" / "cifar10_jpg_train_10000.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        raw = np.stack(
            [np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("RGB"), np.float32) for n in names]
        )
    labels = np.array([classes.index(name.split("/")[1]) for name in names])
    normal = (raw / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2)), labels


def accuracy(model: Model, images: np.ndarray, labels: np.ndarray) -> float:
    session = run.session(model.proto, threads=max((os.cpu_count() or 1) // 4, 1))
    batches = range(0, len(images), 250)
    right = [
        (np.asarray(session.run(None, {"images": images[i : i + 250]})[0]).argmax(1) == labels[i : i + 250])
        for i in batches
    ]
    return float(np.concatenate(right).mean() * 100)
