"""How much each unit matters: a number [units] for each group, from weights, activations or gradients.

A criterion is `score(groups, evidence, reading) -> Scores`; a new one is one function and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from ..group import Groups
from .evidence import Evidence, Reading, Scores

WEIGHTS, ROWS, GRADIENTS = "weights", "rows", "gradients"


@dataclass(frozen=True)
class Criterion:
    """`where` is "module:function", `needs` what it looks at: weights, calibration rows, or gradients."""

    where: str
    needs: str = WEIGHTS

    @property
    def score(self) -> Callable[[Groups, Evidence, Reading], Scores]:
        """The function, imported on use."""
        module, _, name = self.where.partition(":")
        return getattr(import_module(f".{module}", __name__), name)


CRITERIA: Mapping[str, Criterion] = {
    "l1": Criterion("weights:l1"),
    "l2": Criterion("weights:l2"),
    "median": Criterion("weights:median"),
    "scale": Criterion("weights:scale"),
    "activation": Criterion("activations:activation", ROWS),
    "nonzero": Criterion("activations:nonzero", ROWS),
    "energy": Criterion("activations:energy", ROWS),
    "taylor": Criterion("gradients:taylor", GRADIENTS),
    "gate": Criterion("gradients:gate", GRADIENTS),
    "fisher": Criterion("gradients:fisher", GRADIENTS),
    "hessian": Criterion("gradients:hessian", GRADIENTS),
    "random": Criterion("weights:random"),
}


def get(name: str) -> Criterion:
    """Return a criterion; raises UsageError for a name that is not known."""
    if name not in CRITERIA:
        raise UsageError(f"unknown importance {name!r}; choose one of: {', '.join(CRITERIA)}")
    return CRITERIA[name]


def importance(
    groups: Groups, name: str = "l2", evidence: Evidence = Evidence(), reading: Reading = Reading()
) -> Scores:
    """Return how much each unit matters, at least 0 and comparable between groups; infinite where nothing is known.

    Raises UsageError for an unknown criterion or missing data, InputError for data that does not fit or numbers that
    are not finite.
    """
    scores = get(name).score(groups, evidence, reading)
    for group, values in scores.items():
        if np.isinf(values).any():
            raise InputError(f"the importance {name!r} of {group} is not a number; look at its weights")
    return {
        group: np.where(np.isnan(values), np.inf, np.maximum(values, 0)) for group, values in scores.items()
    }
