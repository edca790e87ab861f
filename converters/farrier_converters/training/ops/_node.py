"""What a lowering sees of a node, and the types that all lowerings share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor

from farrier_contracts.errors import InputError

from ...graph.edit import attribute

Function = Callable[..., Any]  # tensors (None for an absent input) -> a tensor, or a tuple of them


@dataclass(frozen=True)
class Node:
    """One node with the operator set that gives it its meaning."""

    proto: onnx.NodeProto
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, strings as `str`."""
        value = attribute(self.proto, name, default)
        return value.decode() if isinstance(value, bytes) else value

    @property
    def outputs(self) -> int:
        """How many outputs are asked for."""
        return len(self.proto.output)

    def refuse(self, why: str) -> InputError:
        """Return the error for a form of the operator that is not covered."""
        name = self.proto.name or self.proto.output[0]
        return InputError(f"{self.proto.op_type} {name!r} cannot be trained: {why}")


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which operators compute in the types of their inputs, whatever precision is set."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def ints(value: Any) -> list[int]:
    """Return the integers of an attribute (a list) or of a tensor."""
    return value.tolist() if isinstance(value, Tensor) else [int(v) for v in value]
