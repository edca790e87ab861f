"""NNCF's post-training quantization, everything at its default; in an environment of its own (`make nncf`).

python nncf_ptq.py MODEL.onnx CALIBRATION.npz OUT.onnx default|mixed
"""

# NNCF lives in an environment of its own
# pyright: reportMissingImports=false
from __future__ import annotations

import sys
from pathlib import Path

import files
import nncf
import onnx


def main(model: str, calibration: str, out: str, preset: str) -> None:
    feeds = files.read(Path(calibration))
    options = {} if preset == "default" else {"preset": nncf.QuantizationPreset.MIXED}
    quantized = nncf.quantize(
        onnx.load(model),
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        target_device=nncf.TargetDevice.CPU,
        **options,
    )
    onnx.save(quantized, out)


if __name__ == "__main__":
    main(*sys.argv[1:5])
