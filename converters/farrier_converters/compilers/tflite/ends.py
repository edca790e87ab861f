"""In which order of axes the file holds its inputs and outputs."""

from __future__ import annotations

from ...graph.edit import Graph, standard
from ...tflite import layout
from ...tflite.layout import Order
from .builder import Builder, Held, Value

IMAGES = (
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
    *("Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "LRN"),
)
CARRIERS = (  # operators that take their input in whatever order it is stored
    *(
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Clip",
        "Relu",
        "LeakyRelu",
        "Sigmoid",
        "Tanh",
        "HardSwish",
        "HardSigmoid",
        "Abs",
    ),
    *("QuantizeLinear", "DequantizeLinear"),
    *("Neg", "Sqrt", "Pow", "Pad", "Cast", "Concat", "Slice", "Split", "BatchNormalization", "PRelu", "Elu"),
)
RANKS = (3, 4, 5)
MAX_STEPS = 64  # readers that are followed from one input


def channels_last(rank: int) -> Order:
    """Return the order that TFLite's kernels for images and sequences take."""
    return (0, *range(2, rank), 1)


def input_order(graph: Graph, value: Value) -> Order:
    """Return channels last where the first operators that care read an image, else the model's own order."""
    if value.rank in RANKS and _reaches_image(graph, value.name):
        return channels_last(value.rank)
    return layout.identity(value.rank)


def _reaches_image(graph: Graph, name: str) -> bool:
    waiting, seen = [name], {name}
    while waiting and len(seen) < MAX_STEPS:
        for node in graph.readers.get(waiting.pop(0), []):
            if standard(node, *IMAGES):
                return True
            if standard(node, *CARRIERS):
                new = [output for output in node.output if output not in seen]
                seen.update(new)
                waiting.extend(new)
    return False


def input_tensor(b: Builder, value: Value, order: Order, *, integers: bool) -> Held:
    """Add the tensor of an input: what the model takes, or, with `integers`, what it rounds its floats to."""
    shape, stored, quanta = layout.permuted(value.shape, order), value, None
    if value.quanta is not None and value.dtype == "float32" and integers:
        stored = value.in_integers()
        quanta = stored.quanta
    elif value.quanta is not None and value.dtype != "float32":
        quanta = value.quanta.raised() if value.dtype == "uint8" else value.quanta
    held = b.tensor(value.name, shape, stored.dtype, quanta=quanta)
    if quanta is not None:
        stored.dtype = "int8"  # whatever came from outside
    b.put(stored, held, order)
    return held


def output_tensor(b: Builder, value: Value, taken: set[int]) -> tuple[Held, Order]:
    """Return the tensor to give out and its order: the model's own unless that would cost a transpose.

    An output is made by an operator of its own: inputs, constants and tensors given out already are copied.
    """
    identity = layout.identity(value.rank)
    order = value.native
    costs = (value.forms or value.integers) and not layout.only_relabels(value.shape, order, identity)
    if not costs or order != channels_last(value.rank):
        order = identity
    held = b.get(value, order)
    if not b.made(held):
        order = identity
        held = b.get(value, order)
    if not b.made(held) or held.index in taken:
        held = b.op(
            "RESHAPE",
            [held, b.integers(layout.emitted(held.shape))],
            held.shape,
            shape=layout.emitted(held.shape),
        )
    return held, order
