"""ONNX Runtime writes its own format: the graph after its optimizations, as a flatbuffer."""

from __future__ import annotations

from typing import Any

FATAL = 4  # ONNX Runtime's log level


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Convert `source` (ONNX) to `target`; `signed`: for processors whose kernels take signed activations.

    Optimizations go as far as they are the same on every processor: "extended", not the layouts of "all".
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = request["target"]
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.qdqisint8allowed", "1" if request["signed"] else "0")
    onnxruntime.InferenceSession(request["source"], options, providers=["CPUExecutionProvider"])
    return {"version": onnxruntime.__version__}
