"""Compiled artifacts beside ONNX Runtime, in whatever environment has the tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from farrier_contracts.targets import Toolchain
from farrier_converters import compilers, tools
from farrier_converters.measure import Child
from farrier_converters.model import Model

Outputs = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def tool() -> Callable[[str], None]:
    """Skip where a tool is in no Python here."""

    def need(name: str) -> None:
        if tools.missing(name):
            pytest.skip(f"{tools.get(name).title} is not installed: make tools/{name}")

    return need


@pytest.fixture
def compiled_outputs(tmp_path: Path) -> Callable[..., Outputs]:
    """Compile a model and run the artifact once in its engine."""

    def run(model: Model, toolchain: Toolchain, feeds: Mapping[str, np.ndarray]) -> Outputs:
        folder = tmp_path / "artifact"
        folder.mkdir(exist_ok=True)
        made = compilers.get(toolchain.compiler).compile(model, toolchain, folder)
        with Child(made.path, toolchain.engine, options=made.options) as child:
            return child.run(feeds)

    return run


@pytest.fixture(scope="session")
def runtime_outputs(outputs: Callable[..., list[np.ndarray]]) -> Callable[..., Outputs]:
    """Run a model once in ONNX Runtime; outputs by name."""
    return lambda model, feeds: dict(
        zip([spec.name for spec in model.outputs], outputs(model, feeds), strict=True)
    )
