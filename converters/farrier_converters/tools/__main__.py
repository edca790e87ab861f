"""Make a tool's own environment: `python -m farrier_converters.tools NAME...`; without a name, list them."""

from __future__ import annotations

import subprocess
import sys

from farrier_contracts.errors import FarrierError

from . import TOOLS, environment_python, get, home, missing

PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def install(name: str) -> int:
    """Install one tool into its environment; returns the exit code of what failed, or 0."""
    tool = get(name)
    made = subprocess.run([sys.executable, "-m", "venv", str(home() / name)], check=False)
    if made.returncode:
        return made.returncode
    return subprocess.run([str(environment_python(name)), *PIP, *tool.packages], check=False).returncode


def main(names: list[str]) -> int:
    """Install the named tools, or say of each whether it is there."""
    if not names:
        for name in TOOLS:
            sys.stdout.write(f"{name:12} {'absent' if missing(name) else 'installed'}\n")
    try:
        return next((code for code in map(install, names) if code), 0)
    except FarrierError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
