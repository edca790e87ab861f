"""What a slot is, what happens to it, and what it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple, Union


@dataclass(frozen=True)
class Limits:
    """When a slot tries again, and when it gives up."""

    crashes: int = 3  # within crash_window_s make a crash loop
    crash_window_s: float = 60.0
    restart_first_s: float = 0.2  # wait before the first restart, doubled each time
    restart_max_s: float = 30.0
    fetch_first_s: float = 1.0  # wait before a failed fetch is tried again, doubled each time
    fetch_max_s: float = 300.0
    start_s: float = 60.0  # a worker must be ready by then
    drain_s: float = 30.0  # a draining worker must be gone by then


@dataclass(frozen=True)
class Release:
    """What the fleet wants: a published bundle, on a port."""

    bundle: str
    version: str
    port: int = 0


@dataclass(frozen=True)
class Build:
    """A release that is on this device."""

    release: Release
    digest: str


@dataclass(frozen=True)
class Run:
    """One worker of a slot. `stage` is starting, handover (told to serve) or serving."""

    worker: int
    build: Build
    stage: str
    until: float  # monotonic seconds; a run that is not serving by then is killed
    given_s: float = 0.0  # from its start until then


@dataclass(frozen=True)
class Fetching:
    """A release on its way: being fetched, waiting to try again at `retry_at`, or here (`digest`) and next in line."""

    release: Release
    digest: str = ""
    attempts: int = 0
    retry_at: Optional[float] = None
    trouble: str = ""


@dataclass(frozen=True)
class Rejected:
    """A release that is not tried again until the fleet asks anew."""

    release: Release
    reason: str


@dataclass(frozen=True)
class Slot:
    """One deployment name. `good` is the build that serves, or should; `previous` the one to fall back to."""

    name: str
    wanted: Optional[Release] = None
    good: Optional[Build] = None
    previous: Optional[Build] = None
    rejected: Optional[Rejected] = None
    live: Optional[Run] = None
    next: Optional[Run] = None
    fetching: Optional[Fetching] = None
    draining: Tuple[Tuple[int, float], ...] = ()  # worker, and when it is killed
    crashes: Tuple[float, ...] = ()  # of the good build, within the window
    restarts: int = 0  # in a row
    restart_at: Optional[float] = None
    trouble: str = ""
    workers: int = 0  # started so far: the next one's number


# --- events


@dataclass(frozen=True)
class Want:
    """The fleet's wish, also when it is repeated; None removes the deployment."""

    release: Optional[Release]


@dataclass(frozen=True)
class Fetched:
    """The bundle is in the store."""

    release: Release
    digest: str


@dataclass(frozen=True)
class FetchFailed:
    """It is not; `for_good` where trying again cannot help."""

    release: Release
    reason: str
    for_good: bool


@dataclass(frozen=True)
class Building:
    """A worker builds an engine before it loads its bundle, which may take so many seconds more."""

    worker: int
    seconds: float


@dataclass(frozen=True)
class Ready:
    """A worker has loaded and checked its bundle."""

    worker: int


@dataclass(frozen=True)
class Serving:
    """A worker accepts requests."""

    worker: int


@dataclass(frozen=True)
class Gone:
    """A worker's process has ended, or could not be started: then, with `innocent`, the build is not to blame."""

    worker: int
    reason: str
    innocent: bool = False


@dataclass(frozen=True)
class Hung:
    """The serving worker stands still while requests wait."""

    worker: int


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = Union[Want, Fetched, FetchFailed, Building, Ready, Serving, Gone, Hung, Tick]


# --- actions


@dataclass(frozen=True)
class Fetch:
    """Bring a release into the store."""

    release: Release


@dataclass(frozen=True)
class Start:
    """Start a worker for a build, not serving yet."""

    worker: int
    build: Build


@dataclass(frozen=True)
class Serve:
    """Tell a ready worker to accept requests."""

    worker: int


@dataclass(frozen=True)
class Drain:
    """Tell a worker to answer what it has and leave."""

    worker: int


@dataclass(frozen=True)
class Kill:
    """End a worker at once."""

    worker: int


@dataclass(frozen=True)
class Remember:
    """What should run after a restart of the device has changed."""


@dataclass(frozen=True)
class Tell:
    """An event for the fleet: swap, rollback, crash or refused."""

    kind: str
    detail: str


Action = Union[Fetch, Start, Serve, Drain, Kill, Remember, Tell]
Step = Tuple[Slot, List[Action]]
