"""ONNX Runtime's own static quantizer, as its guide says: pre-process, then QDQ.

    python ort_static.py MODEL.onnx CALIBRATION.npz OUT.onnx MinMax|Entropy|Percentile

Per-channel s8 weights, u8 activations; everything else is left at its default.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import files
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    def __init__(self, path: Path) -> None:
        self._feeds = iter(files.read(path))

    def get_next(self) -> Any:
        return next(self._feeds, None)


def main(model: str, calibration: str, out: str, method: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        try:
            quant_pre_process(model, ready)
        except (
            Exception
        ):  # its symbolic shape inference gives up on some graphs; its guide says to skip it then
            quant_pre_process(model, ready, skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            out,
            Reader(Path(calibration)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )


if __name__ == "__main__":
    main(*sys.argv[1:5])
