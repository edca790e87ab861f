"""`farrier.optimize` takes what a Python program holds: a torch module, or what an importer returned."""

from __future__ import annotations

import json

import pytest

import farrier
from farrier_contracts.errors import InputError
from farrier_converters import importers

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")


def test_a_module_becomes_a_bundle(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    result = farrier.optimize(module, example=torch.randn(1, 8), out=tmp_path / "out", precision="fp32")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (tmp_path / "out" / "model.farrier").is_file()
    assert report["baseline"]["artifact"]
    assert not [warning for warning in report["warnings"] if "differs" in warning]
    assert result.out == tmp_path / "out"


def test_what_an_importer_returned(tmp_path):
    imported = importers.from_torch(torch.nn.Linear(4, 2), torch.randn(1, 4), name="line")
    farrier.optimize(imported, out=tmp_path / "out", precision="fp32")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["model"]["name"] == "line"


def test_anything_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="a torch module or exported program is needed, not int"):
        farrier.optimize(3, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
