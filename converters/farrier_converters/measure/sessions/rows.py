"""Artifacts that take one row: a batch is fed row by row, and the answers are put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]


def by_rows(
    run: Callable[[Arrays], dict[str, np.ndarray]], feeds: Arrays, rows: Collection[str]
) -> dict[str, np.ndarray]:
    """Return what `run` makes of every row of the inputs named in `rows`; the others are fed whole each time.

    Raises ValueError where these inputs hold different numbers of rows.
    """
    counts = {len(feeds[name]) for name in rows}
    if counts <= {1}:
        return run(feeds)
    if len(counts) > 1 or counts == {0}:
        raise ValueError(f"inputs of {sorted(counts)} rows cannot be fed row by row")
    answers = [
        run({name: array[row : row + 1] if name in rows else array for name, array in feeds.items()})
        for row in range(counts.pop())
    ]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def arrays_in_order(feeds: Arrays, names: Collection[str]) -> list[np.ndarray]:
    """Return the inputs in the artifact's order, each contiguous; raises ValueError where one is missing."""
    missing = [name for name in names if name not in feeds]
    if missing:
        raise ValueError(f"the input {missing[0]!r} is missing")
    return [np.ascontiguousarray(feeds[name]) for name in names]
