"""Reading .npz files from strangers: no pickle, sizes bounded, large arrays mapped instead of loaded."""

from __future__ import annotations

import io
import mmap
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from farrier_contracts.errors import InputError

CHUNK_BYTES = 1 << 20
# Every entry carries the same date, so that equal arrays give equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class NpzSettings:
    """Limits on what is read."""

    max_arrays: int = 256
    max_array_bytes: int = 64 << 30  # once unpacked
    map_above_bytes: int = 1 << 20  # larger arrays are unpacked to a temporary file and mapped


def read(path: Path, settings: NpzSettings = NpzSettings()) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file by name; large ones are read-only maps of an unlinked temporary file.

    Raises InputError where the file is missing, damaged, too large or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if not members:
                raise InputError(f"{path} holds no arrays; save it with numpy.savez")
            if len(members) > settings.max_arrays:
                raise InputError(
                    f"{path} holds {len(members)} arrays, at most {settings.max_arrays} are read"
                )
            return {info.filename[:-4]: _read_member(archive, info, path, settings) for info in members}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give an .npz file") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path} is not an .npz file or is damaged ({error}); save it with numpy.savez"
        ) from None


def release(array: np.ndarray) -> None:
    """Let go of the pages of a mapped array that have been read: memory then does not grow with the file."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def to_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Return an .npz file's bytes, equal for equal arrays: sorted names, fixed dates, not compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=_DATE), member.getvalue())
    return buffer.getvalue()


def _read_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, settings: NpzSettings
) -> np.ndarray:
    name = info.filename[:-4]
    if info.file_size > settings.max_array_bytes:
        raise InputError(
            f"array {name!r} of {path} takes {info.file_size} bytes, more than the"
            f" {settings.max_array_bytes} that are read"
        )
    try:
        with archive.open(info) as member:
            if info.file_size <= settings.map_above_bytes:
                return np.lib.format.read_array(io.BytesIO(member.read()), allow_pickle=False)
            return _map(member, info.file_size)
    except (ValueError, MemoryError) as error:
        raise InputError(
            f"array {name!r} of {path} cannot be read: {_reason(error)}; save plain numeric arrays"
        ) from None


def _map(member: IO[bytes], size: int) -> np.ndarray:
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        left = size
        while left > 0 and (chunk := member.read(min(CHUNK_BYTES, left))):
            file.write(chunk)
            left -= len(chunk)
        file.flush()
        return np.load(file.name, mmap_mode="r", allow_pickle=False)


def _reason(error: Exception) -> str:
    text = str(error) or "it is too large"
    return "it holds Python objects" if "allow_pickle" in text else text.splitlines()[0].rstrip(".")
