"""Core ML: an ML package for Apple's systems, compiled here and run nowhere else.

A package is a folder; the artifact is that folder as a zip, the same bytes every time.
"""

from __future__ import annotations

import json
import tempfile
import uuid
import zipfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from .. import tools
from ..graph.edit import Graph, set_attribute, standard
from ..model import Model
from ..tools.process import call
from . import Compiled
from .exported import exported
from .fixed import names, one_row
from .onnx import stand_in

TOOL = "coreml"
PACKAGE = "model.mlpackage"
MANIFEST = "Manifest.json"
SPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 4122, appendix C: names that are URLs
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry: the earliest that a zip can hold


class CoreMlCompiler:
    """Writes zipped `.mlpackage` folders for iOS 17 and newer; they take one row."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Convert the model, in half precision where its weights are; raises InputError, MissingToolError.

        Quantizers are refused: Core ML Tools do not take every operator between two of them.
        """
        tools.python_of(TOOL)
        if any(standard(node, "QuantizeLinear", "DequantizeLinear") for node in model.proto.graph.node):
            raise InputError("Core ML takes no quantized graph here; give it a float one")
        single, half = widened(model)
        fixed, options = one_row(single)
        path = folder / f"{model.name}.{toolchain.format}"
        with tempfile.TemporaryDirectory() as work:
            package = Path(work) / PACKAGE
            source = exported(fixed, Path(work))
            request = {"source": str(source), "target": str(package), "half": half, **names(model)}
            call(TOOL, request, folder=Path(work))
            _name_items(package / MANIFEST)
            _zip(package, path)
        return Compiled(path, options, runs=stand_in(model, toolchain, folder))


def widened(model: Model) -> tuple[Model, bool]:
    """Return the model with half-precision floats as single ones, and whether it had any."""
    graph = Graph(model)
    half = [name for name, tensor in graph.initializers.items() if tensor.data_type == TensorProto.FLOAT16]
    for name in half:
        value = numpy_helper.to_array(graph.initializers[name]).astype(np.float32)
        graph.initializers[name] = numpy_helper.from_array(value, name)
    for node in graph.nodes:
        if standard(node, "Cast") and any(
            a.name == "to" and a.i == TensorProto.FLOAT16 for a in node.attribute
        ):
            set_attribute(node, "to", TensorProto.FLOAT)
    return graph.build(), bool(half)


def _name_items(path: Path) -> None:
    """Give the package's items identifiers that follow from their paths: Core ML Tools make random ones."""
    manifest = json.loads(path.read_text())
    items = manifest["itemInfoEntries"]
    fixed = {old: str(uuid.uuid5(SPACE, item["path"])) for old, item in items.items()}
    manifest["itemInfoEntries"] = {fixed[old]: item for old, item in items.items()}
    manifest["rootModelIdentifier"] = fixed[manifest["rootModelIdentifier"]]
    path.write_text(json.dumps(manifest, indent=4, sort_keys=True))


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}", EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())
