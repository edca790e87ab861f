"""The thread that runs an engine: it takes what waits, runs it as one batch, and hands the answers back.

Greedy, with no waiting window: while one batch runs, the next one gathers by itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any, Callable, Deque, Dict, Hashable, List, Optional

import numpy as np

from farrier_contracts.errors import FarrierError

from ..stats import Stats
from . import rules
from .rules import Arrays

Run = Callable[[Arrays], Dict[str, np.ndarray]]
Post = Callable[..., Any]  # post(callback, *arguments): how finished jobs get back to their owner


class RejectedError(FarrierError):
    """The request was turned away without being run: it may be sent again, later or elsewhere."""


class LateError(RejectedError):
    """The request's time was up before its turn came."""


class Job:
    """One request on its way through the batcher; after it, either `outputs` or `error` is set."""

    __slots__ = ("deadline_ns", "done", "error", "inputs", "outputs", "queued_ns", "rows", "signature")

    def __init__(
        self, inputs: Arrays, rows: int, done: Callable[[Job], Any], *, deadline_ns: Optional[int] = None
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.done = done
        self.deadline_ns = deadline_ns
        self.signature: Hashable = rules.signature(inputs)
        self.outputs: Optional[Dict[str, np.ndarray]] = None
        self.error: Optional[Exception] = None
        self.queued_ns = 0


class Batcher:
    """Runs jobs in one thread. `run` is also open to other threads through `try_now`, one at a time."""

    def __init__(
        self, run: Run, *, max_rows: int, queue_limit: int, stats: Stats, post: Optional[Post] = None
    ) -> None:
        self.max_rows = max_rows
        self._run = run
        self._limit = queue_limit
        self._stats = stats
        self._post = post or _at_once
        self._queue: SimpleQueue[Optional[Job]] = SimpleQueue()
        self._waiting: Deque[Job] = deque()
        self._engine = threading.Lock()
        self._rounds = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="farrier-batcher", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """The number of jobs that wait."""
        return self._queue.qsize() + len(self._waiting)

    @property
    def progress(self) -> Optional[int]:
        """The number of rounds done, or None while there is nothing to do."""
        return self._rounds if self.depth or self._engine.locked() else None

    def put(self, job: Job) -> None:
        """Queue a job; raises RejectedError where too many wait already."""
        if self._closed:
            raise RejectedError("the model is being unloaded: send the request again")
        if self.depth >= self._limit:
            raise RejectedError(f"{self._limit} requests wait already: send fewer at a time, or again later")
        job.queued_ns = time.monotonic_ns()
        self._queue.put(job)

    def try_now(self, inputs: Arrays, rows: int) -> Optional[Dict[str, np.ndarray]]:
        """Run in the caller's own thread if the engine is free and nothing waits, else return None."""
        if self.depth or self._closed or not self._engine.acquire(blocking=False):
            return None
        try:
            return self._timed(inputs, rows)
        finally:
            self._engine.release()

    def close(self) -> None:
        """Run what still waits, then end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        open_ = True
        while open_ or self._waiting:
            if not self._waiting:
                open_ = self._accept(self._queue.get())
            while open_:
                try:
                    open_ = self._accept(self._queue.get_nowait())
                except Empty:
                    break
            if self._waiting:
                self._round(rules.take(self._waiting, self.max_rows))

    def _accept(self, job: Optional[Job]) -> bool:
        if job is not None:
            self._waiting.append(job)
        return job is not None

    def _round(self, batch: List[Job]) -> None:
        now = time.monotonic_ns()
        live = []
        for job in batch:
            if job.deadline_ns is not None and now > job.deadline_ns:
                job.error = LateError("the request's timeout was over before its turn came")
            else:
                live.append(job)
        with self._engine:
            self._stats.add("queue_sum_ns", sum(now - job.queued_ns for job in live))
            if live:
                self._answer(live)
        self._rounds += 1
        self._post(_finish, batch)

    def _answer(self, jobs: List[Job]) -> None:
        """Fill in every job; where a batch fails, each runs alone, so that a bad one harms only itself."""
        try:
            outputs = self._timed(rules.join([job.inputs for job in jobs]), sum(job.rows for job in jobs))
            for job, own in zip(jobs, rules.part(outputs, [job.rows for job in jobs])):
                job.outputs = own
        except Exception as error:  # whatever an engine may raise belongs to the request
            if len(jobs) == 1:
                jobs[0].error = error
                return
            for job in jobs:
                self._answer([job])

    def _timed(self, inputs: Arrays, rows: int) -> Dict[str, np.ndarray]:
        start = time.monotonic_ns()
        outputs = self._run(inputs)
        self._stats.add("compute_sum_ns", time.monotonic_ns() - start)
        self._stats.add("executions")
        self._stats.add("items", rows)
        return outputs


def _at_once(callback: Callable[..., Any], *arguments: Any) -> None:
    callback(*arguments)


def _finish(jobs: List[Job]) -> None:
    for job in jobs:
        job.done(job)
