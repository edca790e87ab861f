"""The same recipe in the words of `trtexec`, TensorRT's own command line builder.

Source: NVIDIA/TensorRT samples/trtexec, README and `trtexec --help` of releases 8.2 to 10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from farrier_contracts.engine_build import EngineBuild, Shape
from farrier_contracts.errors import BundleError

from .library import Library, numbers

POOLS_FROM = (8, 4)  # --memPoolSize in place of --workspace
SKIP_FROM = (8, 6)  # --skipInference in place of --buildOnly
STRONG_FROM = (9,)
SPECIAL = ":,'"


def arguments(
    graph: Path, plan: Path, timing: Optional[Path], recipe: EngineBuild, library: Library
) -> list[str]:
    """Return the arguments after the program's name; raises BundleError for what its words cannot say."""
    version = numbers(library.version)
    mebibytes = max(1, recipe.workspace >> 20)
    found = [
        f"--onnx={graph}",
        f"--saveEngine={plan}",
        f"--memPoolSize=workspace:{mebibytes}" if version >= POOLS_FROM else f"--workspace={mebibytes}",
        "--skipInference" if version >= SKIP_FROM else "--buildOnly",
    ]
    if recipe.strongly_typed and version < STRONG_FROM:
        raise BundleError(f"TensorRT {library.version} knows no strongly typed networks: build for it")
    found += ["--stronglyTyped"] if recipe.strongly_typed else [f"--{name}" for name in recipe.precisions]
    if library.kind != "tensorrt":  # it runs engines of other releases too, if they are made for that
        found.append("--versionCompatible")
    if recipe.sparse:
        found.append("--sparsity=enable")
    if recipe.dla_core is not None:
        found.append(f"--useDLACore={recipe.dla_core}")
    if recipe.gpu_fallback:
        found.append("--allowGPUFallback")
    if timing is not None:
        found.append(f"--timingCacheFile={timing}")
    return found + _shapes(recipe)


def _shapes(recipe: EngineBuild) -> list[str]:
    if not recipe.profiles:
        return []
    kinds = (("min", "least"), ("opt", "best"), ("max", "most"))
    return [
        f"--{word}Shapes="
        + ",".join(f"{_name(name)}:{_text(getattr(p, field))}" for name, p in recipe.profiles.items())
        for word, field in kinds
    ]


def _name(name: str) -> str:
    if "'" in name:
        raise BundleError(f"trtexec cannot take an input called {name!r:.80}: rename it")
    return f"'{name}'" if any(sign in name for sign in SPECIAL) else name


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
