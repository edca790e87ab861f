"""TFLite's reference kernels on the host, bit by bit: what a file of 8-bit integers answers where they run."""

from __future__ import annotations

from .artifact import Artifact
from .kernels import KERNELS
from .run import Step, compute, run, steps

__all__ = ["KERNELS", "Artifact", "Step", "compute", "run", "steps"]
