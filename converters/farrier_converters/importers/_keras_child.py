"""Runs in a process that has TensorFlow, and imports nothing of Farrier: a Keras or SavedModel becomes float TFLite.

python _keras_child.py MODEL TARGET.tflite
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

MAX_STEPS = 256  # of a recurrent layer that is unrolled; longer ones stay loops, which the importer refuses


def main() -> None:
    """Convert; the last line of stderr is the reason where that fails."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    import tensorflow as tf  # pyright: ignore[reportMissingImports]

    converter = _from_saved_model(tf, source) if source.is_dir() else _from_keras(tf, source)
    target.write_bytes(_named(converter.convert()))


def _from_saved_model(tf: Any, source: Path) -> Any:
    return tf.lite.TFLiteConverter.from_saved_model(str(source))


def _from_keras(tf: Any, source: Path) -> Any:
    """Load a model; layers that hold code of their own are not run (`safe_mode`)."""

    class DepthwiseConv2D(tf.keras.layers.DepthwiseConv2D):
        """Takes what Keras 2 wrote: an option of convolutions that depthwise ones never had."""

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            config.pop("groups", None)
            return super().from_config(config)

    old = {"DepthwiseConv2D": DepthwiseConv2D} if source.suffix.lower() != ".keras" else None
    model = tf.keras.models.load_model(str(source), custom_objects=old, compile=False, safe_mode=True)
    for layer in model.layers:
        inner = getattr(layer, "forward_layer", layer), getattr(layer, "backward_layer", layer)
        for cell in inner:
            if isinstance(cell, tf.keras.layers.RNN) and (layer.input.shape[1] or MAX_STEPS + 1) <= MAX_STEPS:
                cell.unroll = True  # plain operators instead of a loop
    return tf.lite.TFLiteConverter.from_keras_model(model)


def _named(content: bytes) -> bytes:
    """Give inputs and outputs the names of the model's signature instead of those of its graph."""
    from tensorflow.lite.tools import flatbuffer_utils  # pyright: ignore[reportMissingImports]

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    if len(model.signatureDefs or ()) != 1:
        return content
    tensors, signature = model.subgraphs[0].tensors, model.signatureDefs[0]
    fields = [*signature.inputs, *signature.outputs]
    names = [field.name for field in fields]
    if len(set(names)) == len(names):
        for field in fields:
            tensors[field.tensorIndex].name = field.name
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.exit(lines[0] if lines else type(error).__name__)
