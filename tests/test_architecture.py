"""The frame, held: which way imports point, how large things grow, and how little a device must load."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "farrier_contracts": ROOT / "device_agent" / "farrier_contracts",
    "farrier_agent": ROOT / "device_agent" / "farrier_agent",
    "farrier_converters": ROOT / "converters" / "farrier_converters",
    "farrier": ROOT / "sdk" / "farrier",
}
MAY_IMPORT = {
    "farrier_contracts": set(),
    "farrier_agent": {"farrier_contracts"},
    "farrier_converters": {"farrier_contracts"},
    "farrier": {"farrier_contracts", "farrier_converters"},
}
# programs that are sent to a device and run there, where the agent is
SENT = {PACKAGES["farrier"] / "staircases" / "on_device.py": {"farrier_agent"}}
FILE_LINES = 400
FUNCTION_LINES = 60
FOLDER_MODULES = 15
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "ai_edge_litert",
    "tensorflow",
    "click",
    "rich",
    "starlette",
    "amqtt",
}
HOST = {"farrier", "farrier_converters"}


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Top-level names of every import in a file, those inside functions and type-checking blocks included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    ours = set(PACKAGES)
    for path in modules(package):
        wrong = (set(imports(path)) & ours) - MAY_IMPORT[package] - {package} - SENT.get(path, set())
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_contracts_need_the_standard_library_only() -> None:
    for path in modules("farrier_contracts"):
        foreign = set(imports(path)) - sys.stdlib_module_names - {"farrier_contracts"}
        assert not foreign, f"{path.relative_to(ROOT)} imports {', '.join(sorted(foreign))}"


@pytest.mark.parametrize("package", PACKAGES)
def test_files_functions_and_folders_stay_small(package: str) -> None:
    for path in modules(package):
        text = path.read_text()
        where = path.relative_to(ROOT)
        assert len(text.splitlines()) <= FILE_LINES, f"{where} is long: split it by subject"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = [n for n in node.body if not _is_docstring(n)]
                length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert length <= FUNCTION_LINES, f"{where}: {node.name} has {length} lines"
    for folder in {path.parent for path in modules(package)}:
        count = len(list(folder.glob("*.py")))
        assert count <= FOLDER_MODULES, f"{folder.relative_to(ROOT)} holds {count} modules: split it by noun"


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after a statement, in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_the_agent_brings_no_host_code_and_nothing_heavy() -> None:
    assert not loaded_by("import farrier_agent, farrier_agent.cli") & (HEAVY | HOST | {"numpy", "tuf"})


def test_the_supervisor_needs_neither_numpy_nor_an_engine() -> None:
    assert not loaded_by("import farrier_agent.supervisor") & (HEAVY | HOST | {"numpy", "tuf"})


def test_importing_the_sdk_and_the_converters_is_light() -> None:
    names = loaded_by("import farrier, farrier.cli, farrier_converters")
    assert not names & (HEAVY - {"click"} | {"numpy", "farrier_agent"})


def test_one_version() -> None:
    import farrier_contracts

    for manifest in (ROOT / "pyproject.toml", ROOT / "device_agent" / "pyproject.toml"):
        assert farrier_contracts.__version__ not in manifest.read_text(), f"{manifest} holds a second version"
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {farrier_contracts.__version__}" in changelog


@pytest.mark.parametrize(
    "statement",
    ["import farrier_agent.engines.ort", "import farrier_converters.graph.run", "import farrier"],
)
def test_engines_send_nothing_to_their_makers(statement: str, tmp_path: Path) -> None:
    """ONNX Runtime's own usage reports leave a file in the temporary folder as soon as they start."""
    code = f"{statement}; import onnxruntime"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment["TMPDIR"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert not list(tmp_path.iterdir())
