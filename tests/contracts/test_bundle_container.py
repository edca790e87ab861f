from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from farrier_contracts.bundle import Manifest, build, describe, read_manifest, unpack, verify
from farrier_contracts.errors import BundleError

READERS = (verify, lambda path: unpack(path, path.parent / "store"))

LOCAL_HEADER_BYTES = 30  # APPNOTE 4.3.7, without the name
NO_BUNDLES = (Path.mkdir, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"PK\3\4" * 50))


def test_every_zip_tool_can_read_a_bundle(bundle: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", *sorted(parts)]
        assert {name: archive.read(name) for name in parts} == parts
        assert archive.read("manifest.json") == verify(bundle).to_bytes()


def test_equal_input_gives_equal_bytes(tmp_path: Path, manifest: Manifest, parts: dict[str, bytes]) -> None:
    build(tmp_path / "a", manifest, parts)
    for name, data in parts.items():
        (tmp_path / name).write_bytes(data)
    build(tmp_path / "b", manifest, {name: tmp_path / name for name in reversed(parts)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_flipped_byte_is_refused_and_names_the_file(bundle: Path, parts: dict[str, bytes]) -> None:
    data = bundle.read_bytes()
    where = _members(bundle, parts)
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1 << position % 8
        bundle.write_bytes(altered)
        with pytest.raises(BundleError) as caught:
            verify(bundle)
        assert str(bundle) in str(caught.value), position
        if position in where:
            assert repr(where[position]) in str(caught.value), position


def test_every_truncation_and_every_addition_is_refused(bundle: Path) -> None:
    data = bundle.read_bytes()
    for length in range(len(data)):
        bundle.write_bytes(data[:length])
        with pytest.raises(BundleError, match=str(bundle)):
            verify(bundle)
    bundle.write_bytes(data + b"\0")
    with pytest.raises(BundleError, match="directory"):
        verify(bundle)


@pytest.mark.parametrize("read", READERS, ids=["verify", "unpack"])
def test_swapped_parts_are_refused(bundle: Path, read, parts: dict[str, bytes]) -> None:
    data = bundle.read_bytes()
    swapped = data.replace(parts["model.bin"], parts["model.bin"][::-1])
    assert swapped != data
    bundle.write_bytes(swapped)
    with pytest.raises(BundleError, match=r"'model\.bin' is damaged"):
        read(bundle)
    assert not list((bundle.parent / "store").rglob("*.json"))


@pytest.mark.parametrize(
    "size", [1 << 40, (1 << 32) - (1 << 21)], ids=["beyond any bundle", "allowed but a lie"]
)
def test_a_huge_size_in_the_manifest_allocates_nothing(tmp_path: Path, manifest: Manifest, size: int) -> None:
    """Read in a process that may not have more than 300 MB of address space."""
    path = tmp_path / "huge.farrier"
    _forge(path, manifest, size)
    script = (
        "import resource, sys; from pathlib import Path; from farrier_contracts.bundle import unpack\n"
        "from farrier_contracts.errors import BundleError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))\n"
        "try: unpack(Path(sys.argv[1]), Path(sys.argv[1]).parent / 'store')\n"
        "except BundleError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout
    assert not list((tmp_path / "store").rglob("*.tmp"))


@pytest.mark.parametrize("make", NO_BUNDLES, ids=["folder", "empty", "zip"])
def test_what_is_no_bundle_is_one_sentence(tmp_path: Path, make) -> None:
    path = tmp_path / "strange"
    with pytest.raises(BundleError, match="does not exist"):
        read_manifest(path)
    make(path)
    with pytest.raises(BundleError, match="strange"):
        verify(path)


def test_a_failed_build_leaves_the_old_file_and_nothing_else(
    bundle: Path, manifest: Manifest, parts: dict[str, bytes]
) -> None:
    before = bundle.read_bytes()
    with pytest.raises(BundleError, match="does not exist"):
        build(bundle, manifest, {**parts, "later.bin": bundle.parent / "absent"})
    with pytest.raises(BundleError, match="not a part"):
        build(bundle, replace(manifest, warmup="absent"), parts)
    with pytest.raises(BundleError, match="part name"):
        build(bundle, manifest, {**parts, "../out": b""})
    assert bundle.read_bytes() == before
    assert list(bundle.parent.iterdir()) == [bundle]


def _members(path: Path, parts: dict[str, bytes]) -> dict[int, str]:
    """Map each position inside a part's bytes to the part's name."""
    where = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            start = info.header_offset + LOCAL_HEADER_BYTES + len(info.filename)
            where |= dict.fromkeys(range(start, start + len(parts.get(info.filename, b""))), info.filename)
    return where


def _forge(path: Path, manifest: Manifest, size: int) -> None:
    """Write a bundle whose manifest and headers claim a part of `size` bytes that is not there."""
    part = {"sha256": "0" * 64, "size": size}
    document = describe(replace(manifest, golden=None)) | {"parts": {"model.bin": part}}
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    def header(name: bytes, crc: int, claimed: int) -> bytes:
        fixed = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0x21, crc, claimed, claimed, len(name), 0)
        return fixed + name

    part_header = header(b"model.bin", 0, size % (1 << 32))
    path.write_bytes(header(b"manifest.json", zlib.crc32(text), len(text)) + text + part_header + b"short")
