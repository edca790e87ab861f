"""LiteRT (TensorFlow Lite) on the processor; inputs are resized to the batch that comes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from farrier_contracts.tensors import DATATYPES, TensorSpec

from ..tflite.ends import End

# option "kernels" -> LiteRT's resolver: XNNPACK with LiteRT's own kernels for the rest, these alone, the plain ones
KERNELS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


class LiteRtSession:
    """One TFLite file in an interpreter; its reference arithmetic is LiteRT's own reference kernels.

    Options: `layouts` and `quantized` of `compilers.Compiled`; `kernels` names one of LiteRT's sets of kernels.
    """

    version = f"litert {ai_edge_litert.__version__}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        options = options or {}
        kernels = options.get("kernels", "reference" if reference else "xnnpack")
        self._interpreter = Interpreter(
            model_path=str(path), num_threads=threads, experimental_op_resolver_type=KERNELS[kernels]
        )
        self._interpreter.allocate_tensors()
        details = [*self._interpreter.get_input_details(), *self._interpreter.get_output_details()]
        self._ends = {
            d["name"]: End.of(d["name"], np.dtype(d["dtype"]).name, d["quantization"], options)
            for d in details
        }
        self.inputs = tuple(map(self._spec, self._interpreter.get_input_details()))

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once."""
        inputs = self._interpreter.get_input_details()
        arrays = {i["name"]: self._ends[i["name"]].stored(feeds[i["name"]]) for i in inputs}
        if any(tuple(i["shape"]) != arrays[i["name"]].shape for i in inputs):
            for i in inputs:
                self._interpreter.resize_tensor_input(i["index"], arrays[i["name"]].shape)
            self._interpreter.allocate_tensors()
        for i in inputs:
            self._interpreter.set_tensor(i["index"], arrays[i["name"]])
        self._interpreter.reset_all_variables()  # a recurrent model's state is not the next row's, as on a device
        self._interpreter.invoke()
        outputs = self._interpreter.get_output_details()
        return {
            o["name"]: self._ends[o["name"]].given(self._interpreter.get_tensor(o["index"])) for o in outputs
        }

    def _spec(self, detail: Mapping[str, Any]) -> TensorSpec:
        end, shape = self._ends[detail["name"]], tuple(map(int, detail["shape_signature"]))
        layout = end.layout or range(len(shape))
        kind = end.dtype if end.scale is None else "float32"
        return TensorSpec(
            detail["name"], DATATYPES[kind], tuple(shape[layout.index(axis)] for axis in range(len(shape)))
        )
