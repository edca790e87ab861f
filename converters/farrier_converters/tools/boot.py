"""Run by a tool's own Python: `python -I boot.py MODULE FOLDER...` runs a module of Farrier's there.

Farrier is not installed there, and the folder in which it is installed must not be searched for anything else: so its
packages, one folder each, are made known one by one.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path


def announce(folder: Path) -> None:
    """Make the package in this folder importable."""
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no package in {folder}")
    package = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        announce(Path(argument))
    runpy.run_module(sys.argv[1], run_name="__main__")
