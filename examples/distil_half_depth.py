"""Distil a transformer into one of half the depth: sentiment of sentences.

    python examples/distil_half_depth.py train.tsv dev.tsv out [--layers 4] [--epochs 8] [--sentences 7000]

Each line of the files is `sentence<TAB>0 or 1`. A small transformer over word numbers is trained with PyTorch first:
it stands for the model that you have. What then makes the student needs its ONNX file and the rows, nothing else. `out`
gets the teacher, the rows, and in `out/student` the student with its report.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import farrier
from farrier_converters.passes.distill import DistillOptions

LENGTH, WIDTH, HEADS = 32, 64, 4
PADDING, UNKNOWN = 0, 1
RARE = 2  # words seen less often share one number


class Layer(nn.Module):
    """Attention and a dense network, each with its norm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, LENGTH, WIDTH]."""
        parts = self.qkv(self.norms[0](x)).view(-1, LENGTH, 3, HEADS, WIDTH // HEADS)
        q, k, v = (parts[:, :, i].transpose(1, 2) for i in range(3))
        weights = torch.softmax(q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5, -1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(-1, LENGTH, WIDTH))
        return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    """Word numbers [N, LENGTH] to two scores."""

    def __init__(self, words: int, layers: int) -> None:
        super().__init__()
        self.words, self.drop = nn.Embedding(words, WIDTH), nn.Dropout(0.3)
        self.places = nn.Parameter(0.02 * torch.randn(1, LENGTH, WIDTH))
        self.layers = nn.Sequential(*(Layer() for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, ids: Tensor) -> Tensor:
        """Return [N, 2]."""
        return self.head(self.norm(self.layers(self.drop(self.words(ids) + self.places)).mean(dim=1)))


def sentences(path: Path, count: int) -> tuple[list[str], np.ndarray]:
    """Return the first sentences of a file and their labels."""
    rows = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if line][:count]
    return [sentence for sentence, _ in rows], np.array([int(label) for _, label in rows])


def numbered(texts: list[str], numbers: dict[str, int]) -> np.ndarray:
    """Return [N, LENGTH] int64: word numbers, filled up with padding."""
    ids = np.full((len(texts), LENGTH), PADDING, np.int64)
    for row, text in zip(ids, texts, strict=True):
        found = [numbers.get(word, UNKNOWN) for word in text.split()[:LENGTH]]
        row[: len(found)] = found
    return ids


def train_teacher(network: nn.Module, ids: np.ndarray, labels: np.ndarray, epochs: int) -> None:
    """Train on all rows; a tenth of the words is left out each time, so that no single one decides."""
    x, y = torch.from_numpy(ids), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.1)
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            gone = (x[rows] != PADDING) & (torch.rand(x[rows].shape) < 0.1)
            loss = nn.functional.cross_entropy(network(x[rows].masked_fill(gone, UNKNOWN)), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"\rteacher: epoch {epoch + 1} of {epochs}", end="", flush=True)
    print()


def export(network: nn.Module, path: Path) -> None:
    """Write ONNX with a free number of rows."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = torch.ones((2, LENGTH), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (example,),
            path,
            input_names=["ids"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def main() -> None:
    """Train a teacher, make a student with half its layers, and let it learn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("train", "dev", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--layers", type=int, default=4, help="of the teacher")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--sentences", type=int, default=7000, help="at most, to train on")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    texts, labels = sentences(given.train, given.sentences)
    others, wanted = sentences(given.dev, given.sentences)
    counts = Counter(word for text in texts for word in text.split())
    numbers = {word: n for n, word in enumerate(sorted(w for w in counts if counts[w] >= RARE), start=2)}
    ids = numbered(texts, numbers)
    np.savez(given.out / "train.npz", ids=ids, labels=labels)
    np.savez(given.out / "dev.npz", ids=numbered(others, numbers), labels=wanted)
    teacher = Transformer(len(numbers) + 2, given.layers)
    train_teacher(teacher, ids, labels, given.epochs)
    export(teacher, given.out / "teacher.onnx")

    # from here on there is an ONNX file and rows
    result = farrier.distill(
        given.out / "teacher.onnx",
        layers="half",
        train=given.out / "train.npz",
        data=given.out / "dev.npz",
        out=given.out / "student",
        options=DistillOptions(
            temperature=2.0, features=0.5, adapt=0, mask="ids", fit={"epochs": max(1, given.epochs // 2)}
        ),
    )
    for name, scored in result.models.items():
        print(f"{name:16}{scored.value:8.2%}{scored.bytes:10,} bytes{scored.latency_ms:8.3f} ms")
    print(result.verdict)


if __name__ == "__main__":
    main()
