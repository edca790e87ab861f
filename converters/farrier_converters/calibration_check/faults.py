"""What the check may find, and what it counts as a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FEW, NOISE, ONE_CLASS = "too few samples", "noise", "one class only"


@dataclass(frozen=True)
class CheckSettings:
    """How much is looked at, and what counts as a fault."""

    rows: int = 128
    batch: int = 16
    fewest: int = 16  # different rows
    noisy: float = 0.2  # neighbours of pictures correlate by more than this
    smoother: float = 0.1  # by so much does the right layout win
    misfit: float = 0.15  # divergence from the stored statistics that is worth a question
    mended: float = 0.6  # of the divergence may remain where a hypothesis is right
    informed: float = 0.2  # so much more do answers tell where a hypothesis is right
    least_information: float = 0.55  # of the most possible, where a hypothesis is right
    surer: float = 3.0  # standard errors, between answers to rows with their channels swapped and not
    closer: float = (
        0.93  # of the divergence may remain where swapped channels are right, if nothing else says so
    )
    unlikely: float = 0.12  # of the divergence, gone with swapped channels, weighs as much as `surer` errors
    one_class: float = 0.65  # share of the rows
    most_kinds: float = 0.35  # the same where that class also comes second in as large a share of the others
    many_kinds: int = 8  # classes, among which that is no chance
    shuffled: float = (
        0.05  # of information: so little do answers to noise change when its values are shuffled
    )
    alike: float = 0.5  # of the answers, where a network does not mind the order of values
    shifted: float = 0.5  # standard deviations between the means of calibration and evaluation rows
    stretched: float = 1.5  # times, between their standard deviations


@dataclass(frozen=True)
class Fault:
    """What is wrong with calibration rows, in one sentence that ends with what to do."""

    kind: str
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)
