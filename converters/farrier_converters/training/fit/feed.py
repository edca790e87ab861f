"""Batches made in the background, so that an accelerator does not wait for the processor."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Full, Queue
from typing import Any

AHEAD = 3  # batches that are made before they are asked for
PATIENCE_S = 0.1  # between looks at whether anybody still wants them


def ahead(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches in order, made by a thread; an error in it is raised here."""
    maker = _Maker(batches)
    thread = threading.Thread(target=maker.run, name="farrier-batches", daemon=True)
    thread.start()
    try:
        while True:
            more, item = maker.queue.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        maker.closed.set()
        thread.join()


class _Maker:
    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.queue: Queue[tuple[bool, Any]] = Queue(AHEAD)  # (there is a batch, the batch or an error)
        self.closed = threading.Event()  # nobody wants more

    def run(self) -> None:
        try:
            for batch in self.batches:
                self._put((True, batch))
                if self.closed.is_set():
                    return
            self._put((False, None))
        except BaseException as error:  # whatever it is belongs to who asked for batches
            self._put((False, error))

    def _put(self, item: tuple[bool, Any]) -> None:
        while not self.closed.is_set():
            try:
                self.queue.put(item, timeout=PATIENCE_S)
                return
            except Full:
                continue
