"""The report's operators: for each of the delivered artifact, the unit that runs it, and why not a faster one."""

from __future__ import annotations

from farrier_contracts.targets import Target
from farrier_converters.check.predict import Prediction, predict, reads_tflite
from farrier_converters.check.source import Source
from farrier_converters.ledger import LedgerEntry, ledger
from farrier_converters.model import ModelSettings

from ..build import Built

PROCESSORS = ("onnxruntime", "null")  # rules that see no unit besides the processor
PRECISIONS = {"float32": "fp32", "float16": "fp16", "int8": "int8", "uint8": "int8", "int16": "int16"}
INDEX = "index"  # whole numbers such as shapes


def entries_of(built: Built, target: Target) -> tuple[LedgerEntry, ...]:
    """Return the operators as the toolchain's rules see them: of the TFLite file, or of the ONNX graph."""
    toolchain = built.candidate.toolchain
    if not built.digests or toolchain.rules in PROCESSORS:
        return ledger(built.model, target)
    if reads_tflite(toolchain):
        return _of_file(predict(Source(built.runs or built.path, ModelSettings()), target, toolchain))
    found = {entry.name: entry for entry in ledger(built.model, target)}
    placed = predict(Source(built.path, ModelSettings(), built.model), target, toolchain)
    for step, placement in zip(placed.network.steps, placed.placements, strict=True):
        if step.name in found and step.counted:
            entry = found[step.name]
            reason = placement.reason or entry.reason
            found[step.name] = LedgerEntry(
                entry.index, entry.name, entry.op, placement.unit, entry.precision, reason
            )
    return tuple(found.values())


def _of_file(placed: Prediction) -> tuple[LedgerEntry, ...]:
    file = placed.file
    assert file is not None
    return tuple(
        LedgerEntry(
            index,
            step.name,
            step.op,
            placement.unit,
            PRECISIONS.get(file.tensors[operator.outputs[0]].dtype, INDEX) if operator.outputs else INDEX,
            placement.reason,
        )
        for index, (operator, step, placement) in enumerate(
            zip(file.operators, placed.network.steps, placed.placements, strict=True)
        )
    )
