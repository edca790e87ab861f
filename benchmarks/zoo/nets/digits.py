"""The demo's own network for handwritten digits, on scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..net import Net, classifier
from ..store import Store
from ..vary import noisy

ASSETS = Path(__file__).resolve().parents[3] / "sdk" / "farrier" / "showcase" / "assets"
COPIES = 8  # of the 597 evaluation rows: the first as it is, the others with noise
NOISE = 1.0  # grey levels of 16


def digits(_store: Store) -> Net:
    with np.load(ASSETS / "digits-calib.npz") as found:
        calibration = found["image"]
    with np.load(ASSETS / "digits-eval.npz") as found:
        images, labels = found["image"], found["labels"]
    rows = np.clip(noisy(images, copies=COPIES, scale=NOISE), 0, 16)
    return classifier(
        "digits",
        ASSETS / "digits.onnx",
        {"image": calibration},
        {"image": rows},
        np.tile(labels, COPIES),
        note=f"597 pictures, {COPIES - 1} noisy copies of each besides",
    )
