"""How a device builds an engine of its own from a model: the option `build` of an artifact.

Some engines (TensorRT's) fit one processor and one version of their library alone, so that the device builds them from
a portable graph, by this recipe. A recipe comes from a manifest and is not trusted: every number has a limit.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from .errors import BundleError

PRECISIONS = ("fp16", "int8")
MAX_INPUTS = 256
MAX_RANK = 8
MAX_SIZE = (1 << 31) - 1  # of one dimension
MAX_BYTES = 1 << 40
MAX_CORE = 15
MAX_LIMIT_S = 24 * 3600.0
AGAIN = "build the bundle again"

Shape = Tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """The shapes of one input that an engine takes: from `least` to `most`, and fastest with `best`."""

    least: Shape
    best: Shape
    most: Shape


@dataclass(frozen=True)
class EngineBuild:
    """A recipe.

    `profiles` are of the inputs with free dimensions. `precisions` are what the builder may choose besides float32;
    with `strongly_typed` the graph alone decides, and there are none. `sparse` allows kernels for weights of which two
    in four are zero. `dla_core` is the number of the DLA to use, with `gpu_fallback` for what it cannot. `workspace`
    is in bytes, of the device's memory, while the engine runs; `limit_s` is how long a build may take in seconds, and
    `memory` how many bytes its process may have (0: as many as there are).
    """

    profiles: Mapping[str, Profile] = field(default_factory=dict)
    precisions: Tuple[str, ...] = ()
    strongly_typed: bool = False
    sparse: bool = False
    dla_core: Optional[int] = None
    gpu_fallback: bool = False
    timing_cache: bool = True
    workspace: int = 256 << 20
    limit_s: float = 1800.0
    memory: int = 0

    def to_dict(self) -> Dict[str, Any]:
        """Return the form that a manifest holds."""
        profiles = {
            name: {"least": list(p.least), "best": list(p.best), "most": list(p.most)}
            for name, p in self.profiles.items()
        }
        return {**vars(self), "profiles": profiles, "precisions": list(self.precisions)}

    @property
    def digest(self) -> str:
        """SHA-256 of all that changes the engine, in hex."""
        document = {k: v for k, v in self.to_dict().items() if k not in ("timing_cache", "limit_s", "memory")}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @staticmethod
    def from_dict(document: object) -> EngineBuild:
        """Read `to_dict`'s form back; raises BundleError that names the wrong field."""
        table = _table(document, "the recipe")
        unknown = sorted(set(table) - set(vars(EngineBuild())))
        if unknown:
            raise BundleError(f"the build recipe has an unknown field {unknown[0]!r:.80}: update the agent")
        default = EngineBuild()
        core = table.get("dla_core")
        recipe = EngineBuild(
            profiles={n: _profile(n, p) for n, p in _table(table.get("profiles", {}), "profiles").items()},
            precisions=_precisions(table.get("precisions", [])),
            strongly_typed=_flag(table, "strongly_typed", default=False),
            sparse=_flag(table, "sparse", default=False),
            dla_core=None if core is None else _count(core, "dla_core", MAX_CORE),
            gpu_fallback=_flag(table, "gpu_fallback", default=False),
            timing_cache=_flag(table, "timing_cache", default=True),
            workspace=_count(table.get("workspace", default.workspace), "workspace", MAX_BYTES),
            limit_s=_seconds(table.get("limit_s", default.limit_s)),
            memory=_count(table.get("memory", 0), "memory", MAX_BYTES),
        )
        if recipe.strongly_typed and recipe.precisions:
            raise BundleError(f"the build recipe is strongly typed and names precisions: {AGAIN}")
        return recipe


def _profile(name: str, document: object) -> Profile:
    table = _table(document, f"the profile of {name!r:.80}")
    shapes = [_shape(name, table.get(key)) for key in ("least", "best", "most")]
    profile = Profile(*shapes)
    ordered = all(a <= b <= c for a, b, c in zip(*shapes))
    if set(table) != {"least", "best", "most"} or len({len(s) for s in shapes}) != 1 or not ordered:
        raise BundleError(f"the build recipe's shapes of {name!r:.80} are not least, best and most: {AGAIN}")
    return profile


def _shape(name: str, value: object) -> Shape:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_RANK:
        raise BundleError(f"the build recipe's shapes of {name!r:.80} must be lists of sizes: {AGAIN}")
    return tuple(_count(size, f"sizes of {name!r:.80}", MAX_SIZE) for size in value)


def _precisions(value: object) -> Tuple[str, ...]:
    if not isinstance(value, list) or any(item not in PRECISIONS for item in value):
        raise BundleError(f"the build recipe's precisions must be among {', '.join(PRECISIONS)}: {AGAIN}")
    return tuple(value)


def _flag(table: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = table.get(name, default)
    if not isinstance(value, bool):
        raise BundleError(f"the build recipe's {name} must be true or false: {AGAIN}")
    return value


def _count(value: object, name: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise BundleError(f"the build recipe's {name} must be a whole number up to {most}: {AGAIN}")
    return value


def _seconds(value: object) -> float:
    if type(value) not in (int, float) or not 0 < value <= MAX_LIMIT_S:  # type: ignore[operator]
        raise BundleError(f"the build recipe's limit_s must be seconds up to {MAX_LIMIT_S:g}: {AGAIN}")
    return float(value)  # type: ignore[arg-type]


def _table(value: object, what: str) -> Dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_INPUTS:
        raise BundleError(f"{what} must be an object of at most {MAX_INPUTS} fields: {AGAIN}")
    return value
