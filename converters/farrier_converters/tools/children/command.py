"""A tool's own command line, with the reason in its words where it fails."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def run(command: Sequence[str]) -> str:
    """Return what a command says on stdout; raises RuntimeError with its first line of error, or its last line."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise RuntimeError((errors or lines[-1:] or [f"it ended with code {done.returncode}"])[0])
    return done.stdout
