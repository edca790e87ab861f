"""TensorRT on an NVIDIA GPU: the engine is built here, once, from the bundle's graph and recipe, and then kept."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Mapping, Optional

import numpy as np

from farrier_contracts.bundle import Artifact, Manifest
from farrier_contracts.engine_build import EngineBuild, Profile
from farrier_contracts.errors import BundleError
from farrier_contracts.tensors import DYNAMIC

from .. import EngineSettings
from . import library
from .build import Job, build
from .cuda import Cuda
from .plans import Identity, Plans
from .session import Session, UnreadablePlanError


class TensorRt:
    """One engine with its buffers on the GPU; more rows than it was built for are run in several turns."""

    def __init__(self, session: Session, most_rows: Optional[int] = None) -> None:
        self._session = session
        self._most_rows = most_rows

    @classmethod
    def load(cls, path: Path, manifest: Manifest, artifact: Artifact, settings: EngineSettings) -> TensorRt:
        """Take the engine that was built before for this graph, recipe, library and GPU, or build it.

        Raises BundleError where it cannot be built or is not what the manifest says, MissingToolError without
        TensorRT's Python bindings or CUDA.
        """
        given = artifact.options.get("build")
        recipe = usual(manifest, artifact) if given is None else EngineBuild.from_dict(given)
        runtime, cuda = library.find(), Cuda()
        identity = Identity(
            graph=manifest.parts[artifact.part].sha256,
            recipe=recipe.digest,
            library=f"{runtime.kind} {runtime.version}",
            gpu=cuda.device(),
        )
        plans = Plans(settings.kept_engines, identity, most_bytes=settings.kept_engines_bytes)
        job = Job(path, recipe, runtime)
        kept = plans.get()
        plan = kept or _built(plans, job, settings)
        try:
            session = Session(runtime.module, cuda, plan)
        except UnreadablePlanError as error:
            if kept is None:  # it was built a moment ago
                raise BundleError(f"TensorRT {runtime.version} cannot load what it built: {error}") from None
            plans.forget()
            session = Session(runtime.module, cuda, _built(plans, job, settings))
        try:
            session.check(manifest)
        except BundleError:
            session.close()
            raise
        return cls(session, _most_rows(manifest, recipe))

    @classmethod
    def version(cls) -> str:
        """Return the library's version."""
        return library.find().version

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Copy the inputs to the GPU, run, and copy the outputs back."""
        step = self._most_rows
        rows = len(next(iter(inputs.values()))) if step else 0
        if not step or rows <= step:
            return self._session.run(inputs)
        starts = range(0, rows, step)
        parts = [self._session.run({n: a[i : i + step] for n, a in inputs.items()}) for i in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._session.close()


def usual(manifest: Manifest, artifact: Artifact) -> EngineBuild:
    """Return the recipe for a bundle that brings none: its batch, its precision, and nothing else.

    Raises BundleError where a dimension besides the batch is free.
    """
    profiles = {}
    for spec in manifest.inputs:
        if DYNAMIC in spec.shape[1:]:
            raise BundleError(
                f"a dimension of {spec.name!r} besides the batch is free, and the bundle has no build recipe: "
                "make it with farrier optimize"
            )
        if DYNAMIC in spec.shape:
            one, most = ((rows, *spec.shape[1:]) for rows in (1, manifest.batching.max_batch))
            profiles[spec.name] = Profile(one, one, most)
    precisions = {"fp16": ("fp16",), "int8": ("fp16", "int8")}
    return EngineBuild(profiles, precisions.get(artifact.precision, ()))


def _most_rows(manifest: Manifest, recipe: EngineBuild) -> Optional[int]:
    """Return the most rows of one run, None where the tensors do not all have rows."""
    specs = (*manifest.inputs, *manifest.outputs)
    if not recipe.profiles or not all(spec.shape[:1] == (DYNAMIC,) for spec in specs):
        return None
    return min(profile.most[0] for profile in recipe.profiles.values()) or None


def _built(plans: Plans, job: Job, settings: EngineSettings) -> bytes:
    settings.building(job.recipe.limit_s)
    with plans.making() as scratch:
        return plans.put(build(job, scratch, plans.timing))
