"""The signed metadata of a repository: read, made anew, signed and written in the order that clients rely on."""

# tuf and securesystemslib document these modules as their API, but do not mark what they re-export:
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import InputError
from farrier_contracts.files import write_atomically

from .layout import ROLES, Lifetimes, Repository

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp


@dataclass(frozen=True)
class State:
    """One consistent state of a repository's metadata."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]


def new_keys(folder: Path) -> dict[str, CryptoSigner]:
    """Make one ed25519 key per role, each in a file that only its owner can read."""
    from securesystemslib.signer import CryptoSigner

    folder.mkdir(parents=True, mode=0o700)
    signers = {}
    for role in ROLES:
        signers[role] = CryptoSigner.generate_ed25519()
        descriptor = os.open(folder / f"{role}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(signers[role].private_bytes)
    return signers


def signer(repository: Repository, role: str) -> CryptoSigner:
    """Return the signer of one role; raises InputError where its key is absent or damaged."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    path = repository.keys / f"{role}.pem"
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise InputError(f"the key {path} is missing: bring it back to sign as {role!r}") from None
    except (ValueError, TypeError):
        raise InputError(f"the key {path} is damaged or encrypted") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"the key {path} is not an ed25519 key")
    return CryptoSigner(key)


def has_key(repository: Repository, role: str) -> bool:
    """Say whether the key of a role lies in the repository."""
    return (repository.keys / f"{role}.pem").exists()


def first_state(signers: dict[str, CryptoSigner], lifetimes: Lifetimes, now: datetime) -> State:
    """Return version 1 of every role, signed, with no targets."""
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

    root = Root(expires=_expiry(lifetimes, "root", now), consistent_snapshot=True)
    for role in ROLES:
        root.add_key(signers[role].public_key, role)
    state = State(
        Metadata(root),
        Metadata(Targets(expires=_expiry(lifetimes, "targets", now))),
        Metadata(Snapshot(expires=_expiry(lifetimes, "snapshot", now))),
        Metadata(Timestamp(expires=_expiry(lifetimes, "timestamp", now))),
    )
    state.root.sign(signers["root"])
    state.targets.sign(signers["targets"])
    state.snapshot.signed.meta["targets.json"] = _described(state.targets)
    state.snapshot.sign(signers["snapshot"])
    state.timestamp.signed.snapshot_meta = _described(state.snapshot)
    state.timestamp.sign(signers["timestamp"])
    return state


def read_state(repository: Repository) -> State:
    """Return the state that clients see now; raises InputError naming a file that is absent or damaged.

    It is found from timestamp.json downwards: what an interrupted publisher wrote beyond that does not count.
    """
    timestamp = _read(repository.metadata / "timestamp.json")
    snapshot = _read(repository.metadata / f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
    targets = _read(repository.metadata / f"{snapshot.signed.meta['targets.json'].version}.targets.json")
    newest_root = max(repository.metadata.glob("*.root.json"), key=_version, default=repository.root)
    return State(_read(newest_root), targets, snapshot, timestamp)


def with_targets(state: State, added: dict[str, TargetFile], repository: Repository, now: datetime) -> State:
    """Return the next state: the targets added, everything from targets up signed anew."""
    state.targets.signed.targets.update(added)
    return renewed(state, ("targets", "snapshot", "timestamp"), repository, now)


def renewed(state: State, roles: tuple[str, ...], repository: Repository, now: datetime) -> State:
    """Return the state with these roles one version on, their lifetimes begun anew, signed again."""
    lifetimes = repository.lifetimes()
    for role in (role for role in ROLES if role in roles):  # ROLES' order: each describes the one before
        metadata: Metadata[Any] = getattr(state, role)
        metadata.signed.version += 1
        metadata.signed.expires = _expiry(lifetimes, role, now)
        if role == "snapshot":
            state.snapshot.signed.meta["targets.json"] = _described(state.targets)
        if role == "timestamp":
            state.timestamp.signed.snapshot_meta = _described(state.snapshot)
        metadata.sign(signer(repository, role))
    return replace(state)


def write_state(metadata: Path, state: State) -> None:
    """Write the state; timestamp.json last, for it is what makes the rest visible."""
    for role in ROLES[:-1]:
        signed: Metadata[Any] = getattr(state, role)
        write_atomically(metadata / f"{signed.signed.version}.{role}.json", [signed.to_bytes()])
    write_atomically(metadata / "timestamp.json", [state.timestamp.to_bytes()])


def _read(path: Path) -> Metadata[Any]:
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata

    try:
        return Metadata.from_bytes(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: bring the repository back from a copy") from None
    except RepositoryError:
        raise InputError(f"{path} is damaged: bring the repository back from a copy") from None


def _described(metadata: Metadata[Any]) -> MetaFile:
    from tuf.api.metadata import MetaFile

    return MetaFile.from_data(metadata.signed.version, metadata.to_bytes(), ["sha256"])


def _expiry(lifetimes: Lifetimes, role: str, now: datetime) -> datetime:
    return (now + timedelta(days=lifetimes.days(role))).replace(microsecond=0)


def _version(path: Path) -> int:
    number = path.name.partition(".")[0]
    return int(number) if number.isdigit() else 0
