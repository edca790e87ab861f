"""Answers to requests that were asked before: least recently used out first, within a budget of bytes.

One BLAKE2b-512 digest, keyed with a secret of this process, is taken over the model's digest and every name, dtype,
shape and byte of the inputs. 16 bytes of it find an entry, the other 48 prove it: where they differ it is no hit.
The inputs themselves are not kept, since one image would use up the room of a hundred answers.

The cache also doubts itself: every so often a hit is run all the same, and one answer that differs by more than the
bundle's own tolerance switches the cache off for good and is counted where the fleet sees it. And it must pay: while
too few requests come twice, as with a camera's pictures, it rests for most of the time.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from typing import Dict, Mapping, Optional, Tuple

import numpy as np

FIND_BYTES = 16
ENTRY_OVERHEAD_BYTES = 600  # of the interpreter's objects around one entry with one output
WORTH_FACTOR = 1.5  # a run must cost this many times a hit before caching pays
TRIAL_LOOKUPS = 512  # after so many, the hits are set against the cost of looking
REST_LOOKUPS = 8192  # requests that are not looked up after a trial that did not pay

Outputs = Mapping[str, np.ndarray]
Key = Tuple[bytes, bytes]


def worthwhile(hit_ns: int, run_ns: int) -> bool:
    """Say whether looking an answer up is clearly cheaper than computing it."""
    return run_ns > WORTH_FACTOR * hit_ns


class ResponseCache:
    """Finished answers by key. Any thread may call any method. `find_bytes` is smaller only in tests of collisions."""

    def __init__(
        self, model_digest: str, *, budget_bytes: int, verify_every: int, find_bytes: int = FIND_BYTES
    ) -> None:
        self.enabled = budget_bytes > 0
        self.used_bytes = 0
        self._budget = budget_bytes
        self._verify_every = verify_every
        self._find_bytes = find_bytes
        self._hits = 0
        self._share_needed = 0.0  # of lookups that must be hits
        self._trial_lookups = self._trial_hits = self._rest = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, Tuple[bytes, Outputs, int]] = OrderedDict()
        self._start = hashlib.blake2b(model_digest.encode(), key=os.urandom(32))

    def __len__(self) -> int:
        return len(self._entries)

    def price(self, *, hit_ns: int, run_ns: int) -> None:
        """Take note of what a hit and a run cost; switches the cache off where a hit is not clearly cheaper."""
        self._share_needed = hit_ns / max(1, run_ns)
        if not worthwhile(hit_ns, run_ns):
            self.switch_off()

    def wants(self) -> bool:
        """Say whether the next request is to be looked up."""
        if not self.enabled:
            return False
        with self._lock:
            if not self._rest:
                return True
            self._rest -= 1
            return False

    def key(self, inputs: Mapping[str, np.ndarray]) -> Key:
        """Return the key of a set of C-contiguous inputs in the manifest's order."""
        digest = self._start.copy()
        for name, array in inputs.items():
            digest.update(f"{len(name)}:{name}{array.dtype.str}{array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
        whole = digest.digest()
        return whole[: self._find_bytes], whole[self._find_bytes :]

    def get(self, key: Key) -> Optional[Outputs]:
        """Return the answer kept under the key; it is shared, so its arrays are read-only."""
        find, proof = key
        with self._lock:
            entry = self._entries.get(find)
            found = entry is not None and entry[0] == proof
            self._judge(found)
            if entry is None or not found:
                return None
            self._entries.move_to_end(find)
            self._hits += 1
            return entry[1]

    def due(self) -> bool:
        """Say, after a hit, whether this one is to be run all the same."""
        return self._verify_every > 0 and self._hits % self._verify_every == 0

    def put(self, key: Key, outputs: Outputs) -> None:
        """Keep a copy of an answer, and drop the oldest ones that no longer fit beside it."""
        if not self.enabled:
            return
        size = ENTRY_OVERHEAD_BYTES + sum(array.nbytes for array in outputs.values())
        if size > self._budget:
            return
        kept = {name: _frozen(array) for name, array in outputs.items()}
        find, proof = key
        with self._lock:
            self._drop(find)
            while self.used_bytes + size > self._budget:
                self._drop(next(iter(self._entries)))
            self._entries[find] = (proof, kept, size)
            self.used_bytes += size

    def switch_off(self) -> None:
        """Forget everything and keep nothing from now on."""
        with self._lock:
            self.enabled = False
            self._entries.clear()
            self.used_bytes = 0

    def _judge(self, found: bool) -> None:
        self._trial_lookups += 1
        self._trial_hits += found
        if self._trial_lookups == TRIAL_LOOKUPS:
            if self._trial_hits < self._share_needed * TRIAL_LOOKUPS:
                self._rest = REST_LOOKUPS
            self._trial_lookups = self._trial_hits = 0

    def _drop(self, find: bytes) -> None:
        entry = self._entries.pop(find, None)
        if entry is not None:
            self.used_bytes -= entry[2]


def _frozen(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def copies(outputs: Outputs) -> Dict[str, np.ndarray]:
    """Return arrays that the caller may write to."""
    return {name: array.copy() for name, array in outputs.items()}
