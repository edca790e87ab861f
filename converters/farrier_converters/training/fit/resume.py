"""The state of a training on disk after each epoch, so that a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Batch
from .trainer import Trainer

FORMAT = 1
# What changes how fast a training is, and not what comes of it.
INDIFFERENT = ("threads", "look_every", "device")


class Checkpoint:
    """One file in a folder, replaced as a whole after each epoch; without a folder nothing is kept.

    The file's name is a digest of the weights at the start, the settings, the objective, the first batch and `key`,
    so that another training finds nothing. It is read without running any code that might stand in it.
    """

    def __init__(self, folder: Path | None, trainer: Trainer, first: Batch | None, key: str) -> None:
        self.path: Path | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / f"training-{_digest(trainer, first, key)[:32]}.pt"

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last; None where nothing was, or it cannot be read."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
            return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace what was saved; a kill at any moment leaves the old file or the new one."""
        if self.path is None:
            return
        part = self.path.with_suffix(".part")
        with part.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)


def capture(trainer: Trainer) -> dict[str, Any]:
    """Return everything that the next epoch depends on: plain containers of tensors, numbers and strings."""
    state: dict[str, Any] = {
        "module": dict(trainer.module.state_dict()),
        "extra": [p.detach() for p in trainer.extra],
        "optimizers": [optimizer.state_dict() for optimizer, _ in trainer.optimizers.all],
        "hooks": [hook.state() for hook in trainer.hooks],
        "steps": trainer.steps,
        "batches": trainer.batches,
        "random": torch.get_rng_state(),
    }
    if trainer.average is not None:
        state["average"] = (trainer.average.values, trainer.average.count)
    if trainer.precision.scaler is not None:
        state["scaler"] = trainer.precision.scaler.state_dict()
    if trainer.device.type == "cuda":
        state["random_device"] = torch.cuda.get_rng_state(trainer.device)
    return state


def restore(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Put back what `capture` took."""
    trainer.module.load_state_dict(state["module"])
    with torch.no_grad():
        for parameter, value in zip(trainer.extra, state["extra"], strict=True):
            parameter.copy_(value)
    for (optimizer, _), saved in zip(trainer.optimizers.all, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    for hook, saved in zip(trainer.hooks, state["hooks"], strict=True):
        hook.restore({name: value.to(trainer.device) for name, value in saved.items()})
    trainer.steps, trainer.batches = state["steps"], state["batches"]
    if trainer.average is not None:
        trainer.average.restore(*state["average"])
    if trainer.precision.scaler is not None:
        trainer.precision.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"])
    if trainer.device.type == "cuda" and "random_device" in state:
        torch.cuda.set_rng_state(state["random_device"], trainer.device)


def _digest(trainer: Trainer, first: Batch | None, key: str) -> str:
    settings = {k: v for k, v in asdict(trainer.settings).items() if k not in INDIFFERENT}
    plugged = [type(thing).__qualname__ for thing in (trainer.objective, *trainer.hooks)]
    found = hashlib.sha256(f"{FORMAT}\n{settings}\n{plugged}\n{key}\n".encode())
    for step in trainer.module.steps:
        found.update(f"{step.name} {step.inputs} {step.outputs}\n".encode())
    for name, value in sorted(trainer.module.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    for value in trainer.extra:
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    if first is not None:
        inputs, labels = first
        for array in (*inputs.values(), *(() if labels is None else (labels,))):
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
