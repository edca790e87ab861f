from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier_contracts import targets
from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.tensors import DATATYPES, NUMPY_NAMES, TensorSpec

specs = st.builds(
    TensorSpec,
    st.text(min_size=1),
    st.sampled_from([*NUMPY_NAMES, "BYTES"]),
    st.lists(st.integers(-1, 1 << 40), max_size=5).map(tuple),
)


@given(specs)
def test_a_tensor_is_read_back_and_accepts_what_it_describes(spec: TensorSpec) -> None:
    assert TensorSpec.from_dict(spec.to_dict()) == spec
    filled = tuple(7 if size == -1 else size for size in spec.shape)
    assert spec.accepts(filled)
    assert not spec.accepts((*filled, 1))
    for axis, size in enumerate(spec.shape):
        other = (*filled[:axis], filled[axis] + 1, *filled[axis + 1 :])
        assert spec.accepts(other) is (size == -1)


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"name": "", "datatype": "FP32", "shape": []},
        {"name": "x", "datatype": "FP8", "shape": []},
        {"name": "x", "datatype": ["FP32"], "shape": []},
        {"name": "x", "datatype": "FP32", "shape": [-2]},
        {"name": "x", "datatype": "FP32", "shape": [True]},
        {"name": "x", "datatype": "FP32", "shape": "12"},
    ],
)
def test_what_is_no_tensor_is_refused(document: Any) -> None:
    with pytest.raises(InputError, match="tensor"):
        TensorSpec.from_dict(document)


def test_datatypes_map_both_ways() -> None:
    assert {DATATYPES[numpy_name]: numpy_name for numpy_name in DATATYPES} == NUMPY_NAMES


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_every_target_is_data_that_can_be_found_by_name(name: str) -> None:
    target = targets.get(name)
    assert target.name == name
    assert target.description
    assert target.toolchains
    assert all(all(toolchain.precisions) for toolchain in target.toolchains)
    stated = {name for name in ("memory_bytes", "cpu_features", "accelerators") if getattr(target, name)}
    for toolchain in target.toolchains:
        stated.update(toolchain.parameters)
        stated.update(["arithmetic"] if toolchain.arithmetic else [])
    assert not stated - set(target.sources), "each limit says where it comes from"
    assert not set(target.unconfirmed) - stated
    assert target.name == "null" or all(toolchain.proven for toolchain in target.toolchains)
    assert eval(repr(asdict(target)), {}) == asdict(target)  # plain values only


def test_an_unknown_target_is_one_sentence_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown target 'toaster'; choose one of: host, .*x86-avx2"):
        targets.get("toaster")


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", "sse avx2", "x86-avx2"),
        ("x86_64", "avx2 avx512_vnni", "x86-vnni"),
        ("AMD64", "avx2 avx_vnni", "x86-vnni"),
        ("aarch64", "", "arm64"),
        ("arm64", "", "arm64"),
    ],
)
def test_the_host_is_told_from_its_processor(machine: str, flags: str, name: str) -> None:
    assert targets.host(machine, f"processor : 0\nflags : {flags}\n").name == name
