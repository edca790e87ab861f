"""What a search says in words: why a budget cannot be met, and what the figures cannot show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from farrier_contracts.errors import FarrierError
from farrier_converters.search import Choice

from .result import REFERENCE, Entry

if TYPE_CHECKING:
    from .job import Job

UNBUILT = "cannot be built: "  # begins the reason of a candidate that a pass or compiler tripped over


def impossible(best: Entry, choice: Choice, job: Job, tried: str = "") -> str:
    """Say what the best there is misses, what came of smaller networks (`tried`), and what to try."""
    budget = job.budget
    reason = next(v.reason for v in choice.verdicts if v.name == best.name)
    latency = best.latency.p50_ms if best.latency else float("nan")
    slow = budget.max_latency_ms is not None and latency > budget.max_latency_ms
    other = "choose a faster target" if slow else "try fewer bits, like --precision w4a8,int4"
    if job.training is None:
        other = f"give rows to train on with --train, so that smaller networks are tried, or {other}"
    return (
        f"the budget cannot be met; the best there is, {best.name}, {reason} (in all: {latency:.3g} ms, "
        f"{best.size_bytes} bytes, a drop of {best.drop:.2%}){f'; {tried}' if tried else ''}: allow more, or {other}"
    )


def nothing(left_out: Iterable[Entry], target: str) -> str:
    """Say why there is nothing that the target could run."""
    reasons = dict.fromkeys(entry.reason.removeprefix(UNBUILT) for entry in left_out)
    return f"nothing could be built for {target}: {'; '.join(reasons) or 'no way leads there'}"


def stand_in(entries: Iterable[Entry], target: str) -> tuple[str, ...]:
    """Say which candidates this machine's own integer kernels could not judge."""
    names = [e.name for e in entries if e.arithmetic == REFERENCE]
    if not names:
        return ()
    return (
        f"{', '.join(names)}: judged in reference arithmetic, because this machine's integer kernels compute "
        f"otherwise than those of {target}; latency is that of this machine's integer kernels",
    )


def busy(spread: float) -> str:
    """Say that latencies cannot be trusted; `spread` is that of the rounds' medians."""
    return f"the machine was busy: latencies spread by {spread:.0%} between rounds; measure again when it is quiet"


def brief(error: Exception) -> str:
    """Return the first line of an error, with its kind where it was not meant for users."""
    text = str(error) if isinstance(error, FarrierError) else f"{type(error).__name__}: {error}"
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]
