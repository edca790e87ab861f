"""Core ML Tools turn an exported program into an ML package, which only Apple's systems run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PROGRAM = "Data/com.apple.CoreML/model.mlmodel"  # in a package
DATE = "com.github.apple.coremltools.conversion_date"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Convert `source` (.pt2) to the folder `target` (.mlpackage) for iOS 17, tensors under the given names."""
    import coremltools as ct  # pyright: ignore[reportMissingImports]
    import torch

    program = torch.export.load(request["source"]).run_decompositions({})
    precision = ct.precision.FLOAT16 if request["half"] else ct.precision.FLOAT32
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=precision,
        skip_model_load=True,
    )
    spec = model.get_spec()
    for features, names in (
        (spec.description.input, request["inputs"]),
        (spec.description.output, request["outputs"]),
    ):
        for old, new in zip([feature.name for feature in features], names, strict=True):
            ct.utils.rename_feature(spec, old, new)
    ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True).save(request["target"])
    spec.description.metadata.userDefined.pop(DATE, None)
    # Written again in the one order of map entries that is the same every time.
    (Path(request["target"]) / PROGRAM).write_bytes(spec.SerializeToString(deterministic=True))
    return {"version": ct.__version__}
