"""ExecuTorch lowers an exported program: what XNNPACK takes goes there, the rest to its portable kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Lower `source` (.pt2) to `target` (.pte); says how many operators went where, the slow ones by name."""
    import executorch.kernels.quantized  # pyright: ignore[reportMissingImports]  # noqa: F401  # registers operators
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
        XnnpackPartitioner,
    )
    from executorch.devtools.backend_debug import (  # pyright: ignore[reportMissingImports]
        get_delegation_info,
    )
    from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]

    program = torch.export.load(request["source"])
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    info = get_delegation_info(edge.exported_program().graph_module)
    Path(request["target"]).write_bytes(edge.to_executorch().buffer)
    slow = {
        name: found.non_delegated
        for name, found in info.delegation_by_operator.items()
        if found.non_delegated and name != "getitem"
    }
    return {"partitions": info.num_delegated_subgraphs, "slow": slow}
