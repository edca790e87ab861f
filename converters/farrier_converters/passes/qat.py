"""Quantization-aware training: integers whose weights and scales were trained through their own rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import UsageError

from ..model import Model
from ..quantize.calibrate import observe
from ..quantize.rewrite import Widths
from ..quantize.trained.norms import norm_factors
from . import Context, Pass
from .clean import CLEAN
from .fuse import FUSE
from .int8 import SAFE, Int8Options, raised

if TYPE_CHECKING:
    from ..quantize.scales import Range
    from ..training.qat import Quantization, Trained


@dataclass(frozen=True)
class QatOptions:
    """What is quantized and how (`int8`), and how it trains (fields of `training.fit.FitSettings`).

    `checkpoints` > 1 saves memory: inner results are computed twice (see `OnnxModule`). `loss(outputs, labels)`
    replaces cross-entropy or squared error. The loss is `hard` of the labels' and the rest of the distance to the
    answers of the model as it came (`context.original`) at `temperature`, see the pass "distill".
    """

    int8: Int8Options | Mapping[str, Any] = field(default_factory=lambda: Int8Options(wide_edges=True))
    fit: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: int = 0
    loss: Any = None
    hard: float = 1.0
    temperature: float = 4.0


def run(model: Model, options: QatOptions, context: Context) -> Model:
    """Return the model in integers, trained on `context.training`; it may come with or without its batch norms.

    Raises UsageError without training data, InputError for what cannot be trained, MissingToolError without PyTorch.
    """
    return train(model, options, context).model


def train(model: Model, options: QatOptions, context: Context) -> Trained:
    """Do what the pass does, and return how it went beside the model."""
    if context.training is None:
        raise UsageError("quantization-aware training needs training data; give a stream of batches")
    from ..training import qat
    from ..training.fit import FitSettings

    if options.hard < 1 and context.original is None:
        raise UsageError("learning from the model as it came needs that model; give it, or leave hard at 1")
    quantization, factors = prepare(model, int8_options(options.int8), context)
    return qat.train(
        quantization,
        context.training,
        FitSettings.of(options.fit),
        factors=factors,
        loss=options.loss,
        checkpoints=options.checkpoints,
        lesson=None if options.hard == 1 else qat.Taught(context.original, options.hard, options.temperature),  # type: ignore[arg-type]
        progress=context.progress,
    )


def int8_options(given: Int8Options | Mapping[str, Any]) -> Int8Options:
    """Return options that a recipe may hold as a table; raises UsageError."""
    if isinstance(given, Int8Options):
        return given
    try:
        return Int8Options(**given)
    except TypeError as error:
        raise UsageError(f"the pass int8 does not take these options: {error}") from None


def prepare(model: Model, options: Int8Options, context: Context) -> tuple[Quantization, dict[str, Any]]:
    """Return the quantization of a model (cleaned, fused) and the batch norms that its convolutions train with."""
    from ..training.qat import quantization_of

    feeds = None if context.calibration is None else next(context.calibration(), None)
    model = raised(CLEAN.run(model, CLEAN.options(), context), options, feeds)
    fused = FUSE.run(model, FUSE.options(), context)
    target = context.arithmetic or SAFE
    arithmetic = options.arithmetic(target)

    def ranges(names: list[str], widths: Widths) -> dict[str, Range]:
        observers = observe(
            fused,
            names,
            twin=context.twin,
            batches=context.calibration,
            progress=context.progress,
            settings=options.calibration,
            known=context.statistics,
        )
        return {
            name: observer.range(
                options.method,
                percentile=options.percentile,
                bits=widths.activation([name]),
                symmetric=arithmetic.symmetric_activations,
            )
            for name, observer in observers.items()
        }

    quantization = quantization_of(
        fused,
        arithmetic,
        Widths(options.activation_bits, options.weight_method, wide_weight_bits=options.edge_bits(target)),
        ranges,
        wide_edges=options.wide_edges,
        style=arithmetic.quantizers,
        exclude=frozenset(options.exclude),
        stem=options.stem,
    )
    factors = (
        norm_factors(model, fused) if arithmetic.per_channel and not arithmetic.power_of_two_scales else {}
    )
    return quantization, factors


QAT = Pass("qat", QatOptions, run)
