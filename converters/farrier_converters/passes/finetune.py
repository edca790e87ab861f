"""Fine-tuning: train a model's weights on, from labels or from what the original model answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import UsageError

from ..model import Model
from . import Context, Pass

if TYPE_CHECKING:
    from ..training.fit import History
    from ..training.module import OnnxModule


@dataclass(frozen=True)
class FinetuneOptions:
    """How it trains (`fit`: fields of `training.fit.FitSettings`), and what.

    `loss(outputs, labels)` replaces the loss that labels suggest; `smoothing` (0..1) is that loss's label smoothing.
    `frozen` names parameters that stay as they are, by their initializers' names or patterns ("layer1.*").
    `keep_zeros` keeps zeros of weights zero, so that a sparse model stays as sparse as it is. `metric` (a name, or
    "file.py:function") judges the validation data in place of the accuracy or the loss. `checkpoints` > 1 saves
    memory: inner results are computed twice (see `OnnxModule`).
    """

    fit: Mapping[str, Any] = field(default_factory=dict)
    loss: Any = None
    smoothing: float = 0.0
    frozen: Sequence[str] = ()
    keep_zeros: bool = True
    metric: str | None = None
    checkpoints: int = 0


@dataclass(frozen=True)
class Finetuned:
    """The trained model, and how training went."""

    model: Model
    history: History


def run(model: Model, options: FinetuneOptions, context: Context) -> Model:
    """Return the model with weights trained on `context.training`; nothing else in it changes.

    Batches without labels learn from the answers of `context.original`. With `context.validation` the best epoch's
    weights are kept, or those it came with where no epoch was better. Raises UsageError without training data or for
    options that mean nothing, InputError for data that does not fit and for models that cannot be trained,
    MissingToolError without PyTorch.
    """
    return train(model, options, context).model


def train(model: Model, options: FinetuneOptions, context: Context) -> Finetuned:
    """Do what the pass does, and return how it went beside the model."""
    if context.training is None:
        raise UsageError("fine-tuning needs training data; give a stream of batches")
    from .. import metrics
    from ..training.fit import FitSettings, fit
    from ..training.hooks import KeepZeros
    from ..training.module import OnnxModule

    settings = FitSettings.of(options.fit)
    if options.smoothing:
        settings = replace(settings, smoothing=options.smoothing)
    frozen = _frozen(OnnxModule(model), options.frozen) if options.frozen else ()
    module = OnnxModule(model, frozen=frozen, checkpoints=options.checkpoints)
    history = fit(
        module,
        context.training,
        settings,
        loss=options.loss,
        hooks=[KeepZeros()] if options.keep_zeros else [],
        teacher=None if context.original is None else OnnxModule(context.original),
        validation=context.validation,
        metric=None if options.metric is None else metrics.get(options.metric),
        work=context.work,
        key=_key(options, context) if context.work is not None else "",
        progress=context.progress,
    )
    return Finetuned(module.write_back(), history)


def _frozen(module: OnnxModule, patterns: Sequence[str]) -> set[str]:
    """Return the parameters that the patterns name; raises UsageError for a pattern that names none."""
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in module.parameters_by_name if fnmatchcase(name, pattern)}
        if not matching:
            some = ", ".join(list(module.parameters_by_name)[:3])
            raise UsageError(f"no parameter is called {pattern!r}; the model has {some} and so on")
        found |= matching
    return found


def _key(options: FinetuneOptions, context: Context) -> str:
    """Return what tells this training apart besides what `fit` sees: the loss, and the model that is learned from."""
    loss = (
        "" if options.loss is None else getattr(options.loss, "__qualname__", type(options.loss).__qualname__)
    )
    found = hashlib.sha256(f"{loss}\n{options.metric}\n{sorted(options.frozen)}\n".encode())
    if context.original is not None:
        for tensor in context.original.proto.graph.initializer:
            found.update(tensor.SerializeToString(deterministic=True))
    return found.hexdigest()


FINETUNE = Pass("finetune", FinetuneOptions, run)
