"""Predict where a model's operators run with one toolchain: read, lower where needed, ask the rules, add up."""

from __future__ import annotations

from dataclasses import dataclass, replace

from farrier_contracts.targets import Target, Toolchain

from ..tflite.file import TfliteFile
from . import rules
from .network import Network, of_onnx, of_tflite
from .partitions import Partition, crossing_bytes, partition, peak_activation_bytes
from .placement import Annotates, Placement
from .source import AS_IF, Source


@dataclass(frozen=True)
class Share:
    """A share of operators, and of multiply-adds (None where the network has none)."""

    ops: float
    multiply_adds: float | None


@dataclass(frozen=True)
class Prediction:
    """Placements are in the order of the network's steps. Memory is in bytes; notes are sentences.

    `file` is what rules over TFLite looked at; with `as_if`, its types are those that a float graph would get.
    """

    target: str
    toolchain: Toolchain
    network: Network
    placements: tuple[Placement, ...]
    partitions: tuple[Partition, ...]
    crossing_bytes: int
    peak_activation_bytes: int
    notes: tuple[str, ...]
    file: TfliteFile | None = None
    as_if: bool = False

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


def predict(source: Source, target: Target, toolchain: Toolchain) -> Prediction:
    """Predict for a model; raises InputError in one sentence, UsageError for rules that are unknown."""
    if reads_tflite(toolchain):
        return _of_tflite(source, target, toolchain)
    found = rules.of_onnx(toolchain.rules, toolchain.parameters)
    placements = found.place(source.onnx)
    notes = found.notes(source.onnx, placements, toolchain.parameters) if isinstance(found, Annotates) else []
    return _sum_up(target, toolchain, of_onnx(source.onnx), placements, notes)


def reads_tflite(toolchain: Toolchain) -> bool:
    """Say whether a toolchain's rules look at TFLite files; the others look at ONNX graphs."""
    return toolchain.rules in rules.OF_TFLITE


def _of_tflite(source: Source, target: Target, toolchain: Toolchain) -> Prediction:
    found = rules.of_tflite(toolchain.rules)
    file, said = source.tflite(toolchain)
    placements = found.place(file)
    notes = found.notes(file, placements, toolchain.parameters) if isinstance(found, Annotates) else []
    found_out = _sum_up(target, toolchain, of_tflite(file), placements, [*said, *notes])
    return replace(found_out, file=file, as_if=AS_IF in said)


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
