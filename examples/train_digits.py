"""Train the small convolutional network that `farrier demo` uses, on scikit-learn's digits.

    pip install torch onnx onnxscript scikit-learn
    python examples/train_digits.py [--seed 7] [--epochs 60] [--out sdk/farrier/showcase/assets]

Writes digits.onnx (free batch; input: 8x8 pictures with values 0..16), digits-eval.npz (the rows that training never
saw, with labels), digits-calib.npz (training rows for calibration) and digits.json (seed, accuracy, versions).

The data are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak; UCI Machine Learning
Repository, CC BY 4.0) as scikit-learn ships them.
"""

# torch is the user's to install: the checkers' environment does without it
# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import sklearn
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

EVALUATION_ROWS = 597
CALIBRATION_ROWS = 256
BATCH = 64
LEARNING_RATE = 3e-3


class DigitsNet(nn.Module):
    """Three 3x3 convolutions with batch norm, one pooling, global average, one dense layer: 58 k parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, 32), *_block(32, 64), nn.MaxPool2d(2), *_block(64, 64), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [N, 10] for pictures [N, 1, 8, 8] with values 0..16."""
        return self.head(torch.flatten(self.features(image / 16.0), 1))


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def split(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training pictures and labels, evaluation pictures and labels: float32 [N, 1, 8, 8] and int64 [N]."""
    pictures, labels = load_digits(return_X_y=True)
    pictures = pictures.astype(np.float32).reshape(-1, 1, 8, 8)
    train_rows, eval_rows = train_test_split(
        np.arange(len(labels)), test_size=EVALUATION_ROWS, random_state=seed, stratify=labels
    )
    labels = labels.astype(np.int64)
    return pictures[train_rows], labels[train_rows], pictures[eval_rows], labels[eval_rows]


def train(model: nn.Module, x: Tensor, y: Tensor, *, epochs: int, seed: int) -> None:
    """Train with AdamW on a one-cycle schedule; pictures are shifted by up to one pixel."""
    generator = torch.Generator().manual_seed(seed)
    steps = -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs * steps)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        total = 0.0
        for rows in order.split(BATCH):
            down, right = (int(v) for v in torch.randint(-1, 2, (2,), generator=generator))
            logits = model(torch.roll(x[rows], (down, right), (2, 3)))
            loss = nn.functional.cross_entropy(logits, y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3d} of {epochs}  loss {total / len(x):.4f}")
    model.eval()


def export(model: nn.Module, path: Path) -> None:
    """Write the network as ONNX with a free batch."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: batch}},
        dynamo=True,
        opset_version=18,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for item in (
        *proto.graph.node,
        *proto.graph.input,
        *proto.graph.output,
        *proto.graph.value_info,
        proto.graph,
    ):
        del item.metadata_props[:]  # stack traces with paths of this machine
    onnx.save(proto, path)


def main() -> None:
    """Train, export, and write the data beside the model."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--epochs", type=int, default=60)
    arguments.add_argument("--out", type=Path, default=Path("sdk/farrier/showcase/assets"))
    options = arguments.parse_args()

    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    x, y, x_eval, y_eval = split(options.seed)
    model = DigitsNet()
    train(model, torch.from_numpy(x), torch.from_numpy(y), epochs=options.epochs, seed=options.seed)
    with torch.no_grad():
        accuracy = float((model(torch.from_numpy(x_eval)).argmax(1).numpy() == y_eval).mean())

    options.out.mkdir(parents=True, exist_ok=True)
    onnx_path = options.out / "digits.onnx"
    export(model, onnx_path)
    calibration = np.random.default_rng(options.seed).choice(len(x), CALIBRATION_ROWS, replace=False)
    np.savez_compressed(options.out / "digits-eval.npz", image=x_eval, labels=y_eval)
    np.savez_compressed(options.out / "digits-calib.npz", image=x[calibration])
    facts = {
        "seed": options.seed,
        "epochs": options.epochs,
        "accuracy": round(accuracy, 6),
        "evaluation_rows": len(x_eval),
        "training_rows": len(x),
        "parameters": sum(p.numel() for p in model.parameters()),
        "onnx_sha256": hashlib.sha256(onnx_path.read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "data": "UCI Optical Recognition of Handwritten Digits (Alpaydin, Kaynak), CC BY 4.0, from scikit-learn",
    }
    (options.out / "digits.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(f"accuracy {accuracy:.4f} on {len(x_eval)} rows; {onnx_path} has {onnx_path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
