"""What the demo ships is what its script says: real digits, and a network with the accuracy that is written down."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnxruntime
from sklearn.datasets import load_digits

from farrier.showcase.play import ASSETS

MODEL_MAX_BYTES = 300_000


def test_the_network_is_the_one_described_and_as_good() -> None:
    facts = json.loads((ASSETS / "digits.json").read_text())
    model = (ASSETS / "digits.onnx").read_bytes()
    assert len(model) <= MODEL_MAX_BYTES
    assert hashlib.sha256(model).hexdigest() == facts["onnx_sha256"]
    with np.load(ASSETS / "digits-eval.npz") as data:
        images, labels = data["image"], data["labels"]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": images})
    assert len(labels) == facts["evaluation_rows"]
    assert abs(float((logits.argmax(1) == labels).mean()) - facts["accuracy"]) < 0.002


def test_the_rows_are_the_digits_and_none_is_in_two_parts() -> None:
    pictures, labels = load_digits(return_X_y=True)
    known = {
        picture.astype(np.float32).tobytes(): int(label)
        for picture, label in zip(pictures, labels, strict=True)
    }
    with np.load(ASSETS / "digits-eval.npz") as data:
        rows = [image.tobytes() for image in data["image"]]
        assert [known[row] for row in rows] == data["labels"].tolist()
    with np.load(ASSETS / "digits-calib.npz") as data:
        calibration = {image.tobytes() for image in data["image"]}
    assert calibration <= known.keys()
    assert not calibration & set(rows)
