"""The data plane as a library: one bundle with its engine, batcher and response cache, in this process."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

import numpy as np

from farrier_contracts.bundle import StoredBundle, unpack
from farrier_contracts.errors import FarrierError
from farrier_contracts.tensors import DYNAMIC, NUMPY_NAMES

from . import arrays, cache, compatibility, engines, golden
from .batching import rules
from .batching.batcher import Batcher, Job, Post, RejectedError
from .stats import Stats

WARM_RUNS = 5
DEFAULT_RTOL = 1e-3  # between two runs of one request, where the bundle states no tolerance
DEFAULT_ATOL = 1e-5

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RuntimeSettings:
    """Limits of one deployment. A cache of 0 bytes is off; `cache_verify_every` 0 never runs a hit again."""

    threads: int = 1
    queue_limit: int = 256  # requests
    cache_bytes: int = 16 << 20
    cache_verify_every: int = 1024  # hits


@dataclass(frozen=True)
class Answer:
    """What became of one request: outputs by name, or the error. Cached outputs are read-only."""

    outputs: Optional[Arrays] = None
    error: Optional[Exception] = None
    cached: bool = False


class Runtime:
    """A loaded, checked and warmed bundle; every method may be called from any thread.

    `bundle` is a bundle file, or a bundle that a store holds. `post(callback, *arguments)` says where the
    callbacks of `submit` run (an event loop gives its `call_soon_threadsafe`); without it, in the engine's thread.
    Engines that are built on the device are kept in the folder `kept_engines` (default: in the user's cache), and
    `building` hears before such a build how many seconds it may take.
    Raises BundleError where the bundle is not for this device or fails its golden check, MissingToolError where
    no engine for it is installed.
    """

    def __init__(
        self,
        bundle: Union[str, Path, StoredBundle],
        *,
        settings: RuntimeSettings = RuntimeSettings(),
        stats: Optional[Stats] = None,
        post: Optional[Post] = None,
        kept_engines: Optional[Path] = None,
        building: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._folder: Optional[tempfile.TemporaryDirectory[str]] = None
        if not isinstance(bundle, StoredBundle):
            self._folder = tempfile.TemporaryDirectory(prefix="farrier-")
        try:
            if not isinstance(bundle, StoredBundle):
                assert self._folder is not None
                bundle = unpack(Path(bundle), Path(self._folder.name))
            compatibility.check(bundle.manifest)
            self.bundle = bundle
            self.manifest = bundle.manifest
            self._has_rows = rules.has_rows(self.manifest)
            self._engine = engines.load(
                bundle,
                engines.EngineSettings(
                    threads=settings.threads,
                    kept_engines=kept_engines or _user_cache() / "engines",
                    building=building,
                ),
            )
            self.cache = cache.ResponseCache(
                bundle.digest,
                budget_bytes=settings.cache_bytes if self.manifest.cache.responses else 0,
                verify_every=settings.cache_verify_every,
            )
            self.golden_cases = golden.check(bundle, self._run)
            self._warm()
        except BaseException:
            self._forget_files()
            raise
        self.stats = stats or Stats.anonymous()
        self._counting = threading.Lock()
        self.batcher = Batcher(
            self._run,
            max_rows=rules.largest_batch(self.manifest),
            queue_limit=settings.queue_limit,
            stats=self.stats,
            post=post,
        )

    def infer(self, inputs: Arrays, *, timeout_s: Optional[float] = None) -> Dict[str, np.ndarray]:
        """Return the outputs for one request.

        Raises InputError where the inputs do not fit, RejectedError where too many wait or the time is up,
        FarrierError where the model fails.
        """
        fitting, rows = self._checked(inputs)
        key, kept = self._look_up(fitting)
        if kept is not None and not self.cache.due():
            return cache.copies(kept)
        outputs = self.batcher.try_now(fitting, rows)
        if outputs is None:
            outputs = self._wait(fitting, rows, timeout_s)
        self._keep(key, kept, outputs)
        return outputs

    def submit(
        self, inputs: Arrays, done: Callable[[Answer], Any], *, timeout_s: Optional[float] = None
    ) -> None:
        """Start one request; `done` is called once: here and now for a cached answer, else through `post`.

        A request whose `timeout_s` is over before its turn comes is not run. Raises InputError and RejectedError.
        """
        fitting, rows = self._checked(inputs)
        key, kept = self._look_up(fitting)
        if kept is not None and not self.cache.due():
            done(Answer(kept, cached=True))
            return

        def finish(job: Job) -> None:
            if job.outputs is not None:
                self._keep(key, kept, job.outputs)
            done(Answer(job.outputs, job.error))

        self.batcher.put(Job(fitting, rows, finish, deadline_ns=_deadline(timeout_s)))

    def close(self) -> None:
        """Answer what waits, then let go of the model."""
        self.batcher.close()
        self._engine.close()
        self._forget_files()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self, inputs: Arrays) -> Tuple[Dict[str, np.ndarray], int]:
        fitting = arrays.checked(inputs, self.manifest.inputs, has_rows=self._has_rows)
        return fitting, len(next(iter(fitting.values()))) if self._has_rows else 1

    def _run(self, inputs: Arrays) -> Dict[str, np.ndarray]:
        try:
            return self._engine.run(inputs)
        except Exception as error:  # engines' exceptions share no base class
            reason = str(error).strip().partition("\n")[0]
            raise FarrierError(f"the model failed on this request: {reason}") from error

    def _wait(self, fitting: Arrays, rows: int, timeout_s: Optional[float]) -> Dict[str, np.ndarray]:
        finished = threading.Lock()
        finished.acquire()
        job = Job(fitting, rows, lambda _: finished.release(), deadline_ns=_deadline(timeout_s))
        self.batcher.put(job)
        finished.acquire()
        if job.error is not None:
            raise job.error
        assert job.outputs is not None
        return job.outputs

    def _look_up(self, fitting: Arrays) -> Tuple[Optional[cache.Key], Optional[Arrays]]:
        if not self.cache.wants():
            return None, None
        key = self.cache.key(fitting)
        kept = self.cache.get(key)
        self._count("cache_misses" if kept is None else "cache_hits")
        return key, kept

    def _keep(self, key: Optional[cache.Key], kept: Optional[Arrays], outputs: Arrays) -> None:
        """Put a fresh answer into the cache, or compare it with the one kept there."""
        if key is None:
            return
        if kept is None:
            self.cache.put(key, outputs)
        elif not self._agree(kept, outputs):
            self._count("cache_mismatches")
            self.cache.switch_off()

    def _agree(self, kept: Arrays, fresh: Arrays) -> bool:
        promise = self.manifest.golden
        return all(
            arrays.worst_excess(
                fresh[name],
                kept[name],
                atol=promise.atol.get(name, 0.0) if promise else DEFAULT_ATOL,
                rtol=promise.rtol if promise else DEFAULT_RTOL,
            )
            == 0
            for name in kept
        )

    def _count(self, name: str) -> None:
        with self._counting:
            self.stats.add(name)

    def _warm(self) -> None:
        """Run once at every size that will be used, and keep the cache only where a hit is cheaper than a run."""
        one = self._example()
        runs, hits = [], []
        for _ in range(WARM_RUNS):
            start = time.perf_counter_ns()
            self._run(one)
            middle = time.perf_counter_ns()
            self.cache.get(self.cache.key(one))
            runs.append(middle - start)
            hits.append(time.perf_counter_ns() - middle)
        most = rules.largest_batch(self.manifest)
        if most > 1:
            self._run(rules.join([one] * most))
        self.cache.price(hit_ns=_median(hits), run_ns=_median(runs))

    def _example(self) -> Dict[str, np.ndarray]:
        manifest = self.manifest
        if manifest.warmup is not None:
            inputs = golden.first_inputs(self.bundle, manifest.warmup)
        elif manifest.golden is not None:
            inputs = next(golden.read_cases(self.bundle, manifest.golden)).inputs
        else:
            inputs = {
                spec.name: np.zeros(
                    [1 if d == DYNAMIC else d for d in spec.shape], NUMPY_NAMES[spec.datatype]
                )
                for spec in manifest.inputs
            }
        return self._checked(inputs)[0]

    def _forget_files(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _user_cache() -> Path:
    """Return the user's folder for what can be made again (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farrier"


def _median(odd_number: List[int]) -> int:
    """Return the middle one; the module `statistics` would cost each worker half a megabyte."""
    return sorted(odd_number)[len(odd_number) // 2]


def _deadline(timeout_s: Optional[float]) -> Optional[int]:
    return None if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)


__all__ = ["Answer", "RejectedError", "Runtime", "RuntimeSettings"]
