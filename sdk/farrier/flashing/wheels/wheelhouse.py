"""The wheels that a device needs, resolved for *its* platform on this machine and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.parser import HeaderParser
from pathlib import Path

from farrier_contracts.errors import FarrierError

from ..plan import Platform
from . import agent_wheel, pip, tags

ROUNDS_MAX = 4  # a round fetches what the one before showed to be missing on the device
_MANIFEST = "wheelhouse.json"
_METADATA_MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Wheelhouse:
    """A folder of wheels, each pinned by its digest. `digest` names the whole."""

    folder: Path
    wheels: tuple[tags.Wheel, ...]

    @property
    def requirements(self) -> str:
        """Return pip's requirements file: every wheel by name, version and hash."""
        return "".join(
            f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in self.wheels if w.name != "pip"
        )

    @property
    def digest(self) -> str:
        """Return the sha256 of the requirements file, in hexadecimal."""
        return hashlib.sha256(self.requirements.encode()).hexdigest()

    @property
    def files(self) -> list[Path]:
        """Return the wheels' paths."""
        return [self.folder / wheel.file for wheel in self.wheels]

    @property
    def installed_bytes(self) -> int:
        """Return about how much the installation takes on a device while the wheels still lie beside it.

        Compiled Python files add about a quarter to what a wheel holds.
        """
        return sum(wheel.bytes + wheel.unpacked_bytes * 5 // 4 for wheel in self.wheels)


def default_cache() -> Path:
    """Return the folder that wheels are kept in: FARRIER_CACHE, or `farrier` in the user's cache folder."""
    chosen = os.environ.get("FARRIER_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farrier"


def resolve(platform: Platform, engines: Sequence[str], *, cache: Path | None = None) -> Wheelhouse:
    """Return the agent's wheels and its engines' for a platform, from the cache where they lie there.

    Raises FarrierError where a package has no wheel for the platform, or the package index cannot be reached.
    """
    root = (cache or default_cache()) / "wheels"
    root.mkdir(parents=True, exist_ok=True)
    agent = agent_wheel.requirement(root, engines)
    key = hashlib.sha256(json.dumps([str(platform), agent.identity, sorted(engines)]).encode()).hexdigest()
    folder = root / key[:32]
    house = load(folder)
    if house:
        return house
    with _building(root) as new:
        _download(agent, platform, new)
        wheels = _prune(new, _roots(engines), platform)
        (new / _MANIFEST).write_text(json.dumps([asdict(wheel) for wheel in wheels], indent=1))
        shutil.rmtree(folder, ignore_errors=True)  # absent, or damaged
        new.replace(folder)
    return Wheelhouse(folder, tuple(wheels))


def load(folder: Path) -> Wheelhouse | None:
    """Return the wheelhouse in a folder, or None where there is none or a file in it was changed."""
    try:
        items = json.loads((folder / _MANIFEST).read_text())
        wheels = tuple(tags.Wheel(**{**item, "requires": tuple(item["requires"])}) for item in items)
        for wheel in wheels:
            if _sha256(folder / wheel.file) != wheel.sha256:
                return None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Wheelhouse(folder, wheels)


def _roots(engines: Sequence[str]) -> list[str]:
    return [f"farrier-agent[{','.join(sorted(engines))}]", "pip"]


def _download(agent: agent_wheel.AgentRequirement, platform: Platform, folder: Path) -> None:
    """Run pip until the device's own dependencies are complete, all together so that one version fits all."""
    extra: list[str] = []
    for _ in range(ROUNDS_MAX):
        shutil.rmtree(folder)
        folder.mkdir()
        pip.download([agent.text, "pip", *extra], platform, folder)
        _, missing = tags.needed(read(folder), _roots(agent.engines), platform)
        if not missing:
            return
        extra += missing
    raise FarrierError(f"no set of wheels is complete for {platform}; still missing: {', '.join(extra[-3:])}")


def _prune(folder: Path, roots: Sequence[str], platform: Platform) -> list[tags.Wheel]:
    wheels, _ = tags.needed(read(folder), roots, platform)
    kept = {wheel.file for wheel in wheels}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()
    return wheels


def read(folder: Path) -> list[tags.Wheel]:
    """Return what each wheel in a folder says of itself."""
    return [_read_wheel(path) for path in sorted(folder.glob("*.whl"))]


def _read_wheel(path: Path) -> tags.Wheel:
    with zipfile.ZipFile(path) as archive:
        inside = archive.infolist()
        entry = next(i for i in inside if re.fullmatch(r"[^/]+\.dist-info/METADATA", i.filename))
        with archive.open(entry) as file:
            metadata = HeaderParser().parsestr(file.read(_METADATA_MAX_BYTES).decode("utf-8", "replace"))
    return tags.Wheel(
        name=metadata["Name"],
        version=metadata["Version"],
        file=path.name,
        requires=tuple(metadata.get_all("Requires-Dist") or ()),
        sha256=_sha256(path),
        bytes=path.stat().st_size,
        unpacked_bytes=sum(entry.file_size for entry in inside),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _building(root: Path) -> Iterator[Path]:
    """Yield a new folder beside the finished ones; what is not moved away is removed."""
    with tempfile.TemporaryDirectory(prefix="new-", dir=root) as scratch:
        folder = Path(scratch) / "wheels"
        folder.mkdir()
        yield folder
