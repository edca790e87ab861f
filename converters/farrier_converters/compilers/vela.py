"""Vela: a full-INT8 TFLite file for microcontrollers with an Ethos-U NPU."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from .. import tools
from ..model import Model, ModelSettings
from ..tflite.file import read
from ..tools.process import call
from . import Compiled, get

TOOL = "vela"
ACCELERATOR = "ethos-u55-128"
NPU = "CUSTOM:ethos-u"  # the custom operator that holds what runs on the accelerator


@dataclass(frozen=True)
class Mapped:
    """What Vela made: the file, operators left to the processor by kind, and its estimate for the accelerator."""

    path: Path
    processor: Mapping[str, int]
    inference_ms: float
    memory_bytes: int
    flash_bytes: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for a report."""
        return tuple(
            f"{count} x {name}: left to the Cortex-M by Vela"
            for name, count in sorted(self.processor.items())
        )


class VelaCompiler:
    """Writes `.tflite` files with an `ethos-u` operator; the file before Vela is what a stand-in runs."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Write the model as TFLite and let Vela compile it for `toolchain.parameters["accelerator"]`.

        Raises InputError, MissingToolError.
        """
        tools.python_of(TOOL)
        before = folder / "before"
        before.mkdir()
        plain = get("tflite").compile(model, toolchain, before)
        accelerator = str(toolchain.parameters.get("accelerator", ACCELERATOR))
        mapped = compile_file(plain.path, folder / plain.path.name, accelerator)
        estimate = {"inference_ms": mapped.inference_ms, "memory_bytes": mapped.memory_bytes}
        options = {**plain.options, "estimate": {**estimate, "flash_bytes": mapped.flash_bytes}}
        return Compiled(mapped.path, options, runs=plain.path, notes=(*plain.notes, *mapped.notes))


def compile_file(source: Path, target: Path, accelerator: str) -> Mapped:
    """Compile a full-INT8 TFLite file to `target`; raises InputError, MissingToolError."""
    with tempfile.TemporaryDirectory() as work:
        request = {"source": str(source.resolve()), "target": work, "accelerator": accelerator}
        said = call(TOOL, request, folder=Path(work))
        if said["file"] is None:
            raise InputError(f"Vela wrote no file for {source.name}")
        target.write_bytes(Path(said["file"]).read_bytes())
    file = read(target, max_bytes=ModelSettings().max_bytes)
    left = Counter(o.name for o in file.operators if o.name != NPU)
    summary = said["summary"]
    return Mapped(
        target,
        dict(left),
        inference_ms=float(summary.get("inference_time", 0)) * 1e3,
        memory_bytes=int(float(summary.get("sram_memory_used", 0)) * 1024),
        flash_bytes=int(float(summary.get("off_chip_flash_memory_used", 0)) * 1024),
    )
