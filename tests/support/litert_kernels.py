"""LiteRT's three sets of kernels in this process, for files that we wrote ourselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farrier_converters.tflite.file import TfliteFile
from farrier_converters.tflite.write import write

KERNELS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


def answers(
    file: TfliteFile, rows: list[dict[str, np.ndarray]], kernels: str, folder: Path
) -> list[dict[str, np.ndarray]]:
    """Each row's outputs by name, computed by one of LiteRT's sets of kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = folder / "file.tflite"
    path.write_bytes(write(file))
    resolver = OpResolverType[KERNELS[kernels]]
    engine = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=resolver)
    engine.allocate_tensors()
    found = []
    for feeds in rows:
        engine.reset_all_variables()
        for detail in engine.get_input_details():
            engine.set_tensor(detail["index"], feeds[detail["name"]])
        engine.invoke()
        found.append({d["name"]: engine.get_tensor(d["index"]) for d in engine.get_output_details()})
    return found
