"""What `edgetpu_compiler -s` says, as data.

Source: logs of compilers 2.0 to 16.0 in google-coral/edgetpu issues 13, 317, 322, 356, 433, 439 and 512.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAPPED = "Mapped to Edge TPU"
# the compiler's words -> ours; what is not here is passed on as it is
REASONS = {
    "More than one subgraph is not supported": "it comes after an operator that stays on the processor",
    "Operation not supported": "the Edge TPU does not have it",
    "Operation version not supported": "its definition is newer than the compiler",
    "Operation is working on an unsupported data type": "it works on a type that the Edge TPU does not compute in",
    "Tensor has unsupported rank (up to 3 innermost dimensions mapped)": "a tensor has more than three dimensions",
    "Filter, bias, or other param is not constant at compile-time": "its weights or bias are computed",
    "Operation is otherwise supported, but not mapped due to some unspecified limitation": (
        "of its size, memory or precision: the compiler does not say which"
    ),
}
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = r"([\d.]+)\s*(B|KiB|MiB|GiB)\b"
_ROW = re.compile(r"^([A-Z][A-Z0-9_]*|[A-Za-z][\w.-]*)\s{2,}(\d+)\s{2,}(\S.*?)\s*$")


@dataclass(frozen=True)
class Status:
    """So many operators of one name that fared alike. `reason` is None where they were mapped."""

    op: str
    count: int
    text: str

    @property
    def reason(self) -> str | None:
        """Why not, in plain words."""
        return None if self.text == MAPPED else REASONS.get(self.text, self.text)


@dataclass(frozen=True)
class Log:
    """Sizes are in bytes; None is what the log does not say. `failure` is its line where nothing was compiled."""

    version: str | None
    statuses: tuple[Status, ...]
    mapped: int | None
    unmapped: int | None
    subgraphs: int | None
    cache_used: int | None
    cache_left: int | None
    streamed: int | None
    failure: str | None


def parse(text: str) -> Log:
    """Read a log; lines that mean nothing here are passed over."""
    statuses = [Status(m[1], int(m[2]), m[3]) for m in map(_ROW.match, text.splitlines()) if m]
    version = re.search(r"Edge TPU Compiler version (\S+)", text)
    return Log(
        version[1] if version else None,
        tuple(statuses),
        _count(r"Number of operations that will run on Edge TPU", text, _sum(statuses, mapped=True)),
        _count(r"Number of operations that will run on CPU", text, _sum(statuses, mapped=False)),
        _count(r"Number of Edge TPU subgraphs", text, None),
        _size("On-chip memory used for caching model parameters", text),
        _size("On-chip memory (?:remaining|available) for caching model parameters", text),
        _size("Off-chip memory used for streaming uncached model parameters", text),
        _failure(text),
    )


def _sum(statuses: list[Status], *, mapped: bool) -> int | None:
    if not statuses:
        return None
    return sum(status.count for status in statuses if (status.reason is None) == mapped)


def _count(words: str, text: str, default: int | None) -> int | None:
    found = re.search(rf"{words}:\s*(\d+)", text)
    return int(found[1]) if found else default


def _size(words: str, text: str) -> int | None:
    found = re.search(rf"{words}:\s*{_SIZE}", text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def _failure(text: str) -> str | None:
    """Return the first line that says why nothing came of it; the last words "Compilation failed!" say the least."""
    lines = [line.strip() for line in text.splitlines()]
    pattern = re.compile(r"^(ERROR:|Invalid model|Internal compiler error|Compilation failed)", re.IGNORECASE)
    failures = [line for line in lines if pattern.match(line)]
    telling = [line for line in failures if line != "Compilation failed!"]
    return (telling or failures or [None])[0]
