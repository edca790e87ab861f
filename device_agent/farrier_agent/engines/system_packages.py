"""Python modules of the system's own packages, which a virtual environment does not see: TensorRT's, by JetPack."""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Iterable, Optional, Tuple

# The whole library; one that runs engines alone; one that picks such a one by the engine's version.
TENSORRT = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch")


def folders() -> Tuple[Path, ...]:
    """Return where Debian puts Python modules for this version of Python."""
    running = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return tuple(Path("/usr/lib") / name / "dist-packages" for name in (running, "python3"))


def has(module: str) -> bool:
    """Say whether a module can be imported, or lies where `folders` are; nothing is imported."""
    there = module in TENSORRT and any((folder / module).is_dir() for folder in folders())
    return there or find_spec(module) is not None


def version(distributions: Iterable[str]) -> Optional[str]:
    """Return the version of the first of these packages that is installed, of TensorRT's by the system too."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
        if name in TENSORRT:
            paths = [str(folder) for folder in folders()]
            for found in metadata.distributions(name=name, path=paths):
                return found.version
    return None
