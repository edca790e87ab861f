"""What a freshly flashed device should run: a published bundle, asked for through the fleet's own functions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from farrier_contracts.bundle import read_manifest
from farrier_contracts.errors import FarrierError, InputError

from ..fleet import Fleet, rollout, watch
from ..store import device

KNOWN_LIMIT_S = 15.0  # how long the collector may take to store a birth
LIVE_LIMIT_S = 180.0  # a first fetch over a slow uplink
POLL_S = 0.1
EXTRAS = {"onnxruntime": "onnx", "litert": "litert"}  # engine -> the extra of farrier-agent that brings it


@dataclass(frozen=True)
class Wanted:
    """A bundle by its published name, and the agent's extras for its engines where they are known."""

    reference: str
    engines: tuple[str, ...] = ()


def named(bundle: str) -> Wanted:
    """Return what `NAME@VERSION` or a bundle's file asks for; raises BundleError for a damaged file."""
    path = Path(bundle)
    if not path.is_file():
        return Wanted(bundle)
    manifest = read_manifest(path)
    engines = {EXTRAS[artifact.engine] for artifact in manifest.artifacts if artifact.engine in EXTRAS}
    return Wanted(f"{manifest.name}@{manifest.version}", tuple(sorted(engines)))


def deploy(fleet: Fleet, name: str, reference: str) -> None:
    """Ask a device to run a bundle and wait until it is live; raises FarrierError where it does not get there."""
    _await_known(fleet, name)
    (last,) = watch(fleet, rollout(fleet, reference, names=[name]), timeout_s=LIVE_LIMIT_S)
    if last.phase != "live":
        detail = f": {last.detail}" if last.detail else ""
        raise FarrierError(f"the agent runs, but {reference} is {last.phase} on {name}{detail}")


def _await_known(fleet: Fleet, name: str) -> None:
    deadline = time.monotonic() + KNOWN_LIMIT_S
    with fleet.open_store() as store:
        while True:
            try:
                device(store, name, fleet=fleet.name)
                return
            except InputError:
                if time.monotonic() > deadline:
                    raise FarrierError(
                        f"the agent runs, but the fleet's store does not know {name}; is `farrier collect` running?"
                    ) from None
            time.sleep(POLL_S)
