"""IREE's runtime on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import iree.runtime as iree  # pyright: ignore[reportMissingImports]
import numpy as np

from .rows import Arrays, RowSession

FUNCTION = "main"


class IreeSession(RowSession):
    """One module; it has no reference arithmetic: its integers never saturate in between."""

    version = f"iree {version('iree-base-runtime')}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        if threads > 1:
            iree.flags.parse_flags(f"--task_topology_group_count={threads}")
        config = iree.Config("local-sync" if threads == 1 else "local-task")
        module = iree.load_vm_module(iree.VmModule.mmap(config.vm_instance, str(path)), config)
        self._function: Any = module[FUNCTION]
        super().__init__(options)

    def once(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """Run on one row."""
        results = self._function(*self._in_order(feeds))
        found = results if isinstance(results, (tuple, list)) else (results,)
        return {name: np.array(result.to_host()) for name, result in zip(self._outputs, found, strict=True)}
