"""The Edge TPU's compiler: run where it is installed, its log read, its result held against the prediction."""

from __future__ import annotations

from .compiler import EdgeTpuCompiler
from .log import Log, Status, parse
from .remainder import COMPILED, left_on_cpu

__all__ = ["COMPILED", "EdgeTpuCompiler", "Log", "Status", "left_on_cpu", "parse"]
