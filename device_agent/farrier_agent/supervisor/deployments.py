"""All deployments of a device: the slots' rules applied to real sockets, processes and files."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, Mapping, Optional, Protocol, Tuple

from farrier_contracts.errors import InputError
from farrier_contracts.wire.documents import Desired, RunningDeployment
from farrier_contracts.wire.telemetry import Value

from ..config import Config
from ..stats import Snapshot
from . import measures, remembered, slots
from .fetches import Fetches
from .listeners import Listeners
from .workers import Order, WorkerProcess

KILL_WAIT_S = 1.0
_Key = Tuple[str, int]  # deployment and worker number
_Applied = Tuple[str, slots.Event]


class Watch(Protocol):
    """The event loop's side."""

    def __call__(self, file: Any, callback: Optional[Callable[[], None]]) -> None:
        """Call `callback` whenever the file is readable, until it is None."""
        ...


class Deployments:
    """Brings what runs in line with what the fleet wants."""

    def __init__(
        self,
        config: Config,
        *,
        watch: Watch,
        tell: Callable[[str, Mapping[str, Any]], None],
        log: Callable[[str], None],
    ) -> None:
        """`tell` sends an event to the fleet."""
        self._config, self._watch, self._tell, self._log = config, watch, tell, log
        worker = config.worker
        self._limits = slots.Limits(start_s=worker.start_limit_s, drain_s=worker.drain_limit_s)
        self._file = config.state / "deployments.json"
        self._run = config.state / "run"
        self._listeners = Listeners(self._run, config.api)
        self._fetches = Fetches(config.repository, config.state)
        self._workers: Dict[_Key, WorkerProcess] = {}
        self._heartbeats: Dict[_Key, Tuple[int, float]] = {}  # counter, and since when it stands there
        self._retired: Dict[str, List[Snapshot]] = {}  # last counts of workers that ended
        self._unsaved = False
        self._draining_until: Optional[float] = None
        self.version, self._slots = remembered.load(self._file)

    @property
    def drained(self) -> bool:
        """Whether no worker runs any more."""
        return not self._workers

    @property
    def pids(self) -> List[int]:
        """The processes of all workers."""
        return [worker.pid for worker in self._workers.values()]

    def boot(self) -> None:
        """Start what was good before, without asking anyone."""
        self._run.mkdir(parents=True, exist_ok=True)
        for left in self._run.glob("*.stats"):
            left.unlink()
        for name in list(self._slots):
            self._apply((name, slots.Tick()))

    def want(self, desired: Desired) -> None:
        """Take the fleet's wish; one that is not newer than the last is ignored."""
        if desired.version <= self.version or self._draining_until is not None:
            return
        self.version = desired.version
        wanted = {d.name: slots.Release(d.bundle, d.version, d.port) for d in desired.deployments}
        for name in list(self._slots):
            if name not in wanted:
                self._apply((name, slots.Want(None)))
        for name, release in wanted.items():
            self._slots.setdefault(name, slots.Slot(name))
            self._apply((name, slots.Want(release)))
        self._save()

    def restart(self, name: str) -> bool:
        """Kill a deployment's live worker, so that it starts anew; say whether there was one."""
        slot = self._slots.get(name)
        if slot is None or slot.live is None:
            return False
        self._workers[name, slot.live.worker].kill()
        return True

    def turn(self) -> None:
        """Look at every process and every deadline."""
        now = time.monotonic()
        self._reap()
        if self._draining_until is not None:
            if now >= self._draining_until:
                self._draining_until = now + KILL_WAIT_S
                self._each(WorkerProcess.kill)
            return
        finished = self._fetches.finished(now=now)
        if finished is not None:
            self._apply((finished[0], finished[1]))
        self._find_hangs(now)
        for name, slot in list(self._slots.items()):
            due = slots.deadline(slot)
            if due is not None and now >= due:
                self._apply((name, slots.Tick()))
        if self._unsaved:
            self._save()

    def deadline(self) -> Optional[float]:
        """Return the monotonic second of the next `turn`, should nothing happen before."""
        if self._draining_until is not None:
            return self._draining_until
        times = [slots.deadline(slot) for slot in self._slots.values()]
        return min((at for at in times if at is not None), default=None)

    def reported(self) -> Tuple[RunningDeployment, ...]:
        """Return all deployments in the words of the reported state."""
        found = []
        for name, slot in sorted(self._slots.items()):
            port = slot.live.build.release.port if slot.live else -1
            told = slots.report(slot, endpoint=self._listeners.endpoint(name, port))
            if self._draining_until is not None:
                told = RunningDeployment(name, told.bundle, told.version, told.digest, "stopped")
            found.append(told)
        return tuple(found)

    def measure(self) -> List[Dict[str, Value]]:
        """Return one row of columns per deployment: what was counted since the last call."""
        rows = []
        for name in sorted({*self._slots, *self._retired}):
            workers = [worker.take() for key, worker in self._workers.items() if key[0] == name]
            counted = measures.total([*self._retired.pop(name, []), *workers])
            rows.append(measures.columns(name, counted))
        return rows

    def drain(self) -> None:
        """Begin the end: no new work, workers answer what they have and leave."""
        self._fetches.close()
        drain_s = self._config.worker.drain_limit_s
        self._draining_until = time.monotonic() + drain_s
        self._each(lambda worker: worker.send(do="drain", within_s=drain_s))

    def close(self) -> None:
        """End every process at once and close every socket."""
        self._fetches.close()
        self._each(WorkerProcess.kill)
        for key in list(self._workers):
            self._retire(key)
        self._listeners.close()

    # --- rules applied

    def _apply(self, *events: _Applied) -> None:
        queue: Deque[_Applied] = deque(events)
        now = time.monotonic()
        while queue:
            name, event = queue.popleft()
            if name not in self._slots:
                continue
            self._slots[name], actions = slots.step(self._slots[name], event, now, limits=self._limits)
            for action in actions:
                queue.extend(self._do(name, action, now))
            if slots.finished(self._slots[name]):
                del self._slots[name]
        self._listeners.keep(self._addresses())

    def _do(self, name: str, action: slots.Action, now: float) -> Iterable[_Applied]:
        if isinstance(action, slots.Start):
            return self._start(name, action)
        if isinstance(action, slots.Fetch):
            self._fetches.ask(name, action.release, now=now)
        elif isinstance(action, slots.Remember):
            self._unsaved = True
        elif isinstance(action, slots.Tell):
            self._log(f"{name}: {action.kind}: {action.detail}")
            self._tell(action.kind, {"deployment": name, "detail": action.detail})
        else:
            worker = self._workers.get((name, action.worker))
            if worker is not None:
                self._lead(worker, action)
        return ()

    def _lead(self, worker: WorkerProcess, action: slots.Action) -> None:
        if isinstance(action, slots.Serve):
            worker.send(do="serve")
        elif isinstance(action, slots.Drain):
            worker.send(do="drain", within_s=self._config.worker.drain_limit_s)
        elif isinstance(action, slots.Kill):
            worker.kill()

    def _start(self, name: str, action: slots.Start) -> Iterable[_Applied]:
        settings = self._config.worker
        try:
            worker = WorkerProcess(
                Order(
                    self._config.state / "store",
                    action.build.digest,
                    name,
                    self._listeners.open(name, action.build.release.port),
                    self._run / f"{name}.{action.worker}.stats",
                    self._config.state / "engines",
                    {"threads": settings.threads, "cache_bytes": settings.cache_bytes},
                )
            )
        except (InputError, OSError) as error:
            why = str(error) if isinstance(error, InputError) else f"no worker could be started: {error}"
            return [(name, slots.Gone(action.worker, why, innocent=True))]
        key = (name, action.worker)
        self._workers[key] = worker
        self._watch(worker.control, lambda: self._heard(key))
        return ()

    def _addresses(self) -> List[Tuple[str, int]]:
        """Deployments and ports that a slot has, or may need soon."""
        found = []
        for name, slot in self._slots.items():
            builds = [slot.good, *(run.build for run in (slot.live, slot.next) if run)]
            found += [(name, build.release.port) for build in builds if build]
        return found

    # --- what happens

    def _heard(self, key: _Key) -> None:
        worker = self._workers[key]
        messages, is_open = worker.receive()
        if not is_open:
            self._watch(worker.control, None)
        name, number = key
        for message in messages:
            event = message.get("event")
            if event == "ready":
                self._log(
                    f"{name}: loaded in {message.get('load_ms')} ms, golden cases: {message.get('golden')}"
                )
                self._apply((name, slots.Ready(number)))
            elif event == "building":
                self._log(f"{name}: an engine is built for this device, which may take minutes")
                limit_s = min(_seconds(message.get("within_s")), self._config.worker.build_limit_s)
                self._apply((name, slots.Building(number, limit_s)))
            elif event == "serving":
                self._apply((name, slots.Serving(number)))

    def _reap(self) -> None:
        for key, worker in list(self._workers.items()):
            reason = worker.ended()
            if reason is not None:
                self._retire(key)
                if self._draining_until is None:
                    self._apply((key[0], slots.Gone(key[1], reason)))

    def _retire(self, key: _Key) -> None:
        worker = self._workers.pop(key)
        self._retired.setdefault(key[0], []).append(worker.take())
        self._heartbeats.pop(key, None)
        self._watch(worker.control, None)
        worker.close()

    def _find_hangs(self, now: float) -> None:
        for name, slot in list(self._slots.items()):
            if slot.live is None or (name, slot.live.worker) not in self._workers:
                continue
            key = (name, slot.live.worker)
            beat = self._workers[key].heartbeat()
            before, since = self._heartbeats.get(key, (-1, now))
            self._heartbeats[key] = (beat, since if beat == before else now)
            if beat == before and now - since >= self._config.worker.hang_limit_s:
                self._apply((name, slots.Hung(key[1])))

    def _each(self, do: Callable[[WorkerProcess], None]) -> None:
        for worker in self._workers.values():
            do(worker)

    def _save(self) -> None:
        try:
            remembered.save(self._file, version=self.version, slots=self._slots.values())
        except OSError as error:
            if not self._unsaved:
                self._log(f"{self._file} cannot be written: {error.strerror}; trying again")
            self._unsaved = True
        else:
            self._unsaved = False


def _seconds(value: Any) -> float:
    return float(value) if type(value) in (int, float) and value > 0 else 0.0
