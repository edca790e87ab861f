"""Torch modules and exported programs, through torch's own ONNX exporter.

A module or program that a Python program holds is exported where it is (`from_torch`). A file of an exported program
(`.pt2`) is vetted first, since torch would run code that such a file may hold, and is then exported in a process of its
own. Checkpoints hold no graph, only pickles, and are refused.
"""

from .file import read, refuse
from .program import from_torch

__all__ = ["from_torch", "read", "refuse"]
