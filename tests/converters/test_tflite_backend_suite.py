"""The ONNX backend suite as TFLite files: right or refused with a code, and never wrong."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import onnx
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "onnx-to-tflite-ops.md"


@pytest.fixture(scope="module")
def suite() -> ModuleType:
    pytest.importorskip("ai_edge_litert")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("tflite_backend_suite")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def found(suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    return list(suite.results(suite.cases(folder), folder))


def test_most_float_cases_are_right(found, suite):
    assert len(found) >= 1_000
    assert sum(r.state == "right" for r in found) / len(found) >= suite.GOAL


def test_no_case_is_wrong_and_none_fails_in_the_engine(found):
    assert [r for r in found if r.state not in ("right", "refused")] == []


def test_each_refusal_has_a_code_and_names_the_operator(found):
    for result in found:
        if result.state == "refused":
            assert result.code.startswith("TFL")
            assert result.code != "TFL008"  # what the suite holds is well formed
            assert ": " in result.message


def test_the_page_of_operators_is_up_to_date(found, suite):
    page = PAGE.read_text()
    if f"onnx {onnx.__version__}:" not in page:
        pytest.skip("the page was made with another version of the suite")
    assert page == suite.page(found), f"run: python benchmarks/tflite_backend_suite.py --page {PAGE.name}"
