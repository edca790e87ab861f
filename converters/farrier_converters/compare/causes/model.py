"""The vocabulary of the drop report: what is known of a layer, what was found, and what cures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..sketch import Cost

WEIGHT_OUTLIER = "weight outlier channel"
ACTIVATION_OUTLIER = "activation outlier"
SATURATION = "saturation"
WEIGHT_SATURATION = "weight saturation"
CLASH = "scale clash"
DEAD_RANGE = "dead range"
THIN_CALIBRATION = "too little calibration data"
PREPROCESSING = "preprocessing mismatch"
DAMAGED_SCALE = "damaged scale"
DAMAGED_ZERO_POINT = "damaged zero point"
BIAS_OVERFLOW = "bias overflow"
BIAS_DAMAGED = "damaged bias"
PAIR_SATURATION = "16-bit saturation"
SENSITIVE = "sensitive layer"


@dataclass(frozen=True)
class Place:
    """Where: the tensor's name in A, the node of B that makes it and its operator, and its share (0..1) of the loss."""

    tensor: str
    node: str
    op: str
    share: float = 0.0


@dataclass(frozen=True)
class Cure:
    """What to do, in words, and as changes to the INT8 recipe that `farrier compare --apply` makes.

    `methods` maps tensors to range methods, `exclude` names nodes that stay in float.
    """

    text: str
    methods: Mapping[str, str] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    per_channel: bool = False
    equalize: bool = False
    weight_bits: int | None = None


@dataclass(frozen=True)
class Finding:
    """One cause at one place. `weight` (0..1): the part of the loss that it explains; `numbers` is what it rests on."""

    cause: str
    place: Place
    weight: float
    why: str
    cure: Cure
    numbers: Mapping[str, float]

    def to_document(self) -> dict[str, Any]:
        """Return the form of `compare --json`."""
        return {
            "cause": self.cause,
            "layer": self.place.node or self.place.tensor,
            "tensor": self.place.tensor,
            "op": self.place.op,
            "share": round(self.place.share, 4),
            "weight": round(self.weight, 4),
            "why": self.why,
            "cure": self.cure.text,
            "changes": {k: v for k, v in asdict(self.cure).items() if k != "text" and v},
            "numbers": {k: float(f"{v:.4g}") for k, v in self.numbers.items()},
        }


@dataclass(frozen=True)
class ActivationFacts:
    """A quantized activation: the range that it has and the one that fits, what each costs, and what the data holds.

    Ranges are in real numbers and hold zero. `own` is the layer's own squared error, in the units of the costs.
    `channel_bounds`: the largest magnitude per channel.
    """

    place: Place
    extent: tuple[float, float]
    levels: int
    cost: Cost
    best: tuple[float, float]
    best_cost: Cost
    data: tuple[float, float]
    bulk: float  # the magnitude that 99.9 % of the values stay below
    own: float
    back_ratio: float = 1.0  # scale of the way back over that of the way there
    back_shift: float = 0.0  # zero point of the way back minus that of the way there
    is_input: bool = False
    channel_bounds: np.ndarray | None = None
    clips: bool = False  # its range has to do what a Relu or Clip did
    readers: tuple[str, ...] = ()  # nodes that compute from it
    behind: float = 0.0  # share (0..1) of the loss that the weights of these nodes make

    @property
    def ratio(self) -> float:
        """How many times the least possible error this range makes."""
        return self.cost.total / max(self.best_cost.total, 1e-300)

    @property
    def explained(self) -> float:
        """The part of the layer's own error that a fitting range would not make."""
        return float(np.clip((self.cost.total - self.best_cost.total) / max(self.own, 1e-300), 0, 1))


@dataclass(frozen=True)
class WeightFacts:
    """Stored weights against the float ones, along the axis of independent results (all arrays: one per channel).

    `error` is a squared sum, `signal` one around the mean, `ideal` the error with a scale per channel in the same
    integers, `slope` and `offset` the least-squares line from float to stored, `bound` the largest float magnitude,
    `steps` the largest stored integer, `clipped` the share of values at the limit. `part`: of the layer's own error.
    """

    place: Place
    name: str
    per_channel: bool
    error: np.ndarray
    ideal: np.ndarray
    signal: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    bound: np.ndarray
    steps: np.ndarray
    clipped: np.ndarray
    step: np.ndarray
    size: int = 1  # values of one channel
    part: float = 1.0


@dataclass(frozen=True)
class BiasFacts:
    """A stored bias against the float one; `expected_scale` is that of the accumulator, where it is known.

    `drift`: the mean error of the layer's results per channel, as B runs; a bias may differ to keep that small.
    """

    place: Place
    name: str
    stored: np.ndarray
    wanted: np.ndarray | None
    scale: np.ndarray
    expected_scale: np.ndarray | None
    at_limit: int  # how many integers are the largest there are
    spread: float  # root mean square of the layer's results
    part: float = 1.0
    drift: np.ndarray | None = None


@dataclass(frozen=True)
class JoinFacts:
    """An Add or Concat: its branches, the range of its result, and whether the branches share one scale."""

    place: Place
    branches: tuple[ActivationFacts, ...]
    shared: bool
    powers: tuple[float, ...]  # mean square of each branch
    result_step: float | None  # of the result's quantizer
    readers: tuple[str, ...] = ()  # nodes that compute from the result
