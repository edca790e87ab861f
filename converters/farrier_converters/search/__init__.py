"""Search: candidates from a target's toolchains and precisions, and the rules that pick one."""

from __future__ import annotations

from .budget import Budget, parse_drop, parse_latency, parse_size
from .choose import LATENCY_TOLERANCE, Choice, Figures, Verdict, choose
from .ladder import CUTS, climb, least
from .plan import TRAINED, WAYS, Candidate, Step, plan, suit, suited

__all__ = [
    "CUTS",
    "LATENCY_TOLERANCE",
    "TRAINED",
    "WAYS",
    "Budget",
    "Candidate",
    "Choice",
    "Figures",
    "Step",
    "Verdict",
    "choose",
    "climb",
    "least",
    "parse_drop",
    "parse_latency",
    "parse_size",
    "plan",
    "suit",
    "suited",
]
