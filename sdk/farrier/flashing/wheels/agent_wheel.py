"""Where the agent's own wheel comes from: the source tree of a clone, a local file, or the package index."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from farrier_contracts import __version__
from farrier_contracts.errors import FarrierError

from . import pip

DISTRIBUTION = "farrier-agent"
_SOURCES = ("farrier_contracts", "farrier_agent", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class AgentRequirement:
    """How pip is asked for the agent. `identity` changes when the agent's code does."""

    text: str
    identity: str
    engines: tuple[str, ...]


def requirement(cache: Path, engines: Sequence[str]) -> AgentRequirement:
    """Return the requirement for the agent that belongs to this installation; builds its wheel in a clone."""
    chosen = tuple(sorted(engines))
    named = f"{DISTRIBUTION}[{','.join(chosen)}]"
    origin = _origin()
    if origin is None or not origin.exists():
        return AgentRequirement(f"{named}=={__version__}", __version__, chosen)
    wheel = origin if origin.suffix == ".whl" else _built(origin, cache)
    identity = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return AgentRequirement(f"{named} @ {wheel.resolve().as_uri()}", identity, chosen)


def _origin() -> Path | None:
    """Return the folder or wheel on this machine that the agent was installed from (PEP 610), or None."""
    try:
        text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        raise FarrierError("farrier-agent is not installed here; run: pip install farrier-agent") from None
    url = urlparse(json.loads(text)["url"]) if text else None
    return Path(unquote(url.path)) if url and url.scheme == "file" else None


def _built(source: Path, cache: Path) -> Path:
    """Return the wheel of a source tree, built once for each state of its files."""
    folder = cache / f"agent-{_digest(source)[:32]}"
    found = sorted(folder.glob("*.whl"))
    if found:
        return found[0]
    with tempfile.TemporaryDirectory(prefix="new-", dir=cache) as scratch:
        new = Path(scratch) / "wheel"
        pip.build(source, new)
        shutil.rmtree(folder, ignore_errors=True)
        new.replace(folder)
    return next(folder.glob("*.whl"))


def _digest(source: Path) -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = source / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(source)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()
