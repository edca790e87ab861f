"""What is asked for: a pattern, a share of zeros, and what competes for the places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from farrier_contracts.errors import InputError, UsageError

from . import allocate, importance, patterns
from .allocate import Masks, Scores
from .layers import Found, Layer
from .patterns import NofM, Pattern

DEFAULT_RATIO = 0.5
AUTO = "auto"


@dataclass(frozen=True)
class Goal:
    """`ratio` is the share of zeros among the weights that become sparse; see `allocate.masks` for `scope`."""

    pattern: Pattern
    ratio: float
    scope: str

    def masks(self, layers: Mapping[str, Layer], scores: Scores, part: float = 1.0) -> Masks:
        """Return the masks [outputs, inputs, kernel] for a part 0..1 of the ratio, by layer."""
        views = {name: layer.view for name, layer in layers.items()}
        return allocate.masks(scores, views, self.pattern, self.ratio * part, self.scope)


def goal(pattern: str, ratio: float | None, scope: str, method: str) -> Goal:
    """Return what options ask for, with their defaults filled in; raises UsageError for what cannot be.

    Without a ratio, a pattern N:M has its own and anything else half.
    """
    if method not in importance.IMPORTANCES:
        raise UsageError(f"unknown importance {method!r}; choose one of: {', '.join(importance.IMPORTANCES)}")
    known = importance.SCOPES[method]
    if scope == AUTO:
        scope = known[0]
    allocate.check_scope(scope)
    if scope not in known:
        raise UsageError(
            f"the importance {method!r} compares weights within {' or '.join(known)}, not by {scope!r}"
        )
    form = patterns.parse(pattern)
    return Goal(form, _ratio(form, ratio), scope)


def suited(found: Found, pattern: Pattern) -> None:
    """Take out the layers that cannot have a pattern; raises InputError where none is left."""
    for name, layer in list(found.layers.items()):
        reason = pattern.obstacle(layer.view)
        if reason is not None:
            found.leave(name, reason)
    if not found.layers:
        why = f": {found.left[0].label!r} stays dense, since {found.left[0].reason}" if found.left else ""
        raise InputError(f"the model has no weights that can become sparse{why}")


def _ratio(pattern: Pattern, ratio: float | None) -> float:
    own = pattern.ratio if isinstance(pattern, NofM) else None
    if ratio is None:
        return DEFAULT_RATIO if own is None else own
    if not 0 <= ratio < 1:
        raise UsageError(f"a sparsity is a share from 0 to below 1 (0 % to below 100 %), not {ratio:g}")
    if own is not None and abs(own - ratio) > 0.005:
        raise UsageError(
            f"the pattern {pattern} has a sparsity of {own:.0%} and no other, not {ratio:.0%}; "
            "leave the ratio out, or choose another pattern"
        )
    return ratio if own is None else own
