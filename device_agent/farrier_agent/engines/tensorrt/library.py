"""Find TensorRT's Python bindings and its command line builder, wherever JetPack or pip put them."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Tuple

from farrier_contracts.errors import MissingToolError

from .. import system_packages

TRTEXEC_FOLDERS = ("/usr/src/tensorrt/bin", "/usr/local/tensorrt/bin", "/opt/tensorrt/bin")


@dataclass(frozen=True)
class Library:
    """The bindings that run engines. `kind` is the module's name."""

    module: ModuleType
    kind: str

    @property
    def version(self) -> str:
        """The release."""
        return str(self.module.__version__)

    @property
    def builds(self) -> bool:
        """Whether the module can build engines itself."""
        return all(hasattr(self.module, name) for name in ("Builder", "OnnxParser"))


def find() -> Library:
    """Import the bindings; raises MissingToolError where there are none for this Python."""
    for kind in system_packages.TENSORRT:
        module = _imported(kind)
        if module is not None:
            return Library(module, kind)
    raise MissingToolError(
        "this bundle needs TensorRT's Python bindings: sudo apt-get install python3-libnvinfer "
        f"(they have to be for Python {sys.version_info[0]}.{sys.version_info[1]})"
    )


def logger(trt: Any, level: Any) -> Any:
    """Return a logger of the library's own, with its plugins registered: the importer makes some operators of them."""
    made = trt.Logger(level)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(made, "")
    return made


def trtexec() -> str:
    """Return the path of TensorRT's own builder; raises MissingToolError."""
    found = shutil.which("trtexec")
    for folder in TRTEXEC_FOLDERS:
        found = found or shutil.which("trtexec", path=folder)
    if found is None:
        raise MissingToolError(
            "these TensorRT bindings cannot build engines and trtexec is not there: "
            "sudo apt-get install libnvinfer-bin"
        )
    return found


def numbers(version: str) -> Tuple[int, ...]:
    """Return a version's leading numbers: 8.5.2.2 -> (8, 5, 2, 2)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(n) for n in match.group().split(".")) if match else ()


def _imported(kind: str) -> ModuleType | None:
    """Import a module, from the system's folders too; those are on the path only meanwhile."""
    folders = [str(folder) for folder in system_packages.folders() if (folder / kind).is_dir()]
    before = list(sys.path)
    try:
        return importlib.import_module(kind)
    except ImportError:
        pass
    sys.path.extend(folders)
    try:
        return importlib.import_module(kind) if folders else None
    except ImportError:  # for another Python
        return None
    finally:
        sys.path[:] = before
