"""Graphs with quantizers: which tensors are 8-bit integers, and which operators compute on them."""

from __future__ import annotations

from .conversions import CONVERSIONS
from .lower import lower, why_float
from .normal import normal
from .settle import settle

__all__ = ["CONVERSIONS", "lower", "normal", "settle", "why_float"]
