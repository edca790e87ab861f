"""Real pictures: CIFAR-10 in JPEG form, and the photographs that come with the shared models."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from .store import Store

CALIBRATION = 512  # CIFAR pictures, the same for each net; all others evaluate
SEED = 7


def cifar(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Return 10,000 pictures [N, 32, 32, 3] uint8 and their classes, shuffled by seed.

    They are training pictures of CIFAR-10, through JPEG: good for differences, not for published accuracies.
    """
    found = store.arrays("cifar10", lambda: _decode(store))
    return found["pictures"], found["labels"]


def photograph(store: Store, name: str, *folder: str) -> np.ndarray:
    """Return a photograph [height, width, 3] uint8, of the coral set where no other folder is named."""
    from PIL import Image

    with Image.open(store.shared(*(folder or ("coral",)), name)) as image:
        return np.asarray(image.convert("RGB"))


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the picture [height, width, 3] uint8, bicubic."""
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height)))


def split(arrays: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return calibration rows, evaluation rows and the labels of the latter."""
    return arrays[:CALIBRATION], arrays[CALIBRATION:], labels[CALIBRATION:]


def _decode(store: Store) -> dict[str, np.ndarray]:
    from PIL import Image

    pictures, labels = [], []
    with zipfile.ZipFile(store.shared("cifar10_jpg", "cifar10_jpg_train_10000.zip")) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        for index in np.random.default_rng(SEED).permutation(len(names)):
            with Image.open(io.BytesIO(archive.read(names[index]))) as image:
                pictures.append(np.asarray(image.convert("RGB")))
            labels.append(classes.index(names[index].split("/")[1]))
    return {"pictures": np.stack(pictures), "labels": np.array(labels, np.int64)}
