"""From an artifact to a bundle: its signature read, its engine tried, its golden outputs computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from farrier_contracts import bundle, targets
from farrier_contracts.bundle import names
from farrier_contracts.errors import InputError, UsageError

if TYPE_CHECKING:
    from farrier_contracts.targets import Target, Toolchain
    from farrier_converters.data import Dataset
    from farrier_converters.measure import ChildSettings
    from farrier_converters.model import Model

    from ..optimization.output.pack import Vectors

FORMATS = {".onnx": "onnx"}
GOLDEN_PART, WARMUP_PART = "golden.npz", "warmup.npz"


@dataclass(frozen=True)
class BuildSettings:
    """What the artifact alone cannot say. `max_batch` is in requests, 1 for one at a time."""

    max_batch: int = 1
    cache_responses: bool = True
    licence: str = ""
    precision: str | None = None  # None: as the graph shows


def build(
    artifact: Path,
    *,
    name: str,
    version: str,
    target: str,
    output: Path,
    golden: Path | None = None,
    settings: BuildSettings = BuildSettings(),
) -> bundle.Manifest:
    """Write a bundle of `artifact` for a target and return its manifest.

    The artifact is loaded in the target's engine, in a process of its own; `golden` is an .npz of rows under the
    model's input names, whose outputs in that engine become the golden ones. Raises InputError, UsageError, and
    FarrierError where the engine cannot run the artifact.
    """
    from farrier_converters import data, model

    names.bundle(name)
    names.version(version)
    board = targets.get(target)
    toolchain = _toolchain(artifact, board)
    if not output.absolute().parent.is_dir():
        raise UsageError(f"the folder {output.parent} does not exist; make it first or give another --out")
    graph = model.load(artifact)
    _refuse_external_data(artifact)
    rows = data.load(golden, graph.inputs) if golden else None
    precision = settings.precision or precision_of(graph)
    memory_bytes, vectors = _try_out(artifact, graph, toolchain, rows, precision)
    part = f"model{artifact.suffix.lower()}"  # the file's own name may be anything
    parts: dict[str, bytes | Path] = {part: artifact}
    if vectors is not None:
        parts |= {GOLDEN_PART: vectors.golden, WARMUP_PART: vectors.warmup}
    manifest = bundle.Manifest(
        name=name,
        version=version,
        inputs=graph.inputs,
        outputs=graph.outputs,
        artifacts=(bundle.Artifact(part, toolchain.format, toolchain.engine, precision, board.name),),
        golden=bundle.Golden(GOLDEN_PART, vectors.atol) if vectors else None,
        warmup=WARMUP_PART if vectors else None,
        batching=bundle.Batching(settings.max_batch),
        cache=bundle.Cache(settings.cache_responses),
        compatibility=bundle.Compatibility(
            arch=() if board.arch == "any" else (board.arch,),
            engines=_lowest_engines(graph, toolchain),
            memory_bytes=memory_bytes,
            accelerators=board.accelerators,
        ),
        licence=settings.licence,
    )
    return bundle.build(output, manifest, parts)


def precision_of(graph: Model) -> str:
    """Return "int8" for a graph that quantizes, what its weights are stored in where it says, else fp16 or fp32."""
    import onnx

    from farrier_converters.weights.marks import weights_precision

    stored = weights_precision(graph.proto)
    if stored == "fp8":  # its quantizers are no integers
        return stored
    if any(
        node.op_type in ("QuantizeLinear", "QLinearConv", "QLinearMatMul") for node in graph.proto.graph.node
    ):
        return "int8"
    if stored is not None:
        return stored
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.proto.graph.initializer)
    return "fp16" if half else "fp32"


def _toolchain(artifact: Path, board: Target) -> Toolchain:
    form = FORMATS.get(artifact.suffix.lower())
    if form is None:
        known = ", ".join(FORMATS)
        raise UsageError(f"{artifact} is of no known artifact format; bundles are built from {known} files")
    for toolchain in board.toolchains:
        if toolchain.format in (form, "null"):
            return toolchain
    takes = ", ".join(toolchain.format for toolchain in board.toolchains)
    raise UsageError(f"the target {board.name} takes {takes} artifacts, not {form}: choose another target")


def _try_out(
    artifact: Path, graph: Model, toolchain: Toolchain, rows: Dataset | None, precision: str
) -> tuple[int, Vectors | None]:
    """Load the artifact in its engine and, with data, run it; return its peak memory and the vectors."""
    from farrier_converters.measure import Child, ChildSettings, EngineFailure

    settings = ChildSettings()
    try:
        with Child(artifact, toolchain.engine, settings) as child:
            if rows is not None:
                child.run(rows.feed(rows.rows[: rows.fixed_batch or 1]))
            memory_bytes = child.peak_bytes()
        return memory_bytes, _vectors(artifact, graph, toolchain, rows, precision, settings=settings)
    except EngineFailure as error:
        raise InputError(f"{artifact} does not run: {error}") from None


def _vectors(
    artifact: Path,
    graph: Model,
    toolchain: Toolchain,
    rows: Dataset | None,
    precision: str,
    *,
    settings: ChildSettings,
) -> Vectors | None:
    from farrier_converters.search import Candidate

    from ..optimization.build import Built
    from ..optimization.output.pack import vectors

    if rows is None:
        return None
    return vectors(Built(Candidate(precision, precision, toolchain), graph, artifact, ()), rows, settings)


def _lowest_engines(graph: Model, toolchain: Toolchain) -> dict[str, str]:
    from farrier_converters.search import Candidate

    from ..optimization.build import Built
    from ..optimization.output.pack import oldest_runtime

    if toolchain.engine != "onnxruntime":
        return {}
    built = Built(Candidate("", "", toolchain), graph, Path(), ())
    return {toolchain.engine: oldest_runtime(built)}


def _refuse_external_data(artifact: Path) -> None:
    import onnx
    from onnx import external_data_helper

    proto = onnx.load(artifact, load_external_data=False)
    if any(external_data_helper.uses_external_data(tensor) for tensor in proto.graph.initializer):
        raise InputError(f"{artifact} keeps weights in other files: save it as one file with onnx.save first")
