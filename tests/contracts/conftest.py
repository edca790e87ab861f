"""A small bundle, whole, to be read, damaged and taken apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from farrier_contracts.bundle import Artifact, Golden, Manifest, build
from farrier_contracts.tensors import TensorSpec

# How fast an example is says how busy the machine is, and nothing about us.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

PARTS = {"model.bin": b"weights" * 5, "golden.npz": b"vectors", "copy.bin": b"vectors", "empty": b""}


@pytest.fixture
def parts() -> dict[str, bytes]:
    return dict(PARTS)


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        name="tiny",
        version="1.0",
        inputs=(TensorSpec("x", "FP32", (-1, 4)),),
        outputs=(TensorSpec("y", "FP32", (-1, 2)),),
        artifacts=(Artifact("model.bin", "null", "null", "fp32", "null"),),
        golden=Golden("golden.npz", {"y": 1e-3}),
    )


@pytest.fixture
def bundle(tmp_path: Path, manifest: Manifest, parts: dict[str, bytes]) -> Path:
    path = tmp_path / "tiny.farrier"
    build(path, manifest, parts)
    return path
