"""Rules that make a graph smaller and compute the same, each proved at the place where it is applied."""

from .record import Application, Gain, Log, Proof, Refusal, Rewrite, Rule
from .rewriting import rewrite, would_apply
from .rules import FUSING, NEWER, TIDYING

__all__ = [
    "FUSING",
    "NEWER",
    "TIDYING",
    "Application",
    "Gain",
    "Log",
    "Proof",
    "Refusal",
    "Rewrite",
    "Rule",
    "rewrite",
    "would_apply",
]
