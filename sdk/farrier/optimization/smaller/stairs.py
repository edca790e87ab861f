"""What widths cost on the target, for passes that choose widths: measured where the target's engine is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farrier_contracts.targets import Target
from farrier_converters.pruning.staircase import Staircase, store
from farrier_converters.search import Candidate

from ...staircases import staircase_for
from ..trial import Progress

CHOOSES = "prune"  # the pass that looks at it
INTEGERS = ("int8", "qat", "w4a")  # begin the precisions whose layers compute in integers


@dataclass
class Stairs:
    """The staircases of a job, by engine and precision; each is found once.

    They are those that a device of the target was measured for; else, with `measured`, those of this machine, a minute
    or two for the first time ever, where it has the target's engine and architecture; else steps as wide as such
    engines are known to have. `fixed` takes the place of all: that of a lock.
    """

    target: Target
    measured: bool = True
    fixed: Staircase | None = None
    known: dict[tuple[str, str], Staircase] = field(default_factory=dict)

    def of(self, candidate: Candidate, progress: Progress) -> Staircase | None:
        """Return the staircase for a candidate's engine and precision; None where nothing in it chooses widths."""
        if not any(step.name == CHOOSES for step in candidate.steps):
            return None
        if self.fixed is not None:
            return self.fixed
        precision = "int8" if candidate.precision.startswith(INTEGERS) else "fp32"
        key = candidate.toolchain.engine, precision
        if key not in self.known:
            engine = candidate.toolchain.engine
            self.known[key] = staircase_for(
                self.target,
                candidate.toolchain,
                precision,
                measured=self.measured,
                progress=lambda stage, _share: progress(f"widths of {engine}: {stage}", 0.0),
            )
        return self.known[key]


def document(found: Staircase | None) -> Mapping[str, Any] | None:
    """Return the form of the lock."""
    return None if found is None else store.to_document(found)


def of_document(found: Mapping[str, Any] | None) -> Staircase | None:
    """Return the staircase of a lock; raises InputError."""
    return None if found is None else store.from_document(found)
