"""Quantize a vision model to INT8: what it wins, what it loses, and where.

    python examples/vision_model.py optimized
    python examples/vision_model.py optimized --model MODEL.onnx --data EVAL.npz --calib CALIB.npz

Without --model it takes a classifier of handwritten digits that comes with Farrier. The data holds the pictures under
the model's input name, prepared as for training, and their `labels`; without --calib, some of its rows calibrate and
the others are evaluated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import farrier
from farrier.comparison import Comparison
from farrier.optimization import Entry, Result

ASSETS = Path(farrier.__file__).parent / "showcase" / "assets"
SHOWN = 5  # layers


def show(result: Result) -> None:
    """Print each candidate's size, speed and drop, and what was decided."""
    for entry in result.candidates:
        verdict = "delivered" if entry.kept else entry.reason
        print(f"{entry.name:18} {figures(entry):42} {verdict}")
    print(result.verdict)
    for warning in result.warnings:
        print(f"note: {warning}")


def figures(entry: Entry) -> str:
    """Return one candidate's figures, nothing where it could not be measured."""
    if entry.latency is None or entry.metric is None or entry.size_bytes is None:
        return ""
    score = f"{entry.metric_name} {entry.metric:.2%}"
    return f"{entry.size_bytes / 1e3:8.1f} kB {entry.latency.p50_ms:8.3f} ms  {score}"


def show_layers(found: Comparison) -> None:
    """Print the layers that lost most, and why where a cause stands out."""
    print(f"\nlayers that lost most, of {len(found.report['layers'])}:")
    for layer in sorted(found.report["layers"], key=lambda layer: -(layer["share"] or 0))[:SHOWN]:
        error = f"its own error is {layer['own_snr_db']:.0f} dB below its results"
        print(f"  {layer['share'] or 0:6.1%} of the loss  {layer['layer']} ({layer['op']}): {error}")
    for cause in found.report["causes"]:
        print(f"{cause['cause']} in {cause['layer']}: {cause['why']}\n  cure: {cause['cure']}")


def main() -> None:
    """Optimize, then look into what was delivered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for bundle and report")
    parser.add_argument("--model", type=Path, default=ASSETS / "digits.onnx")
    parser.add_argument("--data", type=Path, help="rows to be judged by (.npz)")
    parser.add_argument("--calib", type=Path, help="rows to calibrate with (.npz)")
    parser.add_argument("--max-drop", default="1%", help="how much worse the model may get")
    given = parser.parse_args()
    if given.data is None:
        given.data, given.calib = ASSETS / "digits-eval.npz", ASSETS / "digits-calib.npz"

    result = farrier.optimize(
        given.model,
        data=given.data,
        calib=given.calib,
        precision="int8",
        engine="onnxruntime",  # whose files can be compared layer by layer
        max_drop=given.max_drop,
        out=given.out,
    )
    show(result)
    if result.delivered.name != result.baseline.name:
        show_layers(farrier.compare(given.model, result.artifact, data=given.data))
    print(f"report: {given.out / 'report.html'}")


if __name__ == "__main__":
    main()
