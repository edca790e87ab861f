"""Real requests for an agent: pictures from the evaluation rows, sent over its local API, answers checked."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..client import Client, InferenceError

if TYPE_CHECKING:
    import numpy as np

PERIOD_S = 0.02
MAX_ROWS = 4  # of one request
RECONNECT_S = 0.2


@dataclass
class Tally:
    """What one driver has sent and seen; `rows` pictures were answered, `right` of them with the true digit."""

    requests: int = 0
    errors: int = 0
    rows: int = 0
    right: int = 0
    last_error: str = ""


class Driver(threading.Thread):
    """Sends requests of one to MAX_ROWS pictures, one after the other, until told to stop."""

    def __init__(
        self, endpoint: str, model: str, images: np.ndarray, labels: np.ndarray, *, seed: int
    ) -> None:
        super().__init__(name=f"driver-{seed}", daemon=True)
        self._endpoint, self._model, self._seed = endpoint, model, seed
        self._images, self._labels = images, labels
        self._stopped = threading.Event()
        self.tally = Tally()

    def stop(self) -> Tally:
        """End after the request under way, and return the tally."""
        self._stopped.set()
        self.join()
        return self.tally

    def run(self) -> None:
        """Send until stopped."""
        import numpy as np

        rng = np.random.default_rng(self._seed)
        with Client(self._endpoint) as client:
            while not self._stopped.wait(PERIOD_S):
                rows = rng.integers(0, len(self._images), rng.integers(1, MAX_ROWS + 1))
                self._send(client, rows)

    def _send(self, client: Client, rows: np.ndarray) -> None:
        self.tally.requests += 1
        try:
            reply = client.infer(self._model, {"image": self._images[rows]})
        except InferenceError as error:
            self.tally.errors += 1
            self.tally.last_error = str(error)
            self._stopped.wait(RECONNECT_S)
            return
        digits = reply.outputs["logits"].argmax(1)
        self.tally.rows += len(rows)
        self.tally.right += int((digits == self._labels[rows]).sum())
