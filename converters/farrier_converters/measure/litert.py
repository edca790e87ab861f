"""LiteRT (TensorFlow Lite) on the processor; inputs are resized to the batch that comes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from farrier_contracts.tensors import DATATYPES, TensorSpec


class LiteRtSession:
    """One TFLite file in an interpreter; its reference arithmetic is LiteRT's own reference kernels."""

    version = f"litert {ai_edge_litert.__version__}"

    def __init__(self, path: Path, *, threads: int, reference: bool = False) -> None:
        resolver = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
        self._interpreter = Interpreter(
            model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
        )
        self._interpreter.allocate_tensors()
        self.inputs = tuple(
            TensorSpec(i["name"], DATATYPES[np.dtype(i["dtype"]).name], tuple(map(int, i["shape_signature"])))
            for i in self._interpreter.get_input_details()
        )

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once."""
        inputs = self._interpreter.get_input_details()
        if any(tuple(i["shape"]) != feeds[i["name"]].shape for i in inputs):
            for i in inputs:
                self._interpreter.resize_tensor_input(i["index"], feeds[i["name"]].shape)
            self._interpreter.allocate_tensors()
        for i in inputs:
            self._interpreter.set_tensor(i["index"], feeds[i["name"]])
        self._interpreter.invoke()
        outputs = self._interpreter.get_output_details()
        return {o["name"]: self._interpreter.get_tensor(o["index"]) for o in outputs}
