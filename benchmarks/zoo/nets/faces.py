"""UltraFace RFB-320, a face detector, on photographs whose faces are where they were put.

There are no labelled faces in the shared data, but one photograph has a face and several have none. Scenes are made
from them: a background (a photograph or CIFAR pictures, enlarged), and on it zero to three crops around the face, each
mirrored, scaled, brightened or dimmed, with noise. So the true boxes are known without asking any model.
"""

from __future__ import annotations

import numpy as np

from .. import pictures
from ..net import Net, Run, batches, digest
from ..store import Store

MODEL = ("ultraface", "models", "onnx", "version-RFB-320.onnx")
HEIGHT, WIDTH = 240, 320
FACE = (0.339, 0.202, 0.698, 0.556)  # of grace_hopper.bmp: corners in shares of its sides
BACKGROUNDS = ("cat.bmp", "bird.bmp", "parrot.jpg", "hot_dog.jpg")
CALIBRATION, SCENES = 64, 1200
PARTS = 60  # of the scenes, each left out once: how the uncertainty of an average precision is known
SCORE, NMS, OVERLAP = 0.05, 0.3, 0.5  # kept from; joined above; right from (intersection over union)
MOST = 200  # detections kept in a scene
SEED = 21


def ultraface(store: Store) -> Net:
    path = store.shared(*MODEL)
    found = store.arrays(f"faces-{SCENES}", lambda: _scenes(store))
    scenes, boxes, owners = found["scenes"], found["boxes"], found["owners"]
    tested = scenes[CALIBRATION:]
    truth = [boxes[owners == CALIBRATION + i] for i in range(len(tested))]

    def play(run: Run) -> np.ndarray:
        return jackknife([detect(*run({"input": normalised(scene[None])})) for scene in tested], truth)

    return Net(
        "ultraface",
        path,
        batches({"input": normalised(scenes[:CALIBRATION])}, 1),
        play,
        {"input": normalised(tested[:1])},
        "average precision at IoU .5",
        int((owners >= CALIBRATION).sum()),
        digest(tested, boxes),
        note=f"faces in {SCENES} scenes made from photographs",
    )


def normalised(scenes: np.ndarray) -> np.ndarray:
    """Return [N, 3, 240, 320] float32 as the network was trained."""
    return (np.float32(scenes) - 127) / 128


def detect(scores: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores [k] and boxes [k, 4] after non-maximum suppression, best first."""
    scores, boxes = scores[0, :, 1], boxes[0]
    chosen = np.flatnonzero(scores > SCORE)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:MOST]
    kept: list[int] = []
    for index in chosen:
        if not kept or overlaps(boxes[index], boxes[kept]).max() <= NMS:
            kept.append(int(index))
    return scores[kept], boxes[kept]


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return intersection over union of one box with each of [k, 4]."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return shared / np.maximum(areas - shared, 1e-12)


Detections = tuple[np.ndarray, np.ndarray]  # scores [k] and boxes [k, 4] of one scene


def jackknife(detections: list[Detections], truth: list[np.ndarray]) -> np.ndarray:
    """Return pseudo-values, one per part of the scenes, whose mean is the average precision (Tukey 1958)."""
    matched = [_match(*found, faces) for found, faces in zip(detections, truth, strict=True)]
    counts = np.array([len(faces) for faces in truth])
    whole, part = _area(matched, counts), np.arange(len(truth)) * PARTS // len(truth)
    without = []
    for left_out in range(PARTS):
        kept = np.flatnonzero(part != left_out)
        without.append(_area([matched[i] for i in kept], counts[kept]))
    pseudo = PARTS * whole - (PARTS - 1) * np.array(without)
    return pseudo - pseudo.mean() + whole


def average_precision(detections: list[Detections], truth: list[np.ndarray]) -> float:
    """Return the area under precision over recall, every point used (PASCAL VOC 2010 and later)."""
    matched = [_match(*found, faces) for found, faces in zip(detections, truth, strict=True)]
    return _area(matched, np.array([len(faces) for faces in truth]))


def _match(scores: np.ndarray, boxes: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of one scene and which of its detections find a face that no better one found."""
    free, right = np.ones(len(faces), bool), np.zeros(len(scores), bool)
    for index, box in enumerate(boxes):
        shares = overlaps(box, faces) * free if len(faces) else np.zeros(1)
        right[index] = shares.max() >= OVERLAP
        if right[index]:
            free[shares.argmax()] = False
    return scores, right


def _area(matched: list[tuple[np.ndarray, np.ndarray]], counts: np.ndarray) -> float:
    scores = np.concatenate([scores for scores, _ in matched])
    hits = np.cumsum(np.concatenate([right for _, right in matched])[np.argsort(-scores, kind="stable")])
    recall = hits / counts.sum()
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def _scenes(store: Store) -> dict[str, np.ndarray]:
    """Return scenes [N, 3, 240, 320] uint8, boxes [M, 4] and the scene that each box is in."""
    rng = np.random.default_rng(SEED)
    portrait = pictures.photograph(store, "grace_hopper.bmp")
    photographs = [pictures.photograph(store, name) for name in BACKGROUNDS]
    tiles = pictures.cifar(store)[0]
    scenes, boxes, owners = [], [], []
    for index in range(CALIBRATION + SCENES):
        if rng.random() < 0.7:
            scene = _background(photographs[rng.integers(len(photographs))], rng)
        else:
            scene = pictures.resized(tiles[rng.integers(len(tiles))], HEIGHT, WIDTH)
        for slot in rng.permutation(3)[: rng.choice(4, p=(0.25, 0.35, 0.25, 0.15))]:
            scene, box = _paste(scene, portrait, int(slot), rng)
            boxes.append(box)
            owners.append(index)
        noisy = np.float32(scene) * rng.uniform(0.4, 1.3) + rng.normal(0, rng.uniform(0, 30), scene.shape)
        scenes.append(np.clip(noisy, 0, 255).astype(np.uint8).transpose(2, 0, 1))
    return {"scenes": np.stack(scenes), "boxes": np.array(boxes, np.float32), "owners": np.array(owners)}


def _background(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random crop of at least half the sides, in the scene's size."""
    height, width = photograph.shape[:2]
    h, w = (int(side * rng.uniform(0.5, 1)) for side in (height, width))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    return pictures.resized(photograph[top : top + h, left : left + w], HEIGHT, WIDTH)


def _paste(
    scene: np.ndarray, portrait: np.ndarray, slot: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Put the face with some of what is around it into one of three columns; return the face's box too."""
    height, width = portrait.shape[:2]
    face = np.array(FACE) * (width, height, width, height)
    margin = rng.uniform(0.1, 0.6) * (face[2] - face[0])
    low = np.maximum(0, face[:2] - margin).astype(int)
    high = np.minimum((width, height), face[2:] + margin).astype(int)
    crop, face = portrait[low[1] : high[1], low[0] : high[0]], face - np.tile(low, 2)
    tall, wide = crop.shape[:2]
    if rng.random() < 0.5:
        crop, face = crop[:, ::-1], np.array([wide - face[2], face[1], wide - face[0], face[3]])
    column = WIDTH // 3
    scale = rng.uniform(0.12, 0.8) * min(column / wide, HEIGHT / tall)
    w, h = max(8, int(wide * scale)), max(8, int(tall * scale))
    x, y = slot * column + rng.integers(column - w + 1), rng.integers(HEIGHT - h + 1)
    scene = scene.copy()
    lit = np.float32(pictures.resized(crop, h, w)) * rng.uniform(0.3, 1.5)
    scene[y : y + h, x : x + w] = np.clip(lit, 0, 255).astype(np.uint8)
    box = face * np.tile((w / wide, h / tall), 2) + np.tile((x, y), 2)
    return scene, box / np.tile((WIDTH, HEIGHT), 2)
