"""IREE's runtime on the processor: modules compiled ahead of time."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any, Dict, List, Mapping

import numpy as np

from farrier_contracts.bundle import Artifact, Manifest
from farrier_contracts.errors import BundleError, MissingToolError

from . import EngineSettings
from .one_row import Order

FUNCTION = "main"


class Iree:
    """One module."""

    def __init__(self, function: Any, order: Order) -> None:
        self._function: Any = function
        self._order = order

    @classmethod
    def load(cls, path: Path, manifest: Manifest, artifact: Artifact, settings: EngineSettings) -> Iree:
        """Map the module into memory; one thread computes in the caller's own."""
        order = Order.read(artifact, manifest)
        iree = _library()
        try:
            if settings.threads > 1:
                iree.flags.parse_flags(f"--task_topology_group_count={settings.threads}")
            config = iree.Config("local-sync" if settings.threads == 1 else "local-task")
            module = iree.load_vm_module(iree.VmModule.mmap(config.vm_instance, str(path)), config)
            return cls(module[FUNCTION], order)
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise BundleError(f"IREE {cls.version()} cannot load the model: {reason}") from None

    @classmethod
    def version(cls) -> str:
        """Return the library's version."""
        _library()
        return importlib.metadata.version("iree-base-runtime")

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Run the module, for each row where there are several."""
        return self._order.run(self._once, inputs)

    def close(self) -> None:
        """Drop the module."""
        self._function = None

    def _once(self, arrays: List[np.ndarray]) -> List[np.ndarray]:
        results = self._function(*arrays)
        found = results if isinstance(results, (tuple, list)) else (results,)
        return [result.to_host() for result in found]


def _library() -> Any:
    try:
        import iree.runtime  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingToolError(
            "this bundle needs IREE: python -m pip install 'farrier-agent[iree]'"
        ) from None
    return iree.runtime
