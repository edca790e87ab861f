"""TVM compiles an ONNX file to machine code."""

from __future__ import annotations

from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compile `source` (.onnx) to `target`: a library (.so) for this machine, or objects (.tar) for `triple`.

    Schedules are TVM's defaults: the tuner of 0.27 crashes as soon as it hands a module to its builder.
    """
    import onnx
    from tvm import relax  # pyright: ignore[reportMissingImports]
    from tvm.relax.frontend.onnx import from_onnx  # pyright: ignore[reportMissingImports]

    target = _target(request)
    module = from_onnx(onnx.load(request["source"]), keep_params_in_input=False)
    with target:
        relax.build(relax.get_pipeline("zero")(module), target=target).export_library(request["target"])
    return {}


def _target(request: dict[str, Any]) -> Any:
    import tvm  # pyright: ignore[reportMissingImports]

    own = request["cpu"] == "host"
    cpu = tvm.target.codegen.llvm_get_system_cpu() if own else request["cpu"]
    words = {"kind": "llvm", "mcpu": cpu, "num-cores": 1}
    return tvm.target.Target({**words, "mtriple": request["triple"]} if request["triple"] else words)
