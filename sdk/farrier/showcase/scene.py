"""The cast of the demo on one machine: broker, repository, collector, dashboard and agents, each a process."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from pathlib import Path

from farrier_contracts.errors import FarrierError
from farrier_contracts.wire.documents import RunningDeployment

from .. import fleet, repo
from ..processes import Child, ProcessGroup
from ..store import Totals, open_store, queries

HOST = "127.0.0.1"
FLEET = "demo"
DEPLOYMENT = "digits"
START_LIMIT_S = 30.0
LIVE_LIMIT_S = 60.0
SETTLE_LIMIT_S = 30.0
PROBE_TIMEOUT_S = 1.0

AGENT_CONFIG = """\
device = "{device}"
fleet = "{fleet}"
state_dir = "{state}"
[broker]
url = "{broker}"
[repository]
url = "{repository}"
root = "{root}"
[api]
host = "{host}"
[telemetry]
interval_s = {interval_s}
batch_wait_s = {interval_s}
"""


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


@dataclass
class Scene:
    """Everything the demo runs, in one folder. `start_*` begins each part; the process group ends them all."""

    folder: Path
    group: ProcessGroup
    dashboard_port: int = 0
    telemetry_interval_s: float = 0.5
    broker_port: int = field(default_factory=free_port)
    repository_port: int = field(default_factory=free_port)

    @property
    def broker_url(self) -> str:
        """Where devices and collector meet."""
        return f"mqtt://{HOST}:{self.broker_port}"

    @property
    def repository_url(self) -> str:
        """Where devices fetch bundles."""
        return f"http://{HOST}:{self.repository_port}"

    @property
    def repository(self) -> Path:
        """The signed repository's folder."""
        return self.folder / "repository"

    @property
    def root(self) -> Path:
        """The root of trust that devices start from."""
        return self.repository / "public" / "metadata" / "1.root.json"

    @property
    def fleet_file(self) -> Path:
        """The fleet's configuration."""
        return self.folder / "fleet" / "FLEET.toml"

    @property
    def store_url(self) -> str:
        """The fleet's store."""
        return f"sqlite:///{self.folder / 'fleet' / 'fleet.db'}"

    def prepare(self, bundle: Path) -> None:
        """Sign and publish a bundle, and start all that agents need: repository, broker, fleet and collector."""
        repo.init(self.repository)
        repo.publish(bundle, repo=self.repository)
        self.start_repository()
        self.start_broker()
        fleet.init_fleet(
            self.fleet_file.parent,
            name=FLEET,
            broker=self.broker_url,
            repository=self.repository_url,
            root=self.root,
        )
        self.start_collector()

    def roll_out(self, release: str, devices: list[str]) -> list[RunningDeployment]:
        """Start the devices' agents, ask them for a release `NAME@VERSION`, and wait until all serve it."""
        for device in devices:
            self.start_agent(device)
        self.wait_known(devices)
        fleet.rollout(fleet.load_fleet(self.fleet_file), release, names=devices)
        return self.wait_live(devices)

    def start_broker(self) -> Child:
        """Start the embedded broker and wait until it listens."""
        child = self.group.start("broker", ["farrier.broker", "--port", str(self.broker_port)])
        self.group.wait_until(
            lambda: listens(self.broker_port), what="starting the broker", limit_s=START_LIMIT_S
        )
        return child

    def start_repository(self) -> Child:
        """Serve the repository."""
        child = self.group.start(
            "repository",
            ["farrier", "repo", "serve", str(self.repository), "--port", str(self.repository_port)],
        )
        self.group.wait_until(
            lambda: listens(self.repository_port), what="serving the repository", limit_s=START_LIMIT_S
        )
        return child

    def start_collector(self) -> Child:
        """Start the collector; it makes the store."""
        arguments = ["farrier", "collect", "--broker", self.broker_url, "--store", self.store_url]
        return self.group.start("collector", [*arguments, "--fleet", FLEET])

    def start_dashboard(self, token: str) -> Child:
        """Start the dashboard and wait until it answers."""
        token_file = self.folder / "dashboard.token"
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        arguments = ["farrier", "dashboard", "--store", self.store_url, "--port", str(self.dashboard_port)]
        child = self.group.start("dashboard", [*arguments, "--token-file", str(token_file)])
        self.group.wait_until(
            lambda: listens(self.dashboard_port), what="starting the dashboard", limit_s=START_LIMIT_S
        )
        return child

    def start_agent(self, device: str) -> Child:
        """Start one device's agent with a folder of its own."""
        home = self.folder / device  # short: a Unix socket below it has 107 characters in all
        home.mkdir(parents=True, exist_ok=True)
        config = home / "agent.toml"
        config.write_text(
            AGENT_CONFIG.format(
                device=device,
                fleet=FLEET,
                state=home / "state",
                broker=self.broker_url,
                repository=self.repository_url,
                root=self.root,
                host=HOST,
                interval_s=self.telemetry_interval_s,
            )
        )
        return self.group.start(device, ["farrier_agent", "run", "--config", str(config)])

    def wait_known(self, devices: list[str]) -> None:
        """Wait until the collector has heard of every device."""

        def all_known() -> bool:
            if not (self.fleet_file.parent / "fleet.db").exists():
                return False
            with open_store(self.store_url) as store:
                born = {d.name for d in queries.devices(store, fleet=FLEET) if d.birth}
            return born >= set(devices)

        self.group.wait_until(all_known, what="waiting for the devices' births", limit_s=START_LIMIT_S)

    def deployment(self, device: str) -> RunningDeployment | None:
        """Return what a device last reported of the demo's deployment."""
        with open_store(self.store_url) as store:
            known = [d for d in queries.devices(store, fleet=FLEET) if d.name == device]
        reported = known[0].reported if known else None
        return next((d for d in reported.deployments if d.name == DEPLOYMENT), None) if reported else None

    def wait_live(self, devices: list[str]) -> list[RunningDeployment]:
        """Wait until every device serves the deployment, and return what they report."""

        def all_live() -> bool:
            running = [self.deployment(device) for device in devices]
            failed = [d for d in running if d and d.phase == "failed"]
            if failed:
                raise FarrierError(f"a device refused the deployment: {failed[0].detail}")
            return all(d is not None and d.phase == "live" for d in running)

        self.group.wait_until(all_live, what="bringing the model onto the devices", limit_s=LIVE_LIMIT_S)
        return [d for device in devices if (d := self.deployment(device)) is not None]

    def totals(self) -> Totals:
        """Return the account of the whole fleet's telemetry."""
        with open_store(self.store_url) as store:
            return queries.totals(store, fleet=FLEET)

    def settled(self, *, at_rest: bool) -> bool:
        """Say whether every telemetry point that was produced is stored or ledgered.

        `at_rest` waits for the last word of agents that were stopped: their final statement comes before it.
        """
        totals = self.totals()
        return totals.unsettled == 0 and not (at_rest and totals.online)


def listens(port: int) -> bool:
    """Say whether something accepts connections on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=PROBE_TIMEOUT_S):
        return True
    return False
