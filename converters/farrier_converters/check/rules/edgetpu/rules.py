"""Coral's Edge TPU: which operators of a TFLite file its compiler maps, and why not."""

from __future__ import annotations

from ....tflite.file import Operator, TfliteFile
from ...costs import bytes_of
from ...placement import CPU, OnnxGraph, Parameters, Placement
from ...site import Site
from .partition import first_partition
from .table import TABLE, UNIT

# bytes of parameters: up to the first they all stay on chip, above the second some are sent each time
MEMORY = {"parameter_cache_bytes": 6 << 20, "parameter_limit_bytes": 8 << 20}


class EdgeTpuRules:
    """Limits of single operators, then the rule of the whole: the compiler makes one partition, the first."""

    unit = UNIT

    def place(self, file: TfliteFile) -> list[Placement]:
        """Return one placement per operator, in the file's order."""
        alone = TABLE.place(file)
        mapped = [placement.unit == UNIT for placement in alone]
        partition = first_partition(file, mapped)
        breaker = next((i for i in range(min(partition, default=0), len(mapped)) if not mapped[i]), None)
        placements = []
        for index, placement in enumerate(alone):
            if mapped[index] and index not in partition:
                placements.append(_stranded(file, index, alone))
            elif mapped[index] and breaker is not None and index > breaker:
                placements.append(_beside(file.operators[breaker]))
            else:
                placements.append(placement)
        return placements

    def notes(
        self, subject: TfliteFile | OnnxGraph, placements: list[Placement], parameters: Parameters
    ) -> list[str]:
        """Return what parameters and activations mean for the memory on chip."""
        if not isinstance(subject, TfliteFile):
            return []
        return [*_about_parameters(subject, placements, parameters), *_about_activations(subject, placements)]


def _about_parameters(file: TfliteFile, placements: list[Placement], parameters: Parameters) -> list[str]:
    needed = _parameter_bytes(file, placements)
    if not needed:
        return []
    fits, streams = (int(parameters.get(name, size)) for name, size in MEMORY.items())
    size = f"the operators on the Edge TPU have {needed / 2**20:.2f} MiB of parameters"
    if needed <= fits:
        return [f"{size}, which its memory holds: no model below {fits >> 20} MiB was seen to stream any"]
    often = "are" if needed > streams else "may be"
    return [f"{size}: part of them {often} sent again for each inference; below {fits >> 20} MiB none were"]


def _about_activations(file: TfliteFile, placements: list[Placement]) -> list[str]:
    """Say which operator needs most memory at once, where that may be too much (E#439, E#512)."""
    sizes = {
        operator.index: sum(bytes_of(tensor) for tensor in Site(file, operator).activations)
        for operator, placement in zip(file.operators, placements, strict=True)
        if placement.unit == UNIT
    }
    largest = max(sizes, key=lambda index: sizes[index], default=None)
    if largest is None or sizes[largest] <= MEMORY["parameter_limit_bytes"]:
        return []
    name = f"operator {largest} ({file.operators[largest].name})"
    return [
        f"{name} reads and writes {sizes[largest] / 2**20:.1f} MiB: the compiler may give up for large activations; "
        "a smaller input helps"
    ]


def _stranded(file: TfliteFile, index: int, alone: list[Placement]) -> Placement:
    """Return the placement of what the Edge TPU could run, had nothing before it gone to the CPU."""
    cause = _cause(file, index, alone)
    operator = file.operators[cause]
    reason = (
        f"it comes after operator {cause} ({operator.name}), which stays on the CPU: there is one partition"
    )
    return Placement(CPU, reason, alone[cause].cure, certain=alone[cause].certain, source="AXT; E#461")


def _cause(file: TfliteFile, index: int, alone: list[Placement]) -> int:
    """Return the first refused operator that this one's inputs hang on, else the first refused one before it."""
    makers = {name: operator.index for operator in file.operators for name in operator.outputs}
    open_, seen = [index], {index}
    while open_:
        for name in file.operators[open_.pop()].inputs:
            maker = makers.get(name)
            if maker is not None and maker not in seen:
                seen.add(maker)
                open_.append(maker)
    refused = [i for i, placement in enumerate(alone) if placement.unit != UNIT]
    return next((i for i in refused if i in seen), refused[0])


def _beside(breaker: Operator) -> Placement:
    note = (
        f"it comes later than operator {breaker.index} ({breaker.name}), which stays on the CPU, but does not hang on "
        "it: documents say that everything later stays there, logs of real compilations that it does not"
    )
    return Placement(
        UNIT, certain=False, source="AXT, against compiler logs of detectors with several heads", note=note
    )


def _parameter_bytes(file: TfliteFile, placements: list[Placement]) -> int:
    """Return the bytes of constants that the mapped operators read."""
    read = {
        name
        for operator, placement in zip(file.operators, placements, strict=True)
        if placement.unit == UNIT
        for name in operator.inputs
        if name >= 0 and file.tensors[name].data is not None
    }
    return sum(bytes_of(file.tensors[name]) for name in read)


RULES = EdgeTpuRules()
