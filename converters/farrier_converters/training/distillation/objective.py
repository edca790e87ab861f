"""The objective of a student: hard labels, soft answers, features and attention of one teacher or several."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from farrier_contracts.errors import InputError, UsageError

from ...distillation.outputs import Answer, answers_of
from ...distillation.points import Pair
from ...model import Model
from ..labels import IGNORED
from ..losses import Loss, Task
from ..module import OnnxModule
from ..objective import Objective
from .answers import distance
from .inside import Inside
from .teachers import Teachers


@dataclass(frozen=True)
class Weights:
    """What weighs how much.

    The loss is `hard` times that of the labels plus (1 - `hard`) times the distance to the teachers' answers at
    `temperature`, plus `features` and `attention` times those of inner tensors. Without labels the answers weigh 1.
    Raises UsageError for what means nothing.
    """

    temperature: float = 4.0
    hard: float = 0.5
    features: float = 0.0
    attention: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.temperature > 0:
            raise UsageError(f"the temperature must be above zero; it is {self.temperature}")
        if not 0 <= self.hard <= 1:
            raise UsageError(f"hard is the labels' share of the loss, from 0 to 1; it is {self.hard}")
        if not (self.features >= 0 and self.attention >= 0):
            raise UsageError("the weights of features and attention must not be negative")


@dataclass(frozen=True)
class Reading:
    """How data is read: what counts, and what labels it.

    `mask` is an input [N, T] that is zero at padding (an attention mask, or word numbers whose padding is 0); where
    labels of steps are negative (-100), these steps do not count either. `next_token` is an input [N, T] of token
    numbers, each of which labels the one before it where there are no other labels.
    """

    mask: str | None = None
    next_token: str | None = None


class Distillation(Objective):
    """Learn from teachers; `pairs` are points of the student and of the first teacher that are compared inside.

    `example` is a batch that sizes are taken from, `labels` its labels. `losses` names losses by the student's outputs
    (see `distillation.outputs`); a teacher's outputs are matched by name, else in order. `loss(outputs, labels)`
    replaces the labels' loss, `smoothing` is that of labels. `born` says that the student was made from the first
    teacher. Raises InputError for a student and a teacher whose answers cannot be compared, UsageError for options.
    """

    def __init__(
        self,
        module: OnnxModule,
        teachers: Teachers,
        weights: Weights = Weights(),
        *,
        example: Mapping[str, np.ndarray],
        labels: np.ndarray | None = None,
        losses: Mapping[str, str] | None = None,
        pairs: Sequence[Pair] = (),
        born: bool = False,
        reading: Reading = Reading(),
        loss: Loss | None = None,
        smoothing: float = 0.0,
    ) -> None:
        self.module, self.teachers, self.weights, self.reading = module, teachers, weights, reading
        self.loss: Loss = loss or Task(module, smoothing)
        names = [spec.name for spec in module.model.inputs]
        for name in (reading.mask, reading.next_token):
            if name is not None and name not in names:
                raise UsageError(f"the student has no input {name!r}; it has {', '.join(names)}")
        teachers.order = names
        self.answers = answers_of(module.model, losses, labels=labels)
        self.wanted = [_teacher_answers(teacher.model, self.answers) for teacher in teachers.modules]
        self.inside = Inside(
            module.model,
            teachers.modules[0].model,
            features=weights.features,
            attention=weights.attention,
            pairs=pairs,
            born=born,
        )
        looked_at = [a.tensor for a in self.answers if a.loss != "none"]
        self.keep: Collection[str] = tuple(dict.fromkeys([*looked_at, *self.inside.student_names]))
        self._prepare(example)

    def __call__(
        self, values: Mapping[str, Tensor], feeds: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        """Return the loss of a batch."""
        if labels is None and self.reading.next_token is not None:
            labels = following(feeds[self.reading.next_token])
        mask = self._mask(feeds, labels)
        hard = 0.0 if labels is None else self.weights.hard
        total = torch.zeros((), device=next(iter(values.values())).device)
        if labels is not None and hard:
            total = total + hard * self._hard(values, labels)
        if hard < 1 or self.inside.terms:
            found = self._ask(feeds)
            if hard < 1:
                total = total + (1 - hard) * self._soft(values, found, mask)
            total = total + self.inside(values, found[0], mask)
        return total

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return the projections' parameters."""
        return self.inside.parameters()

    def to(self, device: torch.device) -> None:
        """Move teachers and projections."""
        self.teachers.to(device)
        self.inside.to(device)

    def check(self, labels: np.ndarray | None, shapes: Mapping[str, torch.Size]) -> None:
        """Raise InputError for labels that do not fit the first output."""
        if labels is not None and self.weights.hard and isinstance(self.loss, Task):
            self.loss.check(labels, shapes[self.module.model.outputs[0].name])

    def _hard(self, values: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        outputs = tuple(values[spec.name] for spec in self.module.model.outputs)
        return torch.as_tensor(self.loss(outputs[0] if len(outputs) == 1 else outputs, labels))

    def _soft(
        self, values: Mapping[str, Tensor], found: Sequence[Mapping[str, Tensor]], mask: Tensor | None
    ) -> Tensor:
        """Distances add up over outputs; their mean over teachers has the gradient of the mean teacher's."""
        total = torch.zeros((), device=next(iter(values.values())).device)
        for weight, wanted, answers in zip(self.teachers.weights, found, self.wanted, strict=True):
            for own, other in zip(self.answers, answers, strict=True):
                if own.loss == "none":
                    continue
                each = distance(
                    values[own.tensor],
                    wanted[other.tensor],
                    own,
                    other,
                    temperature=self.weights.temperature,
                    mask=mask,
                )
                total = total + weight * each
        return total

    def _ask(self, feeds: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        names = [[a.tensor for a in answers if a.loss != "none"] for answers in self.wanted]
        names[0] += self.inside.teacher_names
        return self.teachers.answers(feeds, names)

    def _mask(self, feeds: Mapping[str, Tensor], labels: Tensor | None) -> Tensor | None:
        if self.reading.mask is not None:
            return feeds[self.reading.mask] != 0
        if labels is not None and labels.ndim == 2 and not labels.is_floating_point():
            return labels >= 0
        return None

    def _prepare(self, example: Mapping[str, np.ndarray]) -> None:
        """Look at one batch on both sides: do answers compare, how wide are projections, what can attention be."""
        feeds = {name: torch.from_numpy(np.array(value)) for name, value in example.items()}
        training = self.module.training
        self.module.to("cpu")
        self.teachers.to(torch.device("cpu"))
        with torch.no_grad():
            values = self.module.eval().compute(feeds, self.keep)
        self.module.train(training)
        found = self._ask(feeds)
        for wanted, answers, teacher in zip(found, self.wanted, self.teachers.modules, strict=True):
            for own, other in zip(self.answers, answers, strict=True):
                if own.loss != "none" and values[own.tensor].shape != wanted[other.tensor].shape:
                    raise InputError(
                        f"the student answers {own.name!r} in shape {list(values[own.tensor].shape)}, "
                        f"{teacher.model.name} {other.name!r} in {list(wanted[other.tensor].shape)}; "
                        "both have to answer alike"
                    )
        self.inside.prepare(values, found[0])


def following(ids: Tensor) -> Tensor:
    """Return what each step [N, T] of a text should say: the token after it, nothing at the end."""
    return torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)], 1)


def _teacher_answers(teacher: Model, answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """Return a teacher's answers in the order of the student's, compared in the same way."""
    names = [spec.name for spec in teacher.outputs]
    if any(answer.name not in names for answer in answers):
        if len(names) != len(answers):
            raise InputError(
                f"{teacher.name} has the outputs {', '.join(names)}; the student has "
                f"{', '.join(answer.name for answer in answers)}"
            )
        matched = dict(zip((answer.name for answer in answers), names, strict=True))
    else:
        matched = {answer.name: answer.name for answer in answers}
    found = {a.name: a for a in answers_of(teacher, {matched[a.name]: a.loss for a in answers})}
    return tuple(found[matched[answer.name]] for answer in answers)
