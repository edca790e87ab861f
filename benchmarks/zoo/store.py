"""A folder beside the project's where trained nets, decoded pictures and finished scores are kept by digest."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DEFAULT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "farrier-zoo"


@dataclass(frozen=True)
class Store:
    """Where the shared data lies, and where to keep what takes time to make."""

    data: Path
    cache: Path = DEFAULT

    def shared(self, *parts: str) -> Path:
        """Return a path of the shared data; raises FileNotFoundError."""
        path = self.data.joinpath(*parts)
        if not path.exists():
            raise FileNotFoundError(f"{'/'.join(parts)} is not in {self.data}")
        return path

    def file(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file `name`, made once; a half-made one never gets its name."""
        self.cache.mkdir(parents=True, exist_ok=True)
        path = self.cache / name
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=self.cache) as folder:
                temporary = Path(folder) / name
                make(temporary)
                temporary.replace(path)
        return path

    def arrays(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return arrays, computed once."""
        path = self.file(f"{name}.npz", lambda temporary: np.savez(temporary, **make()))  # type: ignore[arg-type]
        with np.load(path, allow_pickle=False) as found:
            return dict(found)
