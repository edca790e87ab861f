"""The rule sets that toolchains name: a new one is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from farrier_contracts.errors import UsageError

from ..placement import Fitting, OnnxRules, Parameters, TfliteRules

RULES: dict[str, str] = {  # name -> "module:constant"
    "null": "farrier_converters.check.rules.null:RULES",
    "onnxruntime": "farrier_converters.check.rules.onnxruntime:RULES",
    "coreml": "farrier_converters.check.rules.coreml:RULES",
    "xnnpack": "farrier_converters.check.rules.xnnpack:RULES",
    "ethos-u": "farrier_converters.check.rules.ethos_u:RULES",
    "edgetpu": "farrier_converters.check.rules.edgetpu.rules:RULES",
    "tensorrt": "farrier_converters.check.rules.tensorrt.rules:RULES",
    "dla": "farrier_converters.check.rules.tensorrt.rules:DLA",
}
# those which look at TFLite files; the others look at ONNX graphs
OF_TFLITE = frozenset({"xnnpack", "ethos-u", "edgetpu"})


def of_tflite(name: str) -> TfliteRules:
    """Return the rules over TFLite files called `name`; raises UsageError."""
    return _get(name)


def of_onnx(name: str, parameters: Parameters | None = None) -> OnnxRules:
    """Return the rules over ONNX graphs called `name`, for a board with a toolchain's parameters; raises UsageError."""
    found = _get(name)
    return found.fitted(parameters) if parameters and isinstance(found, Fitting) else found


def _get(name: str) -> Any:
    if name not in RULES:
        raise UsageError(f"no rules say what {name!r} runs where; there are: {', '.join(RULES)}")
    module, _, constant = RULES[name].partition(":")
    return getattr(import_module(module), constant)
