"""INT8 TFLite for the Edge TPU: compiled by Google's compiler where that is installed, ready for it where not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from ...check import rules
from ...check.placement import Placement
from ...model import Model
from ...tflite.file import Operator, TfliteFile, read
from ...tools.process import Limits, ask
from .. import Compiled
from ..tflite import TfliteCompiler
from .log import Log, parse
from .remainder import left_on_cpu

PROGRAM = "edgetpu_compiler"
CHILD = "farrier_converters.tools.children.edgetpu_child"
INSTALL = (
    "the Edge TPU's compiler is not installed, so the file is delivered uncompiled: it runs on the processor until you "
    "compile it; on x86-64 Debian or Ubuntu with Coral's repository: sudo apt-get install edgetpu-compiler, then "
    "edgetpu_compiler on the artifact"
)
LIMITS = Limits(seconds=600.0, memory_share=0.5)  # its own timer ends it after 180 s
MAX_BYTES = 1 << 30  # of what it writes
UNIT = "edgetpu"
SHOWN = 3  # differences that a note spells out


class EdgeTpuCompiler:
    """Writes `.tflite` files whose mapped part is one operator."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Write the artifact; raises InputError where the graph has no TFLite counterpart or the compiler refuses it.

        `options["edgetpu"]` says what was compiled, and the notes where the prediction of `farrier check` was wrong.
        `runs` is the uncompiled file: only an Edge TPU runs the other.
        """
        plain = TfliteCompiler().compile(model, toolchain, folder)
        program = shutil.which(PROGRAM)
        if program is None:
            options = {**plain.options, UNIT: {"compiled": False}}
            return Compiled(plain.path, options, notes=(INSTALL,))
        path, log = run(program, plain.path, folder, runtime=toolchain.parameters.get("runtime_version"))
        original, compiled = (read(file, max_bytes=MAX_BYTES) for file in (plain.path, path))
        placements = rules.of_tflite(UNIT).place(original)
        notes = differences(original, placements, left_on_cpu(original, compiled), log)
        return Compiled(path, {**plain.options, UNIT: facts(log)}, runs=plain.path, notes=tuple(notes))


def run(program: str, path: Path, folder: Path, *, runtime: str | float | None = None) -> tuple[Path, Log]:
    """Run the compiler on a file, in a process with limits; raises InputError with the log's reason."""
    oldest = [] if runtime is None else ["--min_runtime_version", str(int(runtime))]
    command = [program, "--show_operations", *oldest, "--out_dir", str(folder), str(path)]
    answer = ask(
        Path(sys.executable),
        CHILD,
        {"command": command},
        title="the Edge TPU's compiler",
        folder=folder,
        limits=LIMITS,
    )
    log = parse(answer["said"])
    made = folder / f"{path.stem}_edgetpu.tflite"
    if answer["code"] or not made.is_file():
        made.unlink(missing_ok=True)
        why = log.failure or f"it ended with exit code {answer['code']}"
        raise InputError(f"the Edge TPU's compiler made nothing of {path.name}: {why}")
    return made, log


def facts(log: Log) -> dict[str, Any]:
    """Return what a bundle says of the compilation; sizes are in bytes."""
    return {
        "compiled": True,
        "compiler": log.version,
        "mapped": log.mapped,
        "unmapped": log.unmapped,
        "cached_bytes": log.cache_used,
        "streamed_bytes": log.streamed,
    }


def differences(file: TfliteFile, placements: list[Placement], on_cpu: set[int], log: Log) -> list[str]:
    """Return a sentence for what the rules had wrong, and one for parameters that do not fit on the chip."""
    notes = []
    wrong = [
        o for o, p in zip(file.operators, placements, strict=True) if (p.unit != UNIT) != (o.index in on_cpu)
    ]
    if wrong:
        said = "; ".join(_decided(o, log, mapped=o.index not in on_cpu) for o in wrong[:SHOWN])
        more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        notes.append(f"the compiler decided otherwise than predicted: {said}{more}")
    if log.streamed:
        notes.append(
            f"{log.streamed} bytes of parameters do not fit on the chip and are sent for each inference"
        )
    return notes


def _decided(operator: Operator, log: Log, *, mapped: bool) -> str:
    name = f"operator {operator.index} ({operator.name})"
    if mapped:
        return f"{name} is mapped"
    reasons = (status.reason for status in log.statuses if status.op == operator.name and status.reason)
    return f"{name} stays on the processor: {next(reasons, 'no reason given')}"
