"""Sparsity: zeros among the weights, without a pattern, N of M, or in blocks; in one shot or while training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import UsageError

from ..model import Model
from ..sparsity import importance, layers, schedules
from ..sparsity.goal import AUTO, Goal, goal, suited
from ..sparsity.layers import Found
from ..sparsity.report import SparsityReport, measure
from ..sparsity.run import Made, masked, one_shot
from ..sparsity.sparsegpt import SparseGptSettings
from . import Context, Pass

if TYPE_CHECKING:
    from ..training.fit import History
    from ..training.module import OnnxModule
    from ..training.objective import Objective


@dataclass(frozen=True)
class SparsifyOptions:
    """How many zeros, where, and how they come.

    `ratio`: share of zeros, 0 to below 1, among the weights that become sparse; without one, the pattern's own or 0.5.
    `pattern`: "unstructured", "N:M" (at most N of M neighbouring inputs; 2:4 is what TensorRT reads), or "RxC" (blocks
    of R outputs x C columns of the matrix [outputs, inputs * kernel]).
    `importance`: "magnitude"; "wanda" and "sparsegpt" (which also moves the kept weights) need calibration data, "snip"
    and "movement" training data. `scope`: what competes, "global", "layer", "output", "erk" or "lamp" (see
    `sparsity.allocate`); "auto" takes the first that `sparsity.importance.SCOPES` lists.
    `exclude`: operators, by name, that stay dense. `tables`: embeddings become sparse too.
    `schedule`: "one-shot", or "constant", "cubic", "one-cycle" while training, between the shares `start` and `end` of
    it, in `updates` steps; "movement" wants a start above 0, since scores of a few steps are noise. `fit`: fields of
    `training.fit.FitSettings`; where there are some, one-shot sparsity is followed by training with the zeros kept.
    `loss(outputs, labels)` or `objective` replace the task's own loss.
    `batches`: of training data that "snip" looks at. `damping`, `sequential`: see `SparseGptSettings`.
    """

    ratio: float | None = None
    pattern: str = "unstructured"
    importance: str = importance.MAGNITUDE
    scope: str = AUTO
    exclude: tuple[str, ...] = ()
    tables: bool = False
    schedule: str = schedules.ONE_SHOT
    start: float = 0.0
    end: float = 0.6
    updates: int = 50
    fit: Mapping[str, Any] = field(default_factory=dict)
    loss: Any = None
    objective: Any = None
    batches: int = 8
    damping: float = 0.01
    sequential: bool = True

    @property
    def trains(self) -> bool:
        """Whether weights train on the way."""
        return bool(self.fit) or self.schedule != schedules.ONE_SHOT


@dataclass(frozen=True)
class Sparsified:
    """A sparse model, what became sparse in it, and how training went, where there was one."""

    model: Model
    report: SparsityReport
    history: History | None = None


def run(model: Model, options: SparsifyOptions, context: Context) -> Model:
    """Return the model with zeros among its weights; nothing else of it changes, unless it trains.

    Raises UsageError for options that contradict each other or need data that is not there, InputError for a ratio that
    would empty whole outputs, a model without fitting weights, and data that does not fit.
    """
    return sparsify(model, options, context).model


def sparsify(model: Model, options: SparsifyOptions, context: Context) -> Sparsified:
    """Do what the pass does, and return the report beside the model."""
    wanted = goal(options.pattern, options.ratio, options.scope, options.importance)
    _check(options, context)
    found = layers.find(model, exclude=options.exclude, tables=options.tables)
    suited(found, wanted.pattern)
    wanted.masks(
        found.layers, importance.magnitude(found.layers)
    )  # a ratio that cannot be is said before any work
    history = None
    if options.importance in importance.TRAINED or options.trains:
        made, history = _trained(model, options, context, found, wanted)
    else:
        made = _at_once(model, options, context, found, wanted)
    report = measure(made.model, found, wanted.pattern, wanted.ratio, made.notes)
    return Sparsified(made.model, report, history)


def _check(options: SparsifyOptions, context: Context) -> None:
    schedules.get(options.schedule)
    method = options.importance
    gradual = options.schedule != schedules.ONE_SHOT
    if method == importance.MOVEMENT and not gradual:
        raise UsageError(
            "movement is known only once weights have moved: choose the schedule 'cubic', 'one-cycle' or 'constant'"
        )
    if gradual and method not in (importance.MAGNITUDE, importance.MOVEMENT):
        raise UsageError(
            f"the importance {method!r} is known once: choose the schedule 'one-shot', or 'magnitude' or 'movement'"
        )
    if (options.trains or method in importance.TRAINED) and context.training is None:
        why = f"the importance {method!r}" if method in importance.TRAINED else "training"
        raise UsageError(
            f"{why} needs training data; give a stream of batches with labels, or choose another"
        )
    if options.batches < 1:
        raise UsageError(f"snip needs at least one batch, not {options.batches}")


def _at_once(model: Model, options: SparsifyOptions, context: Context, found: Found, wanted: Goal) -> Made:
    return one_shot(
        model,
        found.layers,
        wanted,
        options.importance,
        batches=context.calibration,
        settings=SparseGptSettings(options.damping, options.sequential),
        progress=context.progress,
    )


def _trained(
    model: Model, options: SparsifyOptions, context: Context, found: Found, wanted: Goal
) -> tuple[Made, History | None]:
    from ..training.fit import FitSettings, fit
    from ..training.hooks import KeepZeros
    from ..training.module import OnnxModule
    from ..training.sparse.hooks import Ramp, Sparsify

    settings = FitSettings.of(options.fit)
    names = list(found.layers)
    gradual = options.schedule != schedules.ONE_SHOT
    made = Made(model)
    if options.importance == importance.SNIP:
        made = Made(_snipped(model, options, context, found, wanted, settings.device))
    elif not gradual:
        made = _at_once(model, options, context, found, wanted)
    if not options.trains:
        return made, None
    ramp = Ramp(options.schedule, options.start, options.end, options.updates)
    moves = options.importance == importance.MOVEMENT
    hook = Sparsify(found.layers, wanted, ramp, moves=moves) if gradual else KeepZeros(names)
    module = OnnxModule(made.model, trainable=names)
    history = fit(
        module,
        context.training,
        settings,
        objective=_objective(module, model, options),
        hooks=(hook,),
        progress=context.progress,
        validation=context.validation,
    )
    return Made(module.write_back(), made.notes), history


def _snipped(
    model: Model, options: SparsifyOptions, context: Context, found: Found, wanted: Goal, device: str
) -> Model:
    from ..training.data import stream
    from ..training.module import OnnxModule
    from ..training.sparse.snip import snip

    module = OnnxModule(model, trainable=list(found.layers))
    data = stream(context.training, [spec.name for spec in model.inputs])
    objective = _objective(module, None, options)
    scores = snip(module, found.layers, data, objective, batches=options.batches, device=device)
    unseen = [name for name in found.layers if name not in scores]
    if unseen:
        found.leave(unseen[0], "the loss does not depend on its weights")
        return _snipped(model, options, context, found, wanted, device)
    return masked(model, found.layers, wanted.masks(found.layers, scores))


def _objective(module: OnnxModule, model: Model | None, options: SparsifyOptions) -> Objective:
    """Return the objective: the user's, or the labels' loss, with the dense model to learn from without labels."""
    from ..training.losses import task
    from ..training.module import OnnxModule
    from ..training.objective import Plain

    if options.objective is not None:
        return options.objective
    teacher = None if model is None else OnnxModule(model).eval()
    return Plain(module, options.loss or task(module), teacher)


SPARSIFY = Pass("sparsify", SparsifyOptions, run)
