"""What the report says about graph optimization: each rule that was applied, on what proof, and for what gain."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from farrier_converters import passes
from farrier_converters.fusion import Log
from farrier_converters.model import Model
from farrier_converters.search import Candidate

from .build import PLAIN
from .recipe import options


def of(model: Model, candidate: Candidate) -> dict[str, Any]:
    """Return the rules that a candidate's graph passes applied to the model, in order, and those left out, with why.

    The passes run once more, which takes a fraction of a second.
    """
    log = Log()
    for step in candidate.steps:
        if step.name not in PLAIN:
            break
        model = passes.get(step.name).run(model, options(step), passes.Context(log=log))
    return {
        "applied": [asdict(application) for application in log.applications],
        "left_out": [asdict(refusal) for refusal in log.refusals],
    }
