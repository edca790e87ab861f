"""IREE's runtime on the processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import iree.runtime as iree  # pyright: ignore[reportMissingImports]
import numpy as np

from farrier_contracts.tensors import TensorSpec

from .rows import Arrays, arrays_in_order, by_rows

FUNCTION = "main"


class IreeSession:
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
        options = options or {}
        self._inputs: Sequence[str] = options["inputs"]
        self._outputs: Sequence[str] = options["outputs"]
        self._rows = frozenset(options["rows"])
        self.inputs = tuple(TensorSpec.from_dict(spec) for spec in options["specs"])

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once, or once for each row."""
        return by_rows(self._once, feeds, self._rows)

    def _once(self, feeds: Arrays) -> dict[str, np.ndarray]:
        results = self._function(*arrays_in_order(feeds, self._inputs))
        found = results if isinstance(results, (tuple, list)) else (results,)
        return {name: np.array(result.to_host()) for name, result in zip(self._outputs, found, strict=True)}
