from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier_contracts.bundle import (
    Artifact,
    Batching,
    BatchPoint,
    Cache,
    Compatibility,
    Golden,
    Manifest,
    Part,
    describe,
)
from farrier_contracts.errors import BundleError
from farrier_contracts.tensors import NUMPY_NAMES, TensorSpec

text = st.text(st.characters(codec="utf-8"), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(text, children, max_size=3),
    max_leaves=4,
)
unknowns = st.dictionaries(text.map(lambda name: "x-" + name), json_values, max_size=2)
numbers = st.floats(0, 1e9)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
part_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
tensors = st.builds(
    TensorSpec,
    text.filter(bool),
    st.sampled_from([*NUMPY_NAMES, "BYTES"]),
    st.lists(st.integers(-1, 4096), max_size=4).map(tuple),
)


@st.composite
def manifests(draw: Any) -> Manifest:
    sizes = st.integers(0, 1 << 20)
    parts = draw(
        st.dictionaries(part_names, st.builds(Part, digests, sizes, unknowns), min_size=1, max_size=4)
    )
    part = st.sampled_from(sorted(parts))
    options = st.dictionaries(text, json_values, max_size=2)
    artifacts = st.builds(Artifact, part, text, text, text, text, options, unknowns)
    points = st.builds(BatchPoint, st.integers(1, 64), numbers, unknowns)
    return Manifest(
        name=draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)),
        version=draw(st.from_regex(r"[0-9A-Za-z]([0-9A-Za-z.+-]{0,9}[0-9A-Za-z])?", fullmatch=True)),
        inputs=tuple(draw(st.lists(tensors, max_size=3))),
        outputs=tuple(draw(st.lists(tensors, max_size=3))),
        artifacts=tuple(draw(st.lists(artifacts, min_size=1, max_size=2))),
        parts=parts,
        golden=draw(
            st.none() | st.builds(Golden, part, st.dictionaries(text, numbers, max_size=2), numbers, unknowns)
        ),
        warmup=draw(st.none() | part),
        batching=draw(
            st.builds(Batching, st.integers(1, 64), st.lists(points, max_size=2).map(tuple), unknowns)
        ),
        cache=draw(st.builds(Cache, st.booleans(), unknowns)),
        compatibility=draw(
            st.builds(
                Compatibility,
                st.lists(text, max_size=2).map(tuple),
                st.dictionaries(text, text, max_size=2),
                st.integers(0, 1 << 40),
                st.lists(text, max_size=2).map(tuple),
                unknowns,
            )
        ),
        recipe_lock=draw(st.none() | part),
        licence=draw(text),
        unknown=draw(unknowns),
    )


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@given(manifests())
def test_a_manifest_is_read_back_equal_and_byte_for_byte(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    again = Manifest.from_bytes(data)
    assert again == manifest
    assert again.to_bytes() == data
    assert again.digest == manifest.digest


@given(manifests(), text)
def test_an_unknown_critical_field_is_refused(manifest: Manifest, name: str) -> None:
    document = describe(manifest)
    document["critical"] = [*document["critical"], "x-" + name]
    document["x-" + name] = True
    with pytest.raises(BundleError, match="update Farrier"):
        Manifest.from_bytes(canonical(document))


@given(st.binary(max_size=200) | json_values.map(canonical))
def test_what_is_no_manifest_is_refused_in_one_sentence(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"^elsewhere"):
        Manifest.from_bytes(data, source="elsewhere")


@given(manifests(), st.data())
def test_a_field_of_any_wrong_kind_is_refused_or_kept_as_it_was(
    manifest: Manifest, data: st.DataObject
) -> None:
    """Whatever stands in place of a known field, the answer is BundleError or a manifest with the same bytes."""
    document = describe(manifest)
    document[data.draw(st.sampled_from(sorted(document)))] = data.draw(json_values)
    try:
        read = Manifest.from_bytes(canonical(document))
    except BundleError:
        return
    assert read.to_bytes() == canonical(document)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"farrier":' + b"9" * 10_000 + b"}",
        b'{"farrier":1,"farrier":1}',
        b"\xff\xfe",
        b"{" + b" " * (5 << 20) + b"}",
    ],
    ids=["deep", "long number", "twice", "no utf-8", "large"],
)
def test_hostile_json_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("value", [float("nan"), "\ud800"], ids=["nan", "half a pair"])
def test_values_that_json_cannot_hold_are_refused(manifest: Manifest, value: object) -> None:
    document = describe(manifest) | {"x": value, "parts": {"model.bin": _part(1), "golden.npz": _part(1)}}
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(BundleError, match="canonical"):
        Manifest.from_bytes(data)


def test_another_byte_form_of_the_same_manifest_is_refused(manifest: Manifest) -> None:
    document = describe(manifest) | {"parts": {"model.bin": _part(1), "golden.npz": _part(1)}}
    assert Manifest.from_bytes(canonical(document))
    with pytest.raises(BundleError, match="canonical"):
        Manifest.from_bytes(json.dumps(document, sort_keys=True).encode())


def test_sizes_are_bounded(manifest: Manifest) -> None:
    document = describe(manifest) | {"parts": {"model.bin": _part(1 << 40), "golden.npz": _part(1)}}
    with pytest.raises(BundleError, match="larger than"):
        Manifest.from_bytes(canonical(document))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "", "a\0b", "a\n", "x" * 200]
)
def test_part_names_cannot_leave_the_folder(manifest: Manifest, name: str) -> None:
    parts = {"model.bin": _part(1), "golden.npz": _part(1), name: _part(1)}
    with pytest.raises(BundleError, match="part name"):
        Manifest.from_bytes(canonical(describe(manifest) | {"parts": parts}))


def _part(size: int) -> dict[str, Any]:
    return {"sha256": "0" * 64, "size": size}
