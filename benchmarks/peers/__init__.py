"""Quantizers of others, each run in a process of its own on the same calibration rows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import files

FOLDER = Path(__file__).resolve().parent
NNCF_PYTHON = Path(
    os.environ.get("FARRIER_NNCF_PYTHON", FOLDER.parent.parent / ".venv-nncf" / "bin" / "python")
)
LIMIT_S = 1800  # of one quantization


class PeerFailure(Exception):
    """A peer is not installed, or refuses the model: one sentence."""


@dataclass(frozen=True)
class Peer:
    """A quantizer: its script here, the interpreter that has its packages, its setting."""

    name: str
    script: str
    python: Path
    setting: str

    def quantize(self, model: Path, feeds: Sequence[dict[str, np.ndarray]], out: Path) -> None:
        """Write its INT8 form of `model` to `out`; raises PeerFailure."""
        if not self.python.exists():
            raise PeerFailure(f"{self.name} is not installed (make nncf)")
        with tempfile.TemporaryDirectory() as folder:
            calibration = Path(folder) / "calibration.npz"
            files.write(calibration, feeds)
            command = [
                str(self.python),
                str(FOLDER / self.script),
                *map(str, (model, calibration, out)),
                self.setting,
            ]
            environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, env=environment, check=False
            )
        if done.returncode or not out.exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise PeerFailure(f"{self.name} fails: {lines[-1].strip()[:200]}")


PEERS = {
    "ort": Peer("ort", "ort_static.py", Path(sys.executable), "MinMax"),
    "ort-entropy": Peer("ort-entropy", "ort_static.py", Path(sys.executable), "Entropy"),
    "ort-percentile": Peer("ort-percentile", "ort_static.py", Path(sys.executable), "Percentile"),
    "nncf": Peer("nncf", "nncf_ptq.py", NNCF_PYTHON, "default"),
}
