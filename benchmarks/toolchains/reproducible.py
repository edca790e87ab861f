"""Whether the same input and the same lock give the same bytes: ten rebuilds over every Python that is here.

    python -m benchmarks.toolchains.reproducible [--shared-data ../shared/data] [--environments FOLDER]

One `farrier optimize` makes a lock; ten `farrier optimize --locked` rebuild from it, in turns on Python 3.10 to 3.13,
each version with the newest libraries that it can have, in a virtual environment made for it (kept in FOLDER for the
next time). Interpreters are looked for on the PATH and among pyenv's. The figure is the number of rebuilt bundles whose
SHA-256 is that of the first.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..figure import emit
from ..quantization.int8_over_fp32 import resnet20

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
REBUILDS = 10
ASSETS = ROOT / "sdk" / "farrier" / "showcase" / "assets"
VERSION_OF = (
    "import platform, numpy, onnx, onnxruntime;"
    "print('Python', platform.python_version(), *(f'{m.__name__} {m.__version__}' for m in (numpy, onnx, onnxruntime)))"
)


def interpreter(version: str) -> str | None:
    """Return a Python of this version that runs; a shim of pyenv's may be there for one that does not."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))):
        if python and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(python)
    return None


def environment(version: str, folder: Path) -> Path | None:
    """Return the interpreter of a virtual environment with Farrier in it, None where this Python is not here."""
    home = folder / version
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        found = interpreter(version)
        if found is None:
            return None
        subprocess.run([found, "-m", "venv", "--clear", home], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-e", ROOT / "device_agent", "-e", ROOT], check=True)
        (home / "ready").touch()
    return python


def optimize(python: Path | str, subject: list[str], *more: str) -> None:
    command = [python, "-m", "farrier", "optimize", *subject, *more, "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def subject_of(data: Path, folder: Path) -> list[str]:
    """ResNet20 on data-free calibration where the shared data is here, else the demo's digits with their data."""
    try:
        return [str(resnet20(data, folder))]
    except FileNotFoundError:
        return [str(ASSETS / "digits.onnx"), "--data", str(ASSETS / "digits-eval.npz")]


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--environments", type=Path, help="folder that the environments are kept in")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = given.environments or folder / "environments"
        kept.mkdir(parents=True, exist_ok=True)
        pythons = {v: p for v in VERSIONS if (p := environment(v, kept)) is not None}
        subject = subject_of(given.shared_data, folder)
        optimize(sys.executable, subject, "-o", str(folder / "first"))
        wanted = digest(folder / "first" / "model.farrier")
        print(f"{wanted}  first")
        equal = 0
        for turn in range(REBUILDS):
            python = list(pythons.values())[turn % len(pythons)]
            words = subprocess.run([python, "-c", VERSION_OF], capture_output=True, text=True, check=True)
            out = folder / f"again-{turn}"
            optimize(python, subject, "--locked", str(folder / "first" / "recipe.lock"), "-o", str(out))
            found = digest(out / "model.farrier")
            equal += found == wanted
            print(f"{found}  {words.stdout.strip()}")
    absent = [v for v in VERSIONS if v not in pythons]
    if absent:
        print(f"left out, not on this machine: Python {', '.join(absent)}")
    emit("reproducible", equal, goal=REBUILDS, unit="rebuilds with the same SHA-256")


if __name__ == "__main__":
    main()
