"""Reading and editing ONNX graphs: edges, types, folding of constants, raising the operator set."""

from .edit import Graph

__all__ = ["Graph"]
