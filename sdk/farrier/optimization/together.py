"""Independent parts of long work, side by side on the host's processors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

WORKERS = 2  # at once: each holds a model's tensors, and what it calls may have threads of its own

T = TypeVar("T")
R = TypeVar("R")


def together(function: Callable[[T], R], items: Iterable[T], *, workers: int = WORKERS) -> list[R]:
    """Return the function's results in the order of the items.

    What one of them raises is raised: the others that have not begun never do, and those at work are not waited for.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        tasks = [pool.submit(function, item) for item in items]
        return [task.result() for task in tasks]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
