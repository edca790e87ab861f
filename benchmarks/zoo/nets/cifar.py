"""Networks that others trained on CIFAR-10: ResNet20 and ResNet56 from torch checkpoints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

from .. import pictures
from ..net import Net, classifier
from ..store import Store

ROOT = Path(__file__).resolve().parents[3]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
NOTE = "training pictures of CIFAR-10 in JPEG form"


def normalised(rows: np.ndarray) -> np.ndarray:
    """Return [N, 3, 32, 32] float32 from uint8 pictures, as the checkpoints were trained."""
    return np.ascontiguousarray(((rows / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2), np.float32)


def resnet20(store: Store) -> Net:
    return _resnet("resnet20", store)


def resnet56(store: Store) -> Net:
    return _resnet("resnet56", store)


def _resnet(name: str, store: Store) -> Net:
    import onnx

    checkpoint = store.shared("resnet_cifar10_pth", "pretrained_models", CHECKPOINTS[name])
    script = _example()
    path = store.file(
        f"{name}.onnx", lambda target: onnx.save(script.build(script.read_checkpoint(checkpoint)), target)
    )
    calibration, evaluation, labels = pictures.split(*pictures.cifar(store))
    return classifier(
        name,
        path,
        {"images": normalised(calibration)},
        {"images": normalised(evaluation)},
        labels,
        note=NOTE,
    )


def _example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("resnet20", ROOT / "examples" / "resnet20.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
