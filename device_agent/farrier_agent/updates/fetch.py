"""Bring one published bundle into the store: the signed manifest, then only the parts that are missing."""

from __future__ import annotations

import fcntl
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterator
from urllib.parse import urlsplit

from farrier_contracts.bundle import Manifest, Part, names
from farrier_contracts.bundle.manifest import MANIFEST_MAX_BYTES
from farrier_contracts.bundle.store import commit, missing, part_path
from farrier_contracts.errors import InputError, TrustError
from farrier_contracts.files import undone_when_full, write_atomically

from . import fit
from .settings import Settings, TryAgain

if TYPE_CHECKING:
    from .client import Client


@dataclass(frozen=True)
class Fetched:
    """The bundle now in the store, and how much of it had to come: bytes of parts, and their number."""

    digest: str
    name: str
    version: str
    bytes_fetched: int
    parts_fetched: int


def fetch(
    *,
    repository: str,
    root: Path,
    trust: Path,
    store: Path,
    bundle: str,
    version: str,
    settings: Settings = Settings(),
) -> Fetched:
    """Fetch a published bundle, or what is missing of it, and return what came.

    `repository` is the URL or the public folder of a repository, `root` its first root metadata, `trust` a
    folder of this device's own that remembers the newest metadata seen. Raises TrustError, BundleError or
    InputError where asking again cannot help, TryAgain where it may. Whole parts survive an interruption.
    """
    from .client import Client

    base = base_url(repository)
    path = f"bundles/{names.bundle(bundle)}/{names.version(version)}.json"
    with _alone(trust):
        client = Client(base, root=root, trust=trust, settings=settings)
        manifest = _manifest(client, path)
        if (manifest.name, manifest.version) != (bundle, version):
            raise TrustError(f"{path} holds {manifest.name} {manifest.version}: publish the bundle again")
        fit.check(manifest)
        absent = missing(manifest, store)
        _check_space(store, absent, settings)
        written = tuple(part_path(store, part.sha256) for part in absent.values())
        with undone_when_full(store, written):
            for part in absent.values():
                _bring(client, part, store)
            stored = commit(manifest, store)
    size = sum(part.size for part in absent.values())
    return Fetched(stored.digest, bundle, version, size, len(absent))


def base_url(repository: str) -> str:
    """Return the URL of a repository given as a URL or as a folder; raises InputError."""
    scheme = urlsplit(repository).scheme
    if scheme in ("http", "https", "file"):
        return repository
    if scheme and "://" in repository:
        raise InputError(
            f"a repository is an http, https or file address or a folder, not {repository!r:.200}"
        )
    return Path(repository).absolute().as_uri()


def _manifest(client: Client, path: str) -> Manifest:
    target = client.describe(path)
    if target.length > MANIFEST_MAX_BYTES:
        raise TrustError(f"{path} is larger than {MANIFEST_MAX_BYTES} bytes, which no manifest is")
    return Manifest.from_bytes(b"".join(client.chunks(target)), source=path)


def _bring(client: Client, part: Part, store: Path) -> None:
    target = client.describe(f"parts/{part.sha256}")
    if (target.length, target.hashes["sha256"]) != (part.size, part.sha256):
        raise TrustError(f"{target.path} is not signed as the part that it is: publish the bundle again")
    write_atomically(part_path(store, part.sha256), client.chunks(target))


def _check_space(store: Path, absent: Dict[str, Part], settings: Settings) -> None:
    store.mkdir(parents=True, exist_ok=True)
    needed = sum(part.size for part in absent.values()) + settings.free_bytes_kept
    free = shutil.disk_usage(store).free
    if absent and needed > free:
        raise TryAgain(
            f"{store} has {free >> 20} MiB free, the bundle needs {needed >> 20} MiB: free some space"
        )


@contextmanager
def _alone(trust: Path) -> Iterator[None]:
    """Wait for other fetches that share the trust folder: tuf asks for one at a time."""
    trust.mkdir(parents=True, exist_ok=True)
    with (trust / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
