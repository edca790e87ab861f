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
ROOT = FOLDER.parent.parent


def _python(tool: str) -> Path:
    """Return the interpreter that has a peer's packages: that of `make TOOL`, or of the environment variable."""
    default = ROOT / f".venv-{tool}" / "bin" / "python"
    return Path(os.environ.get(f"FARRIER_{tool.upper()}_PYTHON", default))


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
    make: str = ""  # what installs it

    def quantize(self, model: Path, feeds: Sequence[dict[str, np.ndarray]], out: Path) -> None:
        """Write its INT8 form of `model` to `out`; raises PeerFailure."""
        if not self.python.exists():
            raise PeerFailure(f"{self.name} is not installed (make {self.make})")
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
    "nncf": Peer("nncf", "nncf_ptq.py", _python("nncf"), "default", "nncf"),
    "onnx2tf": Peer("onnx2tf", "onnx2tf_aeq.py", _python("onnx2tf"), "default", "onnx2tf"),
}
