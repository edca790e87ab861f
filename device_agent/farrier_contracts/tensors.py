"""Names and shapes of tensors, as models, bundles and the local API all write them."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InputError

DYNAMIC = -1  # a dimension that each request may choose, as in the Open Inference Protocol

# Open Inference Protocol v2 datatype -> numpy dtype name; BYTES (strings) has no fixed-size numpy dtype.
NUMPY_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
DATATYPES = {numpy_name: datatype for datatype, numpy_name in NUMPY_NAMES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model: `datatype` in Open Inference Protocol words, -1 where free."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the form used in manifests and in the local API's metadata."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    @staticmethod
    def from_dict(document: object) -> TensorSpec:
        """Read `to_dict`'s form back; raises InputError."""
        if not isinstance(document, dict):
            raise InputError("a tensor must be an object with name, datatype and shape")
        name, datatype, shape = (document.get(key) for key in ("name", "datatype", "shape"))
        if not isinstance(name, str) or not name:
            raise InputError("a tensor has no name")
        if not isinstance(datatype, str) or datatype not in (*NUMPY_NAMES, "BYTES"):
            raise InputError(f"tensor {name!r} has an unknown datatype {datatype!r}")
        if not isinstance(shape, list) or not all(type(d) is int and d >= DYNAMIC for d in shape):
            raise InputError(f"tensor {name!r} has a wrong shape {shape!r}")
        return TensorSpec(name, datatype, tuple(shape))

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Say whether an array of this shape fits: the same rank, and each dimension equal or free."""
        return len(shape) == len(self.shape) and all(
            want in (DYNAMIC, have) for want, have in zip(self.shape, shape)
        )
