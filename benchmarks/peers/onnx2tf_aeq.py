"""onnx2tf and then ai-edge-quantizer's static INT8, both at their defaults; in an environment of their own.

python onnx2tf_aeq.py MODEL.onnx CALIBRATION.npz OUT.tflite default     (`make onnx2tf`)
"""

# They live in an environment of their own
# pyright: reportMissingImports=false
from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import files
import numpy as np
import onnx2tf
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe


def main(model: str, calibration: str, out: str, setting: str) -> None:
    feeds = files.read(Path(calibration))
    with tempfile.TemporaryDirectory() as folder:
        onnx2tf.convert(input_onnx_file_path=model, output_folder_path=folder, non_verbose=True)
        (path,) = Path(folder).glob("*_float32.tflite")
        if setting == "default":
            process = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
            process.quantize(process.calibrate(_rows(path, feeds))).export_model(out, overwrite=True)
        else:
            Path(out).write_bytes(path.read_bytes())


def _rows(path: Path, feeds: list[dict[str, np.ndarray]]) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return the rows by signature; images go in as the file holds them, channels last."""
    interpreter = Interpreter(model_path=str(path))
    ((key, signature),) = interpreter.get_signature_list().items()
    shapes = {
        name: detail["shape"]
        for name, detail in interpreter.get_signature_runner(key).get_input_details().items()
    }
    rows = []
    for feed in feeds:
        arrays = dict(zip(signature["inputs"], feed.values(), strict=True))
        rows.append({name: _stored(array, shapes[name]) for name, array in arrays.items()})
    return {key: rows}


def _stored(array: np.ndarray, shape: np.ndarray) -> np.ndarray:
    moved = array.transpose(0, *range(2, array.ndim), 1) if array.ndim > 2 else array
    return moved if moved.shape == tuple(shape) else array


if __name__ == "__main__":
    main(*sys.argv[1:5])
