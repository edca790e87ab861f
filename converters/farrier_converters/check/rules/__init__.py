"""The rule sets that toolchains name: a new one is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from farrier_contracts.errors import UsageError

from ..placement import OnnxRules, TfliteRules

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
OF_TFLITE = frozenset(
    {"xnnpack", "ethos-u", "edgetpu"}
)  # those which look at TFLite files; the others look at ONNX graphs


def of_tflite(name: str) -> TfliteRules:
    """Return the rules over TFLite files called `name`; raises UsageError."""
    return _get(name)


def of_onnx(name: str) -> OnnxRules:
    """Return the rules over ONNX graphs called `name`; raises UsageError."""
    return _get(name)


def _get(name: str) -> Any:
    if name not in RULES:
        raise UsageError(f"no rules say what {name!r} runs where; there are: {', '.join(RULES)}")
    module, _, constant = RULES[name].partition(":")
    return getattr(import_module(module), constant)
