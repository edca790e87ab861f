"""Sentiment of sentences (SST-2): a convolution net and a small transformer over word numbers, trained here."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ..net import Net, classifier
from ..store import Store
from ..training import Course, trained

LENGTH = 32  # words; longer sentences are cut
RARE = 2  # words seen less often share one number
TRAINED = 4_500  # sentences of train.tsv; the others evaluate, with dev.tsv
CALIBRATION = 256
COPIES, DROPPED = 3, 0.1  # of each tested sentence: with a tenth of its words unknown
PADDING, UNKNOWN = 0, 1
SEED = 13


def text_cnn(store: Store) -> Net:
    return _sentiment(store, "sst2-cnn", _cnn, Course(12, rate=3e-3, decay=0.01))


def transformer(store: Store) -> Net:
    return _sentiment(store, "sst2-transformer", _transformer, Course(12, rate=1e-3, decay=0.1))


def _cnn(words: int, width: int = 64) -> Any:
    import torch
    from torch import nn

    class TextCnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(words, width)
            self.drop = nn.Dropout(0.5)
            self.first = nn.Conv1d(width, width, 3, padding=1)
            self.second = nn.Conv1d(width, width, 3, padding=1)
            self.head = nn.Linear(width, 2)

        def forward(self, ids: Any) -> Any:
            x = self.drop(self.words(ids)).transpose(1, 2)
            x = torch.relu(self.second(torch.relu(self.first(x))))
            return self.head(self.drop(x.amax(dim=2)))

    return TextCnn()


def _transformer(words: int, width: int = 64, heads: int = 4, layers: int = 2) -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            parts = self.qkv(self.norms[0](x)).view(-1, LENGTH, 3, heads, width // heads)
            q, k, v = (parts[:, :, i].transpose(1, 2) for i in range(3))
            scores = (q @ k.transpose(2, 3)) / (width // heads) ** 0.5
            mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(-1, LENGTH, width)
            x = x + self.out(mixed)
            return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.drop = nn.Embedding(words, width), nn.Dropout(0.3)
            self.places = nn.Parameter(0.02 * torch.randn(1, LENGTH, width))
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2)

        def forward(self, ids: Any) -> Any:
            x = self.blocks(self.drop(self.words(ids) + self.places))
            return self.head(self.norm(x.mean(dim=1)))

    return Transformer()


def _sentiment(store: Store, name: str, build: Any, course: Course) -> Net:
    found = store.arrays("sst2", lambda: _ids(store))
    words = int(found["words"])
    path = trained(store, name, lambda: build(words), found["x"], found["y"], course, input_name="ids")
    return classifier(
        name,
        path,
        {"ids": found["x"][:CALIBRATION]},
        {"ids": found["test"]},
        found["labels"],
        note=f"{len(found['test']) // COPIES} sentences never trained on, {COPIES - 1} copies with words left out",
    )


def _ids(store: Store) -> dict[str, np.ndarray]:
    read = [store.shared("sst2", f"{part}.tsv").read_text().splitlines() for part in ("train", "dev")]
    train, dev = ([line.rsplit("\t", 1) for line in lines if line] for lines in read)
    order = np.random.default_rng(SEED).permutation(len(train))
    known = [train[i] for i in order[:TRAINED]]
    tested = [*dev, *(train[i] for i in order[TRAINED:])]
    counts = Counter(word for sentence, _ in known for word in sentence.split())
    kept = sorted(word for word, count in counts.items() if count >= RARE)
    numbers = {word: number for number, word in enumerate(kept, start=2)}
    x, test = (_numbered([s for s, _ in rows], numbers) for rows in (known, tested))
    y, labels = (np.array([int(label) for _, label in rows], np.int64) for rows in (known, tested))
    rng = np.random.default_rng(SEED)
    dropped = [test] + [
        np.where((test != PADDING) & (rng.random(test.shape) < DROPPED), UNKNOWN, test)
        for _ in range(COPIES - 1)
    ]
    return {
        "x": x,
        "y": y,
        "test": np.concatenate(dropped),
        "labels": np.tile(labels, COPIES),
        "words": np.array(len(kept) + 2),
    }


def _numbered(sentences: list[str], numbers: dict[str, int]) -> np.ndarray:
    """Return [N, LENGTH] int64: word numbers, filled with padding."""
    rows = np.full((len(sentences), LENGTH), PADDING, np.int64)
    for row, sentence in zip(rows, sentences, strict=True):
        found = [numbers.get(word, UNKNOWN) for word in sentence.split()[:LENGTH]]
        row[: len(found)] = found
    return rows
