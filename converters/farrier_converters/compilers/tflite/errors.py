"""Why a part of a graph has no counterpart in a TFLite file: a code that stays, and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from farrier_contracts.errors import InputError

SHOWN = 20  # failures of one graph that its error spells out


class Code(Enum):
    """What is missing. The codes are stable: scripts may look for them."""

    OPERATOR = "TFL001"  # no counterpart of the operator
    ATTRIBUTE = "TFL002"  # a mode, attribute or combination of inputs that has none
    DTYPE = "TFL003"  # an element type that TFLite's kernels do not take
    SHAPE = "TFL004"  # a shape that is only known when the graph runs, or has no elements
    RANK = "TFL005"  # more axes, or fewer, than the kernels take
    VALUE = "TFL006"  # an input that has to be a constant is computed
    ENGINE = "TFL007"  # LiteRT itself refuses the file
    NODE = "TFL008"  # the node contradicts its operator's definition, or the tensors that it reads


class UnsupportedError(ValueError):
    """Raised while one node is lowered; the message is a clause that begins with what is wrong."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Failure:
    """One node that has no counterpart."""

    code: Code
    op: str
    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.code.value} {self.op} {self.name!r}: {self.message}"


class ConversionError(InputError):
    """A graph has no counterpart as a TFLite file; `failures` names every node that is in the way."""

    def __init__(self, model: str, failures: Sequence[Failure]) -> None:
        self.failures = tuple(failures)
        listed = "; ".join(map(str, self.failures[:SHOWN]))
        more = len(self.failures) - SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        super().__init__(f"{model} cannot become a TFLite file: {listed}{rest}")
