"""Check a model against a target's toolchains, and hold the best against a limit."""

from __future__ import annotations

import re
from pathlib import Path

from farrier_contracts import targets
from farrier_contracts.errors import BudgetError, InputError, UsageError
from farrier_contracts.targets import Target, Toolchain
from farrier_converters.check.predict import Prediction, predict, reads_tflite
from farrier_converters.check.source import Source, is_tflite
from farrier_converters.model import ModelSettings

from .result import Check
from .segments import planned, write


def check(
    model: str | Path,
    *,
    target: str = "host",
    toolchain: str | None = None,
    min_accelerated: float | str | None = None,
    tpus: int = 1,
    segments: str | Path | None = None,
) -> Check:
    """Predict which operators of a model a target's accelerator runs, and why not the others.

    `model` is an `.onnx` or `.tflite` file, or another that `farrier optimize` reads; nothing is loaded into an engine,
    and no compiler is needed. Of several toolchains it is the target's first that takes the model; for a TFLite file,
    the first that runs such files. `toolchain` names another, by its compiler or its rules. `min_accelerated` is a
    share of the operators (0.95, or "95%"), in which doubtful refusals count as accelerated: below it, BudgetError is
    raised. With `tpus`, the network is cut into as many segments, balanced by predicted time; `segments` is a folder
    that they are written to. Raises UsageError or InputError in one sentence.
    """
    least = _share(min_accelerated)
    board = targets.get(target)
    path = Path(model)
    candidates = _candidates(board, toolchain, path)
    prediction, refused = _first(path, board, candidates)
    others = tuple(t for t in board.toolchains if t is not prediction.toolchain and t not in dict(refused))
    cut = planned(prediction, tpus, write=segments is not None)
    result = Check(path, prediction, others, tuple(refused), cut)
    if least is not None and result.prediction.possible.ops < least:
        raise BudgetError(_sentence(result, least))
    if segments is not None:
        write(result, Path(segments))
    return result


def _candidates(board: Target, name: str | None, path: Path) -> list[Toolchain]:
    if name is None:
        return sorted(board.toolchains, key=lambda toolchain: is_tflite(path) and not reads_tflite(toolchain))
    chosen = [toolchain for toolchain in board.toolchains if name in (toolchain.compiler, toolchain.rules)]
    if not chosen:
        known = ", ".join(dict.fromkeys(toolchain.compiler for toolchain in board.toolchains))
        raise UsageError(f"{board.name} has no toolchain {name!r}; choose one of: {known}")
    return chosen


def _first(
    path: Path, board: Target, candidates: list[Toolchain]
) -> tuple[Prediction, list[tuple[Toolchain, str]]]:
    """Return the prediction for the first toolchain that takes the model, and why those before it do not."""
    source = Source(path, ModelSettings())
    refused: list[tuple[Toolchain, InputError | UsageError]] = []
    for toolchain in candidates:
        try:
            return predict(source, board, toolchain), [(other, str(error)) for other, error in refused]
        except (InputError, UsageError) as error:
            refused.append((toolchain, error))
    raise refused[0][1]


def _share(value: float | str | None) -> float | None:
    """Read "95%", "0.95" or 0.95."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", str(value).strip())
    share = float(match.group(1)) / (100 if match.group(2) else 1) if match else -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"a share is written like 95% or 0.95, not {str(value)!r}")
    return share


def _sentence(result: Check, least: float) -> str:
    best = result.prediction
    first = result.first_refusal
    return (
        f"{best.possible.ops:.1%} of the operators of {result.model} can run accelerated on {best.target}, less than "
        f"{least:.1%}; the first that cannot is {first}"
    )
