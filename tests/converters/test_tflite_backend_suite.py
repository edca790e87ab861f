"""The ONNX backend suite as TFLite files: right or refused with a code, and never wrong."""

from __future__ import annotations

import dataclasses
import importlib
from collections import Counter
from pathlib import Path
from types import ModuleType

import onnx
import pytest

from farrier_converters.model import from_proto

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "onnx-to-tflite-ops.md"


@pytest.fixture(scope="module")
def suite() -> ModuleType:
    pytest.importorskip("ai_edge_litert")
    return importlib.import_module("benchmarks.tflite.backend_suite")


@pytest.fixture(scope="module")
def cases(suite, tmp_path_factory):
    return list(suite.cases(tmp_path_factory.mktemp("cases")))


@pytest.fixture(scope="module")
def found(suite, cases, tmp_path_factory):
    return list(suite.results(cases, tmp_path_factory.mktemp("suite")))


def freed(cases, each: int):
    """Yield the first cases of each operator with a batch left free, where their floats begin with equal sizes."""
    counts: Counter[str] = Counter()
    for case in cases:
        proto = onnx.ModelProto()
        proto.CopyFrom(case.model.proto)
        first = [v.type.tensor_type for v in proto.graph.input if v.type.tensor_type.elem_type == 1]
        rows = [kind.shape.dim[0] for kind in first if kind.shape.dim]
        if "_expanded" in case.name or not rows or len({dim.dim_value for dim in rows}) > 1:
            continue
        counts[case.op] += 1
        if rows[0].dim_value < 2 or counts[case.op] > each:
            continue
        for dim in rows:
            dim.Clear()
            dim.dim_param = "rows"
        for value in proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        yield dataclasses.replace(case, model=from_proto(proto, case.name))


def test_a_free_batch_is_right_or_not_left_free(suite, cases, tmp_path):
    """Files are made for one row and run with as many as the case has, unless they say that they take only one."""
    found = [r for r in suite.results(freed(cases, 2), tmp_path) if r.free]
    assert [r for r in found if r.state != "right"] == []
    assert len(found) > 60


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
    assert page == suite.page(found), f"run: python -m benchmarks.tflite.backend_suite --page {PAGE.name}"
