"""What a training has reached on data that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from farrier_contracts.errors import InputError

from ... import metrics
from ...metrics import Metric
from ..data import Batch
from .trainer import Trainer


@dataclass(frozen=True)
class Verdict:
    """The mean loss over the held-out rows, and the value of `metric` where there are labels."""

    loss: float
    score: float | None = None
    metric: str | None = None
    higher: bool = True  # is better

    def better(self, other: Verdict | None) -> bool:
        """Say whether this is better: by the metric, and by the loss where that is equal."""
        return self._rank > other._rank if other is not None else True

    @property
    def _rank(self) -> tuple[float, float]:
        loss = -self.loss if math.isfinite(self.loss) else -math.inf
        if self.score is None:
            return (0.0, loss)
        return (self.score if self.higher else -self.score, loss)

    @property
    def words(self) -> str:
        """Say it in a few words."""
        if self.score is None:
            return f"validation loss {self.loss:.4g}"
        shown = f"{100 * self.score:.2f} %" if self.metric in ("accuracy", "top5") else f"{self.score:.4g}"
        return f"validation {self.metric} {shown}"


class Judge:
    """Scores a module on held-out batches; the metric is the accuracy for labels that are classes, if none is given."""

    def __init__(
        self, trainer: Trainer, held_out: Callable[[], Iterable[Batch]], metric: Metric | None
    ) -> None:
        self.trainer, self.held_out, self.metric = trainer, held_out, metric
        self.chosen = metric is not None

    def __call__(self) -> Verdict:
        """Return what the module reaches now; raises InputError where there are no rows."""
        module = self.trainer.module.eval()
        total, rows, meter = torch.zeros((), device=self.trainer.device), 0, None
        for inputs, labels in self.held_out():
            with torch.no_grad():
                value, outputs = self.trainer.value(inputs, labels)
            count = len(next(iter(inputs.values())))
            total, rows = total + value * count, rows + count
            if labels is None:
                continue
            found = [_array(outputs[spec.name]) for spec in module.model.outputs]
            self._choose(labels, found[0])
            if self.metric is not None:
                meter = meter or self.metric.start()
                meter.add(found, [labels])
        if not rows:
            raise InputError("the validation data holds no batches")
        if meter is None or self.metric is None:
            return Verdict(float(total) / rows)
        return Verdict(float(total) / rows, meter.value(), self.metric.name, self.metric.higher_is_better)

    def _choose(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """Take the accuracy where these labels are classes on the last axis."""
        if not self.chosen:
            self.chosen = True
            whole = labels.dtype.kind in "iub" and labels.size == int(np.prod(scores.shape[:-1]))
            self.metric = metrics.get("accuracy") if whole and scores.ndim > 1 else None


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
