"""Geometric programs over factors per channel: the logarithms at which a sum of products of powers is least.

Source: Boyd, Kim, Vandenberghe, Hassibi 2007, "A tutorial on geometric programming": such a sum is convex in the
logarithms. Maxima are smoothed by a norm. Numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

POWER = 12  # of the norm that stands for a maximum
LARGEST = 4.5  # logarithm of a factor; its POWER fits into float32
STEPS, RATE = 100, 0.1  # of Adam (Kingma, Ba 2015), its rate falling to zero
MEMORY = (0.9, 0.98)
STILL = 1e-7  # slopes below it move nothing
TINY = 1e-30

Logs = Sequence[np.ndarray]
Slopes = list[tuple[int, np.ndarray]]


@dataclass(frozen=True)
class Sum:
    """(sum over channels of values * exp(sum over groups of exponent * logarithm))^power; a group may be none."""

    values: np.ndarray
    exponents: tuple[tuple[int | None, float], ...]
    power: float = 1.0

    def at(self, logs: Logs) -> tuple[float, Slopes]:
        """Return the logarithm of the value, and its slopes by group."""
        known = [(group, exponent) for group, exponent in self.exponents if group is not None]
        shares = self.values * np.exp(sum((k * logs[g] for g, k in known), np.zeros(())))
        total = float(shares.sum()) + TINY
        return self.power * float(np.log(total)), [(g, self.power * k * shares / total) for g, k in known]


@dataclass(frozen=True)
class Largest:
    """(the largest of values [results, reads] * exp(logarithm read - logarithm made))^2, smoothed.

    `powers` are those of the values, float32, none above one.
    """

    powers: np.ndarray
    source: int | None
    result: int | None

    def at(self, logs: Logs) -> tuple[float, Slopes]:
        """Return the logarithm of the value, and its slopes by group."""
        rows, columns = self.powers.shape
        right = np.ones(columns) if self.source is None else np.exp(POWER * logs[self.source])
        left = np.ones(rows) if self.result is None else np.exp(-POWER * logs[self.result])
        made = left * (self.powers @ right.astype(np.float32))
        total = float(made.sum()) + TINY
        slopes: Slopes = []
        if self.result is not None:
            slopes.append((self.result, -2 * made / total))
        if self.source is not None:
            slopes.append((self.source, 2 * right * (left.astype(np.float32) @ self.powers) / total))
        return 2 / POWER * float(np.log(total)), slopes


@dataclass(frozen=True)
class Term:
    """`scale` times the product of the factors."""

    scale: float
    factors: tuple[Sum | Largest, ...]

    def at(self, logs: Logs) -> tuple[float, Slopes]:
        """Return the logarithm of the value, and its slopes by group."""
        found = [factor.at(logs) for factor in self.factors]
        value = float(np.log(self.scale + TINY)) + sum(value for value, _ in found)
        return value, [slope for _, slopes in found for slope in slopes]


def peak(values: np.ndarray, *exponents: tuple[int | None, float]) -> tuple[float, Sum]:
    """Return (scale, factor): the square of the largest of values * exp(exponents), smoothed."""
    top = max(float(values.max(initial=0)), TINY)
    return top**2, Sum((values / top) ** POWER, tuple((g, POWER * k) for g, k in exponents), 2 / POWER)


def largest(values: np.ndarray, source: int | None, result: int | None) -> tuple[float, Largest]:
    """Return (scale, factor): the square of the largest of values [results, reads] in their factors."""
    top = max(float(values.max(initial=0)), TINY)
    return top**2, Largest(((values / top) ** POWER).astype(np.float32), source, result)


def least(
    terms: Sequence[Term],
    channels: Sequence[int],
    bounds: Mapping[int, tuple[np.ndarray, np.ndarray]] = MappingProxyType({}),
) -> list[np.ndarray]:
    """Return the logarithms [channels] of each group at which the sum of the terms is least.

    `bounds` holds the lowest and the highest [channels] of some groups; those of other groups have a mean of zero.
    """
    logs = [np.zeros(count) for count in channels]
    first, second = ([np.zeros(count) for count in channels] for _ in range(2))
    for step in range(STEPS if terms else 0):
        slopes = _slopes(terms, logs)
        rate = RATE * (1 - step / STEPS)
        for group, slope in enumerate(slopes):
            first[group] += (1 - MEMORY[0]) * (slope - first[group])
            second[group] += (1 - MEMORY[1]) * (np.square(slope) - second[group])
            mean = first[group] / (1 - MEMORY[0] ** (step + 1))
            spread = np.sqrt(second[group] / (1 - MEMORY[1] ** (step + 1)))
            moved = logs[group] - rate * mean / (spread + STILL)
            free = moved if group in bounds else moved - moved.mean()
            logs[group] = np.clip(free, *bounds.get(group, (-LARGEST, LARGEST)))
    return logs


def _slopes(terms: Sequence[Term], logs: Logs) -> list[np.ndarray]:
    """Return the slopes of the logarithm of the sum."""
    found = [term.at(logs) for term in terms]
    values = np.array([value for value, _ in found])
    shares = np.exp(values - values.max())
    shares /= shares.sum()
    slopes = [np.zeros_like(log) for log in logs]
    for share, (_, own) in zip(shares, found, strict=True):
        for group, slope in own:
            slopes[group] += share * slope
    return slopes
