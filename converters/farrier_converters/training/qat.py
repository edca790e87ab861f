"""Quantization-aware training: train through the quantizers that the integer model will have, then write it.

The placement and its writer decide where quantizers are, for training as for the integers: there is one truth. Weights
and scales learn together (Esser et al., "Learned step size quantization", arXiv 1902.08153), scales by their binary
logarithm (Jain et al., "Trained quantization thresholds", arXiv 1903.08066). Convolutions train with a batch norm, also
where the model came with it folded: without, training diverges at ten times smaller steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Arithmetic

from ..graph.edit import Graph
from ..graph.write_back import write_back
from ..model import Model
from ..quantize.edges import wide
from ..quantize.placement import place
from ..quantize.rewrite import Known, QdqWriter, Widths
from ..quantize.scales import Range
from ..quantize.trained.writer import EPSILON, Learnable, TrainableWriter
from .data import Stream, stream
from .fit import FitSettings, History, Progress, fit
from .losses import Loss
from .module import OnnxModule
from .objective import Objective

NORM_BATCHES = 8  # from which a new batch norm takes its first statistics


@dataclass(frozen=True)
class Quantization:
    """A float model (fused) and how it becomes integers; the same for training and for writing."""

    model: Model
    arithmetic: Arithmetic
    widths: Widths
    ranges: Mapping[str, Range]
    where: Mapping[str, object] = field(default_factory=dict)  # the options of `place`

    def trainable(self, factors: Mapping[str, np.ndarray]) -> tuple[Model, Learnable]:
        """Return the trainable graph and where its parameters are."""
        graph = Graph(self.model)
        writer = TrainableWriter(graph, place(graph, **self.where), self.arithmetic, self.widths, factors)  # type: ignore[arg-type]
        return writer.write(dict(self.ranges)), writer.learnable

    def integers(self, known: Known = Known()) -> Model:
        """Return the integer graph."""
        graph = Graph(self.model)
        plan = place(graph, **self.where)  # type: ignore[arg-type]
        return QdqWriter(graph, plan, self.arithmetic, self.widths, known).write(dict(self.ranges))


@dataclass(frozen=True)
class Trained:
    """The integer model, what the float form of its weights became, and how training went.

    `moved` is the relative change of each scale, by initializer of the trainable graph.
    """

    model: Model
    history: History
    moved: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Taught:
    """Learning from a teacher's answers at `temperature` besides the labels, which are the share `hard` of the loss."""

    teacher: Model
    hard: float
    temperature: float

    def objective(self, module: OnnxModule, data: Stream, loss: Loss | None, smoothing: float) -> Objective:
        """Return what is minimized; raises InputError for empty data, UsageError for shares that are none."""
        from .distillation import Distillation, Teachers, Weights

        first = next(iter(data(0)), None)
        if first is None:
            raise InputError("the training data holds no batches")
        return Distillation(
            module,
            Teachers([OnnxModule(self.teacher)], cache=bool(getattr(data, "repeats", False))),
            Weights(self.temperature, self.hard),
            example={name: np.asarray(value) for name, value in first[0].items()},
            labels=first[1],
            loss=loss,
            smoothing=smoothing,
        )


def train(
    quantization: Quantization,
    data: Any,
    settings: FitSettings = FitSettings(),
    *,
    factors: Mapping[str, np.ndarray],
    loss: Loss | None = None,
    checkpoints: int = 0,
    lesson: Taught | None = None,
    progress: Progress = lambda _stage, _share: None,
) -> Trained:
    """Train the quantized form of a model and return it in integers; see `fit` for data, loss and errors.

    With a `lesson` it learns from another model too.
    """
    data = stream(data, [spec.name for spec in quantization.model.inputs])
    graph, learnable = quantization.trainable(factors)
    module = OnnxModule(graph, trainable=learnable.biases, scales=True, checkpoints=checkpoints)
    _start_norms(module, learnable, data)
    before = {name: module.value(name).detach().clone() for name in module.logarithmic}
    if lesson is None:
        history = fit(
            module, data, settings, loss=loss, teacher=OnnxModule(quantization.model), progress=progress
        )
    else:
        objective = lesson.objective(module, data, loss, settings.smoothing)
        plain = replace(settings, smoothing=0.0)  # the objective smooths
        history = fit(module, data, plain, objective=objective, progress=progress)
    moved = {name: (module.value(name) / before[name] - 1).detach().numpy() for name in before}
    return Trained(finish(quantization, module, learnable), history, moved)


def finish(quantization: Quantization, module: OnnxModule, learnable: Learnable) -> Model:
    """Fold what was trained into the float model, and write that in integers with the learned scales."""
    values = {name: module.value(name).detach().cpu().numpy() for name in module.attributes}
    stored = {tensor.name for tensor in quantization.model.proto.graph.initializer}
    weights = {name: values[scale] for name, scale in learnable.weights.items()}
    changed = {name: value for name, value in values.items() if name in stored}
    for norm in learnable.norms:
        factor = values[norm.gamma] / np.sqrt(values[norm.variance] + EPSILON)
        weight = values[norm.weight]
        changed[norm.weight] = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
        changed[norm.bias] = values[norm.beta] - values[norm.mean] * factor
        weights[norm.weight] = weights[norm.weight] * np.abs(factor)
    affines = {
        name: replace(affine, scale=np.float32(values[scale]))
        for name, (scale, affine) in learnable.activations.items()
    }
    trained = replace(quantization, model=write_back(quantization.model, changed))
    return trained.integers(Known(affines, weights))


def _start_norms(module: OnnxModule, learnable: Learnable, data: Stream) -> None:
    """Give new batch norms the statistics of the data, so that training starts from the model's own function."""
    if not learnable.norms:
        return
    norms = {norm.gamma: norm for norm in learnable.norms}
    sums: dict[str, list[torch.Tensor]] = {name: [] for name in norms}
    module.eval()
    with torch.no_grad():
        for number, (inputs, _labels) in enumerate(data(0)):
            if number == NORM_BATCHES:
                break
            values = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
            for position, step in enumerate(module.steps):
                if step.name == "BatchNormalization" and step.inputs[1] in norms:
                    x = values[step.inputs[0]]
                    axes = [0, *range(2, x.ndim)]
                    sums[step.inputs[1]].append(torch.stack([x.mean(axes), x.square().mean(axes)]))
                module.run(values, position, position + 1)
        for name, norm in norms.items():
            mean, square = torch.stack(sums[name]).mean(0)
            variance = (square - mean.square()).clamp_min(0)
            factor = torch.from_numpy(norm.factor)
            module.value(norm.gamma).copy_(factor * (variance + EPSILON).sqrt())
            module.value(norm.beta).add_(mean * factor)
            module.value(norm.mean).copy_(mean)
            module.value(norm.variance).copy_(variance)


def quantization_of(
    model: Model,
    arithmetic: Arithmetic,
    widths: Widths,
    ranges: Callable[[list[str], Widths], Mapping[str, Range]],
    *,
    wide_edges: bool,
    **where: object,
) -> Quantization:
    """Place quantizers in a fused float model; `ranges(tensors, widths)` says what they cover."""
    graph = Graph(model)
    plan = place(graph, **where)  # type: ignore[arg-type]
    fused = graph.build()
    widths = replace(widths, wide=wide(graph, plan, ends=wide_edges))
    points = [name for name in plan.points if name not in plan.bounds]
    return Quantization(fused, arithmetic, widths, ranges(points, widths), where)
