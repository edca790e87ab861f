"""The demo's course: from a model file to a fleet that reports what it does, each step the real one."""

from __future__ import annotations

import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import FarrierError, UsageError

from ..processes import ProcessGroup
from .load import Driver, Tally
from .scene import DEPLOYMENT, HOST, SETTLE_LIMIT_S, Scene, listens

if TYPE_CHECKING:
    from ..optimization import Result

ASSETS = Path(__file__).parent / "assets"
MAX_DEVICES = 16  # each is two processes; more would measure this machine, not Farrier
ENGINE = "onnxruntime"  # that the demo's devices have
BUDGET_DROP = 0.01
VERSION = "1.0.0"
WATCH_S = 0.5

Say = Callable[[str], None]
Report = Callable[[str, float], None]  # what is being done, and which share (0 to 1) of it is done


@contextmanager
def no_bar() -> Iterator[Report]:
    """Show no progress."""
    yield lambda stage, share: None


@dataclass(frozen=True)
class Settings:
    """What a user may choose. `keep` leaves everything running until Ctrl-C; `out` gets the optimizer's files."""

    devices: int = 3
    seconds: float = 20.0
    port: int = 8787
    keep: bool = False
    out: Path = Path("farrier-demo")


@dataclass(frozen=True)
class DeviceSummary:
    """What one device did; `accuracy` was measured on the answers that it gave."""

    device: str
    endpoint: str
    requests: int
    errors: int
    accuracy: float


@dataclass(frozen=True)
class Summary:
    """What the demo showed: the optimization, the requests, and the account of the telemetry."""

    optimization: Result
    devices: tuple[DeviceSummary, ...]
    produced: int
    received: int
    ledgered: int
    duplicates: int
    settled: bool
    dashboard: str
    running: bool  # still, because it was asked to be kept

    @property
    def requests(self) -> int:
        """The requests sent to all devices."""
        return sum(device.requests for device in self.devices)

    @property
    def errors(self) -> int:
        """The requests that got no right answer from the API (not: a wrong digit)."""
        return sum(device.errors for device in self.devices)

    def to_document(self) -> dict[str, Any]:
        """Return the form of `farrier demo --json`."""
        return {
            "devices": len(self.devices),
            "requests": self.requests,
            "errors": self.errors,
            "produced": self.produced,
            "received": self.received,
            "ledgered": self.ledgered,
            "duplicates": self.duplicates,
            "settled": self.settled,
            "dashboard": self.dashboard,
            "running": self.running,
            "per_device": [vars(device) for device in self.devices],
            "baseline": self.optimization.baseline.to_document(),
            "delivered": self.optimization.delivered.to_document(),
        }


def demo(
    settings: Settings | None = None,
    *,
    say: Say = lambda line: None,
    done: Callable[[Summary], None] = lambda summary: None,
    bar: Callable[[], AbstractContextManager[Report]] = no_bar,
) -> Summary:
    """Run the whole loop and return its summary; `say` gets a line per step, `bar` shows the long ones.

    `done` gets the summary before anything is stopped; with `keep`, everything then runs on until an interrupt.
    Raises UsageError where a setting or the port cannot be had, FarrierError where a part fails.
    """
    settings = _checked(settings or Settings())
    with (
        _interruptible(),
        tempfile.TemporaryDirectory(prefix="farrier-demo-") as folder,
        ProcessGroup(Path(folder)) as group,
    ):
        scene = Scene(Path(folder), group, dashboard_port=settings.port)
        optimization = _optimize(settings.out, say, bar)
        token = secrets.token_urlsafe(16)
        devices = [f"edge-{number}" for number in range(1, settings.devices + 1)]
        endpoints = _stage(scene, Path(optimization.bundle), token, devices, say)
        dashboard = f"http://{HOST}:{settings.port}/?token={token}"
        say(f"dashboard at {dashboard}")
        tallies = _drive(group, endpoints, settings.seconds, say, bar)
        summary = _account(scene, optimization, endpoints, tallies, dashboard, keep=settings.keep, say=say)
        done(summary)
        if settings.keep:
            _keep(group, say)
    return summary


def _checked(settings: Settings) -> Settings:
    if not 1 <= settings.devices <= MAX_DEVICES:
        raise UsageError(f"--devices must be 1 to {MAX_DEVICES}, not {settings.devices}")
    if not settings.seconds >= 1:
        raise UsageError(f"--seconds must be at least 1, not {settings.seconds:g}")
    if listens(settings.port):
        raise UsageError(f"port {settings.port} is in use: choose another one with --port")
    return settings


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make a plain kill or a closed terminal take the same way out as Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _optimize(out: Path, say: Say, bar: Callable[[], AbstractContextManager[Report]]) -> Result:
    from ..optimization import optimize

    say("optimizing the digits network within a drop of 1 % ...")
    with bar() as progress:
        result = optimize(
            ASSETS / "digits.onnx",
            data=ASSETS / "digits-eval.npz",
            calib=ASSETS / "digits-calib.npz",
            metric="accuracy",
            max_drop=BUDGET_DROP,
            engine=ENGINE,
            out=out,
            name=DEPLOYMENT,
            version=VERSION,
            progress=progress,
        )
    say(f"  {result.verdict}")
    return result


def _stage(scene: Scene, bundle: Path, token: str, devices: list[str], say: Say) -> Mapping[str, str]:
    """Bring up every part and the model onto every device; return the devices' endpoints."""
    say("signing and publishing the bundle ...")
    scene.prepare(bundle)
    say(f"starting {len(devices)} agents, a collector and a dashboard ...")
    scene.start_dashboard(token)
    running = scene.roll_out(f"{DEPLOYMENT}@{VERSION}", devices)
    say(f"{DEPLOYMENT} {VERSION} is live on {len(running)} devices")
    return {device: deployment.endpoint for device, deployment in zip(devices, running, strict=True)}


def _drive(
    group: ProcessGroup,
    endpoints: Mapping[str, str],
    seconds: float,
    say: Say,
    bar: Callable[[], AbstractContextManager[Report]],
) -> dict[str, Tally]:
    import numpy as np

    with np.load(ASSETS / "digits-eval.npz", allow_pickle=False) as data:
        images, labels = data["image"], data["labels"]
    say(f"sending real requests for {seconds:g} s ...")
    drivers = {
        device: Driver(endpoint, DEPLOYMENT, images, labels, seed=seed)
        for seed, (device, endpoint) in enumerate(endpoints.items())
    }
    for driver in drivers.values():
        driver.start()
    start = time.monotonic()
    try:
        with bar() as progress:

            def over() -> bool:
                elapsed = time.monotonic() - start
                progress("sending requests", elapsed / seconds)
                return elapsed >= seconds

            group.wait_until(over, what="sending requests", limit_s=seconds + WATCH_S)
    finally:
        tallies = {device: driver.stop() for device, driver in drivers.items()}
    return tallies


def _account(
    scene: Scene,
    optimization: Result,
    endpoints: Mapping[str, str],
    tallies: Mapping[str, Tally],
    dashboard: str,
    *,
    keep: bool,
    say: Say,
) -> Summary:
    """Wait until every telemetry point has arrived, and sum up."""
    if not keep:
        say("stopping the agents; waiting for the last telemetry ...")
        scene.group.stop([child for child in scene.group.children if child.name in endpoints])
    try:
        scene.group.wait_until(
            lambda: scene.settled(at_rest=not keep),
            what="the last telemetry arriving",
            limit_s=SETTLE_LIMIT_S,
        )
    except FarrierError as error:
        say(str(error))
    totals = scene.totals()
    return Summary(
        optimization=optimization,
        devices=tuple(
            DeviceSummary(
                device, endpoints[device], tally.requests, tally.errors, tally.right / max(1, tally.rows)
            )
            for device, tally in tallies.items()
        ),
        produced=totals.produced,
        received=totals.received,
        ledgered=totals.ledgered,
        duplicates=totals.duplicates,
        settled=totals.unsettled == 0,
        dashboard=dashboard,
        running=keep,
    )


def _keep(group: ProcessGroup, say: Say) -> None:
    say("everything keeps running; Ctrl-C stops it")
    try:
        group.wait_until(lambda: False, what="running", limit_s=float("inf"))
    except KeyboardInterrupt:
        say("stopping ...")
