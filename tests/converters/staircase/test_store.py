"""Staircases as files: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier_contracts.errors import InputError
from farrier_converters.pruning.staircase import Curve, Staircase, default, store
from farrier_converters.pruning.staircase.machine import machine

NUMBERS = st.floats(0, 1e9)
MAPS = st.dictionaries(st.integers(1, 10**6), NUMBERS, max_size=5)
CURVES = st.builds(Curve, MAPS, MAPS, MAPS, NUMBERS, NUMBERS)
TEXTS = st.text(max_size=20)
TABLES = st.builds(
    Staircase, TEXTS, TEXTS, TEXTS, st.dictionaries(TEXTS, CURVES, max_size=3),
    version=TEXTS, measured=TEXTS, threads=st.integers(1, 64), run_ns=NUMBERS, weights_ns=MAPS,
)  # fmt: skip


@given(TABLES)
def test_what_is_written_is_read_again(table: Staircase) -> None:
    assert store.from_document(json.loads(json.dumps(store.to_document(table)))) == table


def test_a_file_is_written_and_read(tmp_path: Path) -> None:
    table = default("onnxruntime", "fp32", "x86_64")
    store.write(table, tmp_path / "t.json")
    assert store.read(tmp_path / "t.json") == table
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def changed(**fields: Any) -> Any:
    return {**store.to_document(default("e", "fp32", "x86_64")), **fields}


@pytest.mark.parametrize(
    "document",
    [
        None, [], 3, "text", {},
        changed(format="other"), changed(format_version=2), changed(format_version=None),
        changed(curves=[]), changed(curves={"conv": []}), changed(curves={str(i): {} for i in range(65)}),
        changed(curves={"c" * 501: {}}), changed(engine=7), changed(machine="x" * 501),
        changed(run_ns=-1.0), changed(run_ns=1e13), changed(run_ns=True), changed(run_ns=None),
        changed(run_ns=float("nan")), changed(run_ns=float("inf")), changed(threads="one"),
        changed(weights_ns={"x": 1.0}), changed(weights_ns={"0": 1.0}), changed(weights_ns={"-1": 1.0}),
        changed(weights_ns={"9" * 13: 1.0}), changed(weights_ns={"9" * 5000: 1.0}),
        changed(weights_ns={"\N{SUPERSCRIPT TWO}": 1.0}), changed(weights_ns={str(i): 1.0 for i in range(1, 4099)}),
        changed(curves={"conv": {"outputs": {"1": "wide"}}}), changed(curves={"conv": {"call_ns": [1]}}),
        {k: v for k, v in changed().items() if k != "engine"},
    ],
)  # fmt: skip
def test_what_is_no_staircase_is_refused_in_a_sentence(document: Any) -> None:
    with pytest.raises(InputError, match="no staircase of widths"):
        store.from_document(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(changed())), JSON)
def test_any_field_may_hold_anything(name: str, value: Any) -> None:
    try:
        found = store.from_document(changed(**{name: value}))
    except InputError:
        return
    found.layer_cost("conv", outputs=5, inputs=5, positions=5, kernel=9, groups=1)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(InputError):
        store.read(path)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(b" " * 1001)
    with pytest.raises(InputError, match="larger than"):
        store.read(path, settings=store.StoreSettings(max_bytes=1000))
    with pytest.raises(InputError, match=r"no staircase at .*farrier bench --staircase"):
        store.read(tmp_path / "absent.json")


def test_what_was_measured_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tables = [default("onnxruntime", "fp32", arch) for arch in ("first", "second")]
    made = iter(tables)
    assert store.known("onnxruntime", "fp32") is None
    for again, expected in ((False, 0), (False, 0), (True, 1), (False, 1)):
        found = store.obtain("onnxruntime", "fp32", lambda: next(made), again=again)
        assert found == tables[expected]
    assert store.known("onnxruntime", "int8") is None
    assert store.known("onnxruntime", "fp32", threads=2) is None
    store.kept_at("onnxruntime", "fp32").write_text("{}")
    assert store.known("onnxruntime", "fp32") is None


def test_a_cache_that_cannot_be_written_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "farrier").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = default("onnxruntime", "fp32", "x86_64")
    assert store.obtain("onnxruntime", "fp32", lambda: table) == table


def test_a_processor_is_told_by_its_model_and_features() -> None:
    text = (
        "processor : 0\nmodel name : Some CPU @ 2 GHz\ncpu family : 6\nmodel : 85\nflags : fpu avx2 avx512f\n"
    )
    assert machine(text).endswith("Some CPU @ 2 GHz cpu family 6 model 85: avx2 avx512f")
    assert machine("") != machine(text)
    assert "avx512f" not in machine(text.replace("avx512f", ""))
