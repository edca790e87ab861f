"""A TUF client (specification 1.0, "Detailed client workflow") whose every refusal is one sentence."""

# tuf documents these modules as its API, but does not mark what they re-export:
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater, UpdaterConfig

from farrier_contracts.errors import FarrierError, InputError, TrustError

from .settings import Settings, TryAgain
from .transport import Transport

# The first that fits says what happened; {file} is what was being read.
_REFUSALS = (
    (
        exceptions.ExpiredMetadataError,
        "{file}: {error}: refresh the repository ('farrier repo refresh'), or set this device's clock",
    ),
    (
        exceptions.BadVersionNumberError,
        "{file} is older than what this device has seen, or does not belong to the same state "
        "({error}): the repository was rolled back or mixed",
    ),
    (
        exceptions.UnsignedMetadataError,
        "{file} is not signed by the keys this device trusts: a foreign or forged repository",
    ),
    (
        exceptions.LengthOrHashMismatchError,
        "{file} is damaged or was exchanged: its length or digest differs from the signed one",
    ),
    (exceptions.RepositoryError, "{file} is damaged or forged ({error})"),
    (exceptions.DownloadLengthMismatchError, "{file} is larger than it may be"),
)


class Client:
    """One view of a repository; metadata seen is kept in `trust`, so that it cannot be rolled back later.

    `base` is the URL of the repository's public folder, `root` its first root metadata. The repository must use
    consistent snapshots.
    """

    def __init__(self, base: str, *, root: Path, trust: Path, settings: Settings) -> None:
        self._base = base.rstrip("/")
        self._transport = Transport(settings)
        config = UpdaterConfig(
            max_root_rotations=settings.root_rotations_max,
            root_max_length=settings.root_max_bytes,
            timestamp_max_length=settings.timestamp_max_bytes,
            snapshot_max_length=settings.snapshot_max_bytes,
            targets_max_length=settings.targets_max_bytes,
        )
        try:
            anchor = root.read_bytes()
            self._updater = Updater(
                str(trust),
                f"{self._base}/metadata/",
                fetcher=self._transport,
                config=config,
                bootstrap=anchor,
            )
        except FileNotFoundError:
            raise InputError(f"{root} does not exist: copy the repository's 1.root.json there") from None
        except exceptions.RepositoryError as error:
            raise TrustError(f"{root} is not valid root metadata ({error})") from None
        if settings.reference_time is not None:
            self._updater._trusted_set.reference_time = settings.reference_time

    def describe(self, path: str) -> TargetFile:
        """Return the signed length and hashes of a target; raises InputError where it is not published."""
        with self._refusing():
            target = self._updater.get_targetinfo(path)
        if target is None or "sha256" not in target.hashes:
            raise InputError(f"{path} is not published in {self._base}: publish it first, or check its name")
        return target

    def chunks(self, target: TargetFile) -> Iterator[bytes]:
        """Yield a target's bytes; they are only trustworthy once the iterator has ended without an error."""
        folder, _, name = target.path.rpartition("/")
        url = f"{self._base}/targets/{folder}/{target.hashes['sha256']}.{name}"
        digest, length = hashlib.sha256(), 0
        with self._refusing():
            for chunk in self._transport.fetch(url):
                digest.update(chunk)
                length += len(chunk)
                if length > target.length:
                    raise exceptions.DownloadLengthMismatchError
                yield chunk
            if length != target.length or digest.hexdigest() != target.hashes["sha256"]:
                raise exceptions.LengthOrHashMismatchError

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except (exceptions.RepositoryError, exceptions.DownloadError) as error:
            raise _refusal(error, self._transport.last) from None


def _refusal(error: Exception, file: str) -> FarrierError:
    for kind, sentence in _REFUSALS:
        if isinstance(error, kind):
            return TrustError(sentence.format(file=file, error=_one_line(error)))
    reason = error.__cause__ if error.__cause__ is not None else error
    return TryAgain(f"cannot fetch {file} ({_one_line(reason)}): try again later")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
