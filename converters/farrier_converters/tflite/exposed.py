"""A network that shows everything it computes: what comparisons of engines, tensor by tensor, run on."""

from __future__ import annotations

from dataclasses import replace

from .file import TfliteFile


def exposed(file: TfliteFile) -> TfliteFile:
    """Return the same network with every computed tensor as an output, and all tensors named by their index.

    Engines free inner tensors and delegates hide them; outputs they must give. Names in a file need not be unique.
    """
    tensors = tuple(replace(tensor, name=str(tensor.index)) for tensor in file.tensors)
    computed = {index for operator in file.operators for index in operator.outputs}
    return replace(file, tensors=tensors, outputs=tuple(sorted(computed)), signatures=())
