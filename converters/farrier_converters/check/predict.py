"""Predict where a model's operators run with one toolchain: read, lower where needed, ask the rules, add up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Target, Toolchain

from .. import model as models
from ..graph.edit import Graph
from ..graph.types import infer
from ..tflite import file as tflite
from . import rules
from .network import Network, of_onnx, of_tflite
from .partitions import Partition, crossing_bytes, partition, peak_activation_bytes
from .placement import Annotates, Fits, OnnxGraph, Placement

TFLITE_SUFFIXES = (".tflite", ".lite")


@dataclass(frozen=True)
class Share:
    """A share of operators, and of multiply-adds (None where the network has none)."""

    ops: float
    multiply_adds: float | None


@dataclass(frozen=True)
class Prediction:
    """Placements are in the order of the network's steps. Memory is in bytes; notes are sentences."""

    target: str
    toolchain: Toolchain
    network: Network
    placements: tuple[Placement, ...]
    partitions: tuple[Partition, ...]
    crossing_bytes: int
    peak_activation_bytes: int
    notes: tuple[str, ...]

    @property
    def accelerated(self) -> Share:
        """What runs where it should: every operator that has no reason against it."""
        return self._share([placement.reason is None for placement in self.placements])

    @property
    def possible(self) -> Share:
        """The same, with every doubtful refusal taken for a yes: what a limit on the share is held against."""
        return self._share([p.reason is None or not p.certain for p in self.placements])

    def _share(self, chosen: list[bool]) -> Share:
        steps = self.network.steps
        counted = [yes for yes, step in zip(chosen, steps, strict=True) if step.counted]
        work = sum(step.multiply_adds for step in steps)
        done = sum(step.multiply_adds for yes, step in zip(chosen, steps, strict=True) if yes)
        return Share(sum(counted) / max(len(counted), 1), done / work if work else None)


def predict(
    path: Path, target: Target, toolchain: Toolchain, *, settings: models.ModelSettings | None = None
) -> Prediction:
    """Predict for a model file; raises InputError in one sentence, UsageError for rules that are unknown."""
    limits = settings or models.ModelSettings()
    if toolchain.rules in rules.OF_TFLITE:
        return _of_tflite(path, target, toolchain, limits)
    found = rules.of_onnx(toolchain.rules)
    found = found.fitted(toolchain.parameters) if isinstance(found, Fits) else found
    graph = Graph(models.load(path, settings=limits)).build().proto
    subject = OnnxGraph(graph, infer(graph))
    placements = found.place(subject)
    notes = found.notes(subject, placements) if isinstance(found, Annotates) else []
    return _sum_up(target, toolchain, of_onnx(subject), placements, notes)


def _of_tflite(path: Path, target: Target, toolchain: Toolchain, limits: models.ModelSettings) -> Prediction:
    if path.suffix.lower() not in TFLITE_SUFFIXES:
        raise InputError(
            f"what runs where with {toolchain.compiler} is predicted from a .tflite file, and {path} is none"
        )
    found = rules.of_tflite(toolchain.rules)
    file = tflite.read(path, max_bytes=limits.max_bytes)
    placements = found.place(file)
    notes = found.notes(file, placements) if isinstance(found, Annotates) else []
    return _sum_up(target, toolchain, of_tflite(file), placements, notes)


def _sum_up(
    target: Target, toolchain: Toolchain, network: Network, placements: list[Placement], notes: list[str]
) -> Prediction:
    units = [placement.unit for placement in placements]
    return Prediction(
        target.name,
        toolchain,
        network,
        tuple(placements),
        partition(network, units),
        crossing_bytes(network, units),
        peak_activation_bytes(network),
        tuple(notes),
    )
