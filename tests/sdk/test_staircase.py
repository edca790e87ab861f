"""`farrier bench --staircase`, and its function."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import farrier
from farrier import cli
from farrier_contracts.errors import InputError, UsageError
from farrier_converters.pruning.staircase import default, store


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache that holds a table of this machine, so that nothing is measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = store.kept_at("onnxruntime", "fp32")
    path.parent.mkdir(parents=True)
    store.write(default("onnxruntime", "fp32", "x86_64"), path)
    return path


def test_the_command_lists_widths(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kept.exists()
    assert cli.main(["bench", "--staircase"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["conv", *map(str, range(16, 129, 16))] for line in lines)


def test_the_table_is_written_and_printed(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--staircase", "--json", "-o", str(tmp_path / "t.json")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert store.from_document(printed) == store.read(tmp_path / "t.json") == store.read(kept)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--staircase", "--engine", "nonsense"], ["--staircase", "--precision", "int3"],
        ["--staircase", "--threads", "0"], ["--staircase", "-o", "no/folder/t.json"],
        ["--staircase", "model.onnx"], ["--staircase", "--batch", "1"],
        ["model.onnx", "--engine", "litert"], ["model.onnx", "-o", "t.json"], ["model.onnx", "--again"], [],
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence(
    kept: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert kept.exists()
    assert cli.main(["bench", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1


def test_the_function_raises_what_the_command_says(kept: Path) -> None:
    assert farrier.staircase() == store.read(kept)
    with pytest.raises(UsageError):
        farrier.staircase(threads=0)
    with pytest.raises(InputError):
        farrier.staircase(output="no/folder/t.json")
