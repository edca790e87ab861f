"""Where the files of a repository lie, and how long its signatures live.

DIR/keys/<role>.pem        private keys, for the publisher alone (mode 0600)
DIR/lifetimes.json         days that the metadata of each role is valid for
DIR/public/metadata/       <N>.root.json, <N>.targets.json, <N>.snapshot.json, timestamp.json
DIR/public/targets/        bundles/<name>/<sha256>.<version>.json, parts/<sha256>.<sha256>

Only DIR/public is served. Names carry digests and versions as TUF's consistent snapshots have them (TUF
specification, section 6.2), so that a client always sees one whole state.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from farrier_contracts.errors import FarrierError, InputError

ROLES = ("root", "targets", "snapshot", "timestamp")
DAYS_MAX = 36_500


@dataclass(frozen=True)
class Lifetimes:
    """Days that newly signed metadata is valid for; a device refuses what is older."""

    root_days: int = 1095
    targets_days: int = 365
    snapshot_days: int = 90
    timestamp_days: int = 30

    def days(self, role: str) -> int:
        """Return the days of one role."""
        return getattr(self, f"{role}_days")

    def checked(self) -> Lifetimes:
        """Return itself; raises InputError where a lifetime is not 1 to DAYS_MAX days."""
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or not 1 <= value <= DAYS_MAX:
                raise InputError(f"{field.name} must be 1 to {DAYS_MAX} days, not {value!r}")
        return self


@dataclass(frozen=True)
class Repository:
    """The paths of one repository folder."""

    folder: Path

    @property
    def keys(self) -> Path:
        """The folder of private keys."""
        return self.folder / "keys"

    @property
    def public(self) -> Path:
        """The folder to serve; devices may also read it as a folder."""
        return self.folder / "public"

    @property
    def metadata(self) -> Path:
        """The folder of signed metadata."""
        return self.public / "metadata"

    @property
    def root(self) -> Path:
        """The first root metadata, which every device must be given: its anchor of trust."""
        return self.metadata / "1.root.json"

    def target(self, path: str, sha256: str) -> Path:
        """Return the file of the TUF target `path`."""
        folder, _, name = path.rpartition("/")
        return self.public / "targets" / folder / f"{sha256}.{name}"

    def lifetimes(self) -> Lifetimes:
        """Return the lifetimes chosen when the repository was made; raises InputError."""
        path = self.folder / "lifetimes.json"
        try:
            document = json.loads(path.read_bytes())
            return Lifetimes(**document).checked()
        except FileNotFoundError:
            raise InputError(
                f"{self.folder} is not a repository: make one with 'farrier repo init {self.folder}'"
            ) from None
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error})") from None

    @staticmethod
    def lifetimes_bytes(lifetimes: Lifetimes) -> bytes:
        """Return what lifetimes.json holds."""
        return json.dumps(asdict(lifetimes), indent=1).encode() + b"\n"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the repository against other publishers; raises FarrierError where one is at work.

        The kernel drops the lock with its process, so a killed publisher blocks nobody.
        """
        self.lifetimes()
        with (self.folder / ".lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FarrierError(
                    f"another publisher is working on {self.folder}: try again when it is done"
                ) from None
            yield
