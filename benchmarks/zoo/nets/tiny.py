"""The MLPerf Tiny reference networks, imported from their float TFLite files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farrier_converters import model

from .. import pictures
from ..net import Net, Run, batches, classifier, digest
from ..store import Store
from .cifar import NOTE

FOLDER = ("mlperf_tiny", "benchmark", "training")
CLIP = (
    *("mlperf_tiny", "benchmark", "reference_submissions", "anomaly_detection", "datasets", "dcase01"),
    "normal_id_01_00000000_hist_librosa.bin",
)
OTHERS = ("cat.bmp", "bird.bmp", "parrot.jpg", "hot_dog.jpg")  # photographs without a person
GREY = ("tflite_micro", "tensorflow", "lite", "micro", "examples", "person_detection", "testdata")
SIDE, VIEWS = 96, 250  # views of each photograph without a person; three times as many of those with one
VIEWED = 256  # of all views calibrate
BAND, WINDOW, FRAMES = 128, 5, 200
SEED = 17


def resnet8(store: Store) -> Net:
    path = _imported(store, "image_classification", "pretrainedResnet.tflite")
    calibration, evaluation, labels = pictures.split(*pictures.cifar(store))
    name = model.load(path).inputs[0].name
    return classifier(
        "resnet8",
        path,
        {name: calibration.astype(np.float32)},
        {name: evaluation.astype(np.float32)},
        labels,
        note=NOTE,
    )


def wake_words(store: Store) -> Net:
    """Is a person there? Crops, mirrored, lit and dimmed, of photographs of which that is known."""
    path = _imported(store, "visual_wake_words", "vww_96_float.tflite")
    name = model.load(path).inputs[0].name
    found = store.arrays("views", lambda: _views(store))
    rows = found["views"].astype(np.float32) / 255
    return classifier(
        "wake-words",
        path,
        {name: rows[:VIEWED]},
        {name: rows[VIEWED:]},
        found["labels"][VIEWED:],
        note=f"views of {len(OTHERS) + 2} photographs, and CIFAR pictures enlarged",
    )


def anomaly(store: Store) -> Net:
    """Tell windows of a machine's normal sound from the same with something added, by the error of reconstruction."""
    path = _imported(store, "anomaly_detection", "ad01_fp32.tflite")
    name = model.load(path).inputs[0].name
    frames = np.fromfile(store.shared(*CLIP), "<f4").reshape(FRAMES, BAND)
    windows = np.lib.stride_tricks.sliding_window_view(frames, WINDOW, axis=0)
    normal = np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(-1, WINDOW * BAND)
    known, tested = normal[::3], np.delete(normal, np.s_[::3], axis=0)
    rows, odd = _disturbed(tested)

    def play(run: Run) -> np.ndarray:
        rebuilt = np.concatenate([run(feeds)[0] for feeds in batches({name: rows}, 1)])
        errors = np.square(rebuilt - rows).mean(axis=1)
        higher = (errors[odd][:, None] > errors[~odd]) + 0.5 * (errors[odd][:, None] == errors[~odd])
        return higher.mean(axis=1)

    return Net(
        "anomaly",
        path,
        batches({name: known}, 1),
        play,
        {name: rows[:1]},
        "area under ROC",
        len(rows),
        digest(rows, odd),
        note="windows of one normal clip, and the same with a band or a click louder",
    )


def _imported(store: Store, task: str, file: str) -> Path:
    """Return the ONNX form of a float TFLite file, kept by its content."""
    imported = model.load(store.shared(*FOLDER, task, "trained_models", file))
    content = imported.proto.SerializeToString(deterministic=True)
    return store.file(f"{task}-{digest(content)}.onnx", lambda target: model.save(imported, target))


def _views(store: Store) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(SEED)
    with_person = [
        pictures.photograph(store, "grace_hopper.bmp"),
        pictures.photograph(store, "person.bmp", *GREY),
    ]
    without = [pictures.photograph(store, name) for name in OTHERS]
    without.append(pictures.photograph(store, "no_person.bmp", *GREY))
    views, labels = [], []
    for label, photographs, count in ((1, with_person, 3 * VIEWS), (0, without, VIEWS)):
        for photograph in photographs:
            views += [_view(photograph, rng) for _ in range(count)]
            labels += [label] * count
    tiles = pictures.cifar(store)[0]
    for index in rng.choice(len(tiles), 2 * VIEWS, replace=False):
        views.append(pictures.resized(tiles[index], SIDE, SIDE))
        labels.append(0)
    order = rng.permutation(len(views))
    return {"views": np.stack(views)[order], "labels": np.array(labels, np.int64)[order]}


def _view(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return most of a photograph, mirrored half of the time, lit or dimmed, with a little noise."""
    height, width = photograph.shape[:2]
    h, w = (int(side * rng.uniform(0.75, 1)) for side in (height, width))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    crop = photograph[top : top + h, left : left + w]
    crop = pictures.resized(crop[:, ::-1] if rng.random() < 0.5 else crop, SIDE, SIDE)
    lit = np.float32(crop) * rng.uniform(0.6, 1.3) + rng.normal(0, rng.uniform(0, 8), crop.shape)
    return np.clip(lit, 0, 255).astype(np.uint8)


def _disturbed(normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return normal and disturbed windows [N, 640] and which are disturbed: louder (decibels) in a band or a frame."""
    rng = np.random.default_rng(SEED)
    made = []
    for window in np.repeat(normal, 4, axis=0):
        odd = window.reshape(WINDOW, BAND).copy()
        loud = rng.uniform(2, 12)
        if rng.random() < 0.5:
            start = rng.integers(BAND - 8)
            odd[:, start : start + rng.integers(3, 9)] += loud
        else:
            odd[rng.integers(WINDOW)] += loud
        made.append(odd.ravel())
    rows = np.concatenate([normal, np.stack(made)]).astype(np.float32)
    return rows, np.arange(len(rows)) >= len(normal)
