"""The process that builds: `builder ORDER`, through TensorRT's Python API or as another program.

An order is a JSON object: the bundle's graph `source`, the paths `graph` (to be written as the `release` wants it),
`plan` and `timing` (or null), the `recipe`, and `program`: the command to become, empty for the Python API. Exit code 0
when the plan is written. Source: NVIDIA, "TensorRT Python API", Builder, BuilderConfig and OnnxParser, releases 8.0 to
11.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Dict

from farrier_contracts.engine_build import EngineBuild
from farrier_contracts.errors import BundleError, FarrierError

from . import library, weights

EXPLICIT_BATCH_UNTIL = (10,)  # from here on every network has one
STRONG_TYPES_ALONE = (11,)


def main() -> int:
    """Build and return the exit code; the last line on stderr says what went wrong."""
    order = json.loads(sys.argv[1])
    try:
        prepare(Path(order["source"]), Path(order["graph"]), library.numbers(order["release"]))
        if order["program"]:
            os.execv(order["program"][0], order["program"])
        build(library.find().module, order, EngineBuild.from_dict(order["recipe"]))
    except FarrierError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def prepare(source: Path, graph: Path, version: tuple[int, ...]) -> None:
    """Put the graph where the builder reads it, with weights as its release takes them; raises BundleError."""
    if version >= weights.STORED_FROM:
        graph.symlink_to(source.absolute())
    else:
        graph.write_bytes(weights.as_floats(source.read_bytes()))


def build(trt: Any, order: Dict[str, Any], recipe: EngineBuild) -> None:
    """Write the engine to `order["plan"]`; raises BundleError."""
    version = library.numbers(trt.__version__)
    logger = library.logger(trt, trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt, recipe, version))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(order["graph"]):
        reasons = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
        raise BundleError(f"the graph is refused: {(reasons or ['no reason given'])[0].splitlines()[0]}")
    config = _config(trt, builder, recipe, version)
    _set_profiles(builder, config, recipe)
    cache = _timing_cache(config, order["timing"]) if order["timing"] else None
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BundleError("the builder gave up: its log says why")
    Path(order["plan"]).write_bytes(bytes(plan))
    if cache is not None:
        Path(order["timing"]).write_bytes(bytes(config.get_timing_cache().serialize()))


def _network_flags(trt: Any, recipe: EngineBuild, version: tuple[int, ...]) -> int:
    flags = 0
    kinds = trt.NetworkDefinitionCreationFlag
    if version < EXPLICIT_BATCH_UNTIL:
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    if recipe.strongly_typed:
        if hasattr(kinds, "STRONGLY_TYPED"):
            flags |= 1 << int(kinds.STRONGLY_TYPED)
        elif version < STRONG_TYPES_ALONE:
            raise BundleError(f"TensorRT {trt.__version__} knows no strongly typed networks: build for it")
    return flags


def _config(trt: Any, builder: Any, recipe: EngineBuild, version: tuple[int, ...]) -> Any:
    config = builder.create_builder_config()
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace)
    else:  # before 8.4
        config.max_workspace_size = recipe.workspace
    for name in recipe.precisions:
        if not hasattr(trt.BuilderFlag, name.upper()):
            raise BundleError(f"TensorRT {trt.__version__} takes types from the graph alone: build for it")
        config.set_flag(getattr(trt.BuilderFlag, name.upper()))
    if recipe.sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if recipe.dla_core is not None:
        if recipe.dla_core >= builder.num_DLA_cores:
            raise BundleError(
                f"this device has {builder.num_DLA_cores} DLA cores, not number {recipe.dla_core}"
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = recipe.dla_core
    if recipe.gpu_fallback:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    return config


def _set_profiles(builder: Any, config: Any, recipe: EngineBuild) -> None:
    if recipe.profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in recipe.profiles.items():
            profile.set_shape(name, shapes.least, shapes.best, shapes.most)
        config.add_optimization_profile(profile)


def _timing_cache(config: Any, path: str) -> Any:
    """Let the builder measure no kernel twice; what another release or GPU measured it does not take."""
    known = Path(path).read_bytes() if Path(path).exists() else b""
    cache = config.create_timing_cache(known)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


if __name__ == "__main__":
    sys.exit(main())
