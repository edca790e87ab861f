"""LiteRT (TensorFlow Lite) on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ai_edge_litert
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from .interpreter import InterpreterSession

# option "kernels" -> LiteRT's resolver: XNNPACK with LiteRT's own kernels for the rest, these alone, the plain ones
KERNELS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


class LiteRtSession(InterpreterSession):
    """One TFLite file in an interpreter.

    Its reference arithmetic is that of TFLite's own kernels, in fixed point, as accelerators and microcontrollers
    compute: the quick ones, since the plain ones take ten times as long.
    Options: `layouts` and `quantized` of `compilers.Compiled`; `kernels` names one of LiteRT's sets of kernels.
    """

    version = f"litert {ai_edge_litert.__version__}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        options = options or {}
        kernels = KERNELS[options.get("kernels", "builtin" if reference else "xnnpack")]
        super().__init__(
            Interpreter(model_path=str(path), num_threads=threads, experimental_op_resolver_type=kernels),
            options,
        )
