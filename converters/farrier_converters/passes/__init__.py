"""The passes Farrier knows: each is one frozen options dataclass and one function `Model -> Model`.

A new one is one file with a `Pass` constant, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from farrier_contracts.errors import UsageError
from farrier_contracts.targets import Arithmetic

from ..fusion.record import Log
from ..model import Model

if TYPE_CHECKING:
    from ..pruning.staircase.table import Staircase

PASSES: dict[str, str] = {
    "null": "farrier_converters.passes.null:NULL",
    "clean": "farrier_converters.passes.clean:CLEAN",
    "fuse": "farrier_converters.passes.fuse:FUSE",
    "equalize": "farrier_converters.passes.repairs.equalize:EQUALIZE",
    "centre": "farrier_converters.passes.repairs.centre:CENTRE",
    "smooth": "farrier_converters.passes.repairs.smooth:SMOOTH",
    "prune": "farrier_converters.passes.prune:PRUNE",
    "fp16": "farrier_converters.passes.fp16:FP16",
    "int8": "farrier_converters.passes.int8:INT8",
    "int8-dynamic": "farrier_converters.passes.int8_dynamic:INT8_DYNAMIC",
    "int8-weights": "farrier_converters.passes.storage.int8_weights:INT8_WEIGHTS",
    "finetune": "farrier_converters.passes.finetune:FINETUNE",
    "qat": "farrier_converters.passes.qat:QAT",
    "student": "farrier_converters.passes.student:STUDENT",
    "adaround": "farrier_converters.passes.adaround:ADAROUND",
    "distill": "farrier_converters.passes.distill:DISTILL",
    "shrink": "farrier_converters.passes.storage.shrink:SHRINK",
    "int4": "farrier_converters.passes.storage.weights:INT4",
    "bf16": "farrier_converters.passes.storage.short_floats:BF16",
    "fp8": "farrier_converters.passes.storage.short_floats:FP8",
    "sparsify": "farrier_converters.passes.sparsify:SPARSIFY",
    "pack-zeros": "farrier_converters.passes.storage.pack_zeros:PACK_ZEROS",
    "nf4": "farrier_converters.passes.storage.weights:NF4",
}

Batches = Iterator[dict[str, np.ndarray]]


def _silent(_stage: str, _share: float) -> None:
    pass


@dataclass(frozen=True)
class Context:
    """What a pass may need besides the graph.

    Each call of `calibration` starts a fresh stream of input batches. `progress` hears a stage and a share 0..1.
    `twin` is a model with the same tensors to be observed in place of the one at hand, where there is no data to
    calibrate with (see `quantize.datafree`).
    `work` is a folder in which a killed calibration finds its statistics again.
    `statistics` keeps what calibration found, by tensor, for further runs over the same graph and data.
    `log` is where passes write what they did to the graph, and what they left out.
    `training(epoch)` yields batches with their labels (None: learn from the float model), in that epoch's order;
    `validation` yields held-out batches in the same form, for early stopping.
    `original` is the model as it came, before any pass of the recipe: what distillation learns from.
    `staircase` is the target's table of what widths cost (see `pruning.staircase`).
    """

    arithmetic: Arithmetic | None = None
    calibration: Callable[[], Batches] | None = None
    progress: Callable[[str, float], None] = _silent
    statistics: dict[str, Any] | None = None
    twin: Model | None = None
    training: Callable[[int], Iterable[tuple[Mapping[str, np.ndarray], np.ndarray | None]]] | None = None
    validation: Callable[[], Iterable[tuple[Mapping[str, np.ndarray], np.ndarray | None]]] | None = None
    original: Model | None = None
    staircase: Staircase | None = None
    work: Path | None = None
    log: Log | None = None

    def tell(self, log: Log) -> None:
        """Add to the log of what passes did, where one is kept."""
        if self.log is not None:
            self.log.applications += log.applications
            self.log.refusals += log.refusals


@dataclass(frozen=True)
class Pass:
    """One technique: `run(model, options, context)`, with `options` an instance of the dataclass `options`."""

    name: str
    options: type
    run: Callable[[Model, Any, Context], Model]


def get(name: str) -> Pass:
    """Return the pass called `name`; raises UsageError."""
    try:
        module, _, constant = PASSES[name].partition(":")
    except KeyError:
        raise UsageError(f"unknown pass {name!r}; choose one of: {', '.join(PASSES)}") from None
    return getattr(import_module(module), constant)
