"""TFLite files from ONNX graphs, without TensorFlow."""

from __future__ import annotations

from .compiler import TfliteCompiler
from .convert import Lowered, convert, lower_model
from .errors import Code, ConversionError, Failure

__all__ = ["Code", "ConversionError", "Failure", "Lowered", "TfliteCompiler", "convert", "lower_model"]
