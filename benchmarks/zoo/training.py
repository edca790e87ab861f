"""Small networks trained here, the same each time: seeded, one thread, kept by the digest of all that went in."""

# torch is a tool of the benchmarks: the checkers' environment does without it
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .net import digest
from .store import Store

SEED = 7
VERSION = "1"  # raise it when training itself changes
OPSET = 18


@dataclass(frozen=True)
class Course:
    """How long and how fast: AdamW on a one-cycle schedule. `noise` is added to each batch (Gaussian deviation)."""

    epochs: int
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.02
    smoothing: float = 0.05
    noise: float = 0.0
    flip: bool = False  # mirrors half of the pictures and shifts all by up to two pixels


def trained(
    store: Store,
    name: str,
    build: Callable[[], Any],
    x: np.ndarray,
    y: np.ndarray,
    course: Course,
    *,
    input_name: str = "x",
) -> Path:
    """Return the ONNX file of `build()` trained on rows `x` with classes `y`; raises ImportError without torch."""
    import torch

    torch.manual_seed(SEED)
    network = build()
    key = digest(name, VERSION, repr(network), repr(course), torch.__version__, x, y)

    def make(path: Path) -> None:
        threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            _fit(network, torch.from_numpy(x), torch.from_numpy(y), course)
            _export(network, torch.from_numpy(x[:2]), path, input_name)
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)

    return store.file(f"{name}-{key}.onnx", make)


def _fit(network: Any, x: Any, y: Any, course: Course) -> None:
    import torch

    generator = torch.Generator().manual_seed(SEED)
    steps = -(-len(x) // course.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=course.rate, weight_decay=course.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, course.rate, course.epochs * steps)
    network.train()
    for _ in range(course.epochs):
        for rows in torch.randperm(len(x), generator=generator).split(course.batch):
            batch = _varied(x[rows], course, generator)
            loss = torch.nn.functional.cross_entropy(
                network(batch), y[rows], label_smoothing=course.smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    network.eval()


def _varied(batch: Any, course: Course, generator: Any) -> Any:
    import torch

    if course.flip:
        mirrored = torch.rand(len(batch), generator=generator) < 0.5
        batch = torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(3), batch)
        down, right = (int(v) for v in torch.randint(-2, 3, (2,), generator=generator))
        batch = torch.roll(batch, (down, right), (2, 3))
    if course.noise:
        batch = batch + course.noise * torch.randn(batch.shape, generator=generator)
    return batch


def _export(network: Any, example: Any, path: Path, input_name: str) -> None:
    """Write ONNX with a free batch: through the exporter of torch.export, or TorchScript for recurrent layers."""
    import logging
    import warnings

    import torch

    recurrent = any(isinstance(m, torch.nn.RNNBase) for m in network.modules())
    options: dict[str, Any] = {"dynamic_axes": {input_name: {0: "n"}}, "dynamo": False}
    if not recurrent:
        batch = torch.export.Dim("n", min=1)
        options = {"dynamic_shapes": ({0: batch},), "dynamo": True, "external_data": False, "verbose": False}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here uses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            str(path),
            input_names=[input_name],
            output_names=["logits"],
            opset_version=OPSET,
            **options,
        )
