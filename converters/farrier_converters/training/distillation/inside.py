"""What is compared inside a student and its teacher: features, and attention of the kind that both have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

from torch import Tensor, nn

from farrier_contracts.errors import UsageError

from ...distillation.points import Pair, attention_maps, spread
from ...model import Model
from .features import (
    Projection,
    feature_distance,
    map_distance,
    positions,
    relation_distance,
    spatial_attention_distance,
)

MAP_AXES, STEP_AXES = 4, 3  # of a tensor with pixels, with steps of a sequence
Values = Mapping[str, Tensor]
Term = Callable[[Values, Values, "Tensor | None"], Tensor]  # student's, teacher's, mask -> a scalar


class Inside(nn.Module):
    """The terms of inner tensors, each with its weight; its parameters are the projections between widths.

    `pairs` are points of both; maps of attention are found. `prepare` has to be called with tensors of one batch
    before it is used. `born`: the student was made from the teacher, so that equal widths need no projection.
    """

    def __init__(
        self,
        student: Model,
        teacher: Model,
        *,
        features: float,
        attention: float,
        pairs: Sequence[Pair],
        born: bool,
    ) -> None:
        super().__init__()
        self.features, self.attention, self.born = features, attention, born
        self.pairs = tuple(pairs) if features or attention else ()
        self.maps: list[tuple[str, str]] = []
        if attention:
            own, other = attention_maps(student), attention_maps(teacher)
            self.maps = spread(own, other) if own and other else []
        self.projections = nn.ModuleDict()
        self.terms: list[tuple[float, Term]] = []

    @property
    def student_names(self) -> list[str]:
        """The student's tensors that are looked at."""
        return [*(pair.student.name for pair in self.pairs), *(own for own, _ in self.maps)]

    @property
    def teacher_names(self) -> list[str]:
        """The teacher's tensors that are looked at."""
        return [*(pair.teacher.name for pair in self.pairs), *(other for _, other in self.maps)]

    def forward(self, values: Values, wanted: Values, mask: Tensor | None) -> Tensor | float:
        """Return the weighted sum of all terms."""
        total: Tensor | float = 0.0
        for weight, term in self.terms:
            total = total + weight * term(values, wanted, mask)
        return total

    def prepare(self, values: Values, wanted: Values) -> None:
        """Take widths and shapes from tensors of one batch; raises UsageError for what cannot be compared."""
        if self.features:
            self._prepare_features(values, wanted)
        if self.attention:
            self._prepare_attention(values, wanted)

    def _prepare_features(self, values: Values, wanted: Values) -> None:
        if not self.pairs:
            raise UsageError(
                "matching features needs pairs of tensors; name them, as in pairs = [['a', 'b']]"
            )
        weight = self.features / len(self.pairs)
        for number, pair in enumerate(self.pairs):
            own = positions(values[pair.student.name], pair.student.axis).shape[1]
            other = positions(wanted[pair.teacher.name], pair.teacher.axis).shape[1]
            if not (self.born and own == other):
                self.projections[str(number)] = Projection(own, other, seed=number)
            self.terms.append((weight, partial(self._feature, str(number), pair)))

    def _feature(self, key: str, pair: Pair, values: Values, wanted: Values, mask: Tensor | None) -> Tensor:
        del mask
        found, goal = values[pair.student.name], wanted[pair.teacher.name]
        if key not in self.projections:
            return feature_distance(found, goal, pair, None)
        return feature_distance(found, goal, pair, cast(Projection, self.projections[key]))

    def _prepare_attention(self, values: Values, wanted: Values) -> None:
        """Maps of attention where both have them over the same steps, else where activations are, else relations."""
        found: list[Term] = []
        for own, other in self.maps:
            if values[own].ndim == MAP_AXES and values[own].shape[2:] == wanted[other].shape[2:]:
                found.append(partial(_maps, own, other))
        for pair in () if found else self.pairs:
            axes = {values[pair.student.name].ndim, wanted[pair.teacher.name].ndim}
            if axes == {MAP_AXES}:
                found.append(partial(_spatial, pair))
            elif axes == {STEP_AXES}:
                found.append(partial(_relations, pair))
        if not found:
            raise UsageError(
                "the student and the teacher have no attention to compare: neither maps of it, nor pairs of tensors "
                "with pixels or steps"
            )
        self.terms += [(self.attention / len(found), term) for term in found]


def _maps(own: str, other: str, values: Values, wanted: Values, mask: Tensor | None) -> Tensor:
    return map_distance(values[own], wanted[other], mask)


def _spatial(pair: Pair, values: Values, wanted: Values, mask: Tensor | None) -> Tensor:
    del mask
    return spatial_attention_distance(values[pair.student.name], wanted[pair.teacher.name], pair)


def _relations(pair: Pair, values: Values, wanted: Values, mask: Tensor | None) -> Tensor:
    return relation_distance(values[pair.student.name], wanted[pair.teacher.name], pair, mask)
