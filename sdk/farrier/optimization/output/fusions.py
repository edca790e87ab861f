"""What the report says about graph optimization: each rule that was applied, on what proof, and for what gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from farrier_converters.search import Candidate

from ..build import logs


def of(candidate: Candidate, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules that a built candidate's graph passes applied, in order, and those left out, with why."""
    found = list(logs(candidate, statistics))
    return {
        "applied": [asdict(application) for log in found for application in log.applications],
        "left_out": [asdict(refusal) for log in found for refusal in log.refusals],
    }
