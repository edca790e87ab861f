"""What the rules ask of a board: its release of TensorRT, its GPU, its DLA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LAST_WITH_DLA, DLA_AGAIN = (10, 7), (11, 4)  # there is none in the releases between
XAVIER, ORIN = 72, 87
WITHOUT_INT8 = (53,)  # compute capabilities; torch2trt documentation
INT8_DOUBTFUL = (62,)  # documents contradict each other


@dataclass(frozen=True)
class Board:
    """`release` is TensorRT's, as numbers; `sm` the compute capability times ten, 0 where unknown."""

    release: tuple[int, ...] = (10, 15)
    sm: int = 0
    dla_cores: int = 0

    @staticmethod
    def of(parameters: Mapping[str, str | int | float]) -> Board:
        """Read a toolchain's parameters `tensorrt`, `sm` and `dla_cores`; each may be missing."""
        text = str(parameters.get("tensorrt", ""))
        numbers = tuple(int(part) for part in text.split(".") if part.isdigit())
        default = Board()
        return Board(
            numbers or default.release, int(parameters.get("sm", 0)), int(parameters.get("dla_cores", 0))
        )

    @property
    def name(self) -> str:
        """TensorRT and its release, for sentences."""
        return "TensorRT " + ".".join(map(str, self.release[:2]))

    @property
    def has_dla(self) -> bool:
        """Whether board and release have a DLA."""
        return self.dla_cores > 0 and not LAST_WITH_DLA < self.release[:2] < DLA_AGAIN

    @property
    def dla_takes_quantizers(self) -> bool:
        """Whether graphs with quantizers run on the DLA: before, it wanted ranges from a calibration."""
        return self.release >= DLA_AGAIN
