"""What is said of zeros on a target follows from its engine, its processor and the pattern."""

from __future__ import annotations

import pytest

from farrier_contracts import targets
from farrier_converters.sparsity import patterns
from farrier_converters.sparsity.statement import FASTER, PERHAPS, SMALLER, effect, statement


def verdict(name: str, engine: str, pattern: str) -> str:
    target = targets.get(name)
    toolchain = next(t for t in target.toolchains if t.engine == engine)
    return effect(target, toolchain, patterns.parse(pattern)).verdict


@pytest.mark.parametrize(
    ("target", "engine", "pattern", "expected"),
    [
        ("x86-vnni", "onnxruntime", "unstructured", SMALLER),
        ("x86-vnni", "litert", "unstructured", SMALLER),
        ("raspberry-pi-5", "litert", "unstructured", PERHAPS),
        ("raspberry-pi-5", "litert", "2:4", SMALLER),
        ("raspberry-pi-5", "litert", "1:4", PERHAPS),
        ("jetson-orin", "tensorrt", "2:4", PERHAPS),
        ("jetson-orin", "tensorrt", "1:4", PERHAPS),
        ("jetson-orin", "tensorrt", "unstructured", SMALLER),
        ("jetson-orin", "tensorrt", "4:8", SMALLER),
        ("jetson-nano", "tensorrt", "2:4", SMALLER),
    ],
)
def test_the_verdict_hangs_on_engine_processor_and_pattern(target, engine, pattern, expected):
    assert verdict(target, engine, pattern) == expected


@pytest.mark.parametrize("name", [n for n in targets.TARGETS if n != "null"])
def test_every_toolchain_of_every_target_gets_a_line_with_evidence(name):
    target = targets.get(name)
    lines = statement(target, patterns.parse("2:4")).splitlines()
    assert [line.partition(":")[0] for line in lines] == [t.engine for t in target.toolchains]
    for toolchain in target.toolchains:
        found = effect(target, toolchain, patterns.parse("unstructured"))
        assert found.verdict in (FASTER, PERHAPS, SMALLER)
        assert found.evidence
