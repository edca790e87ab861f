"""Averages of integers. LiteRT has no fast kernel for them, and for depthwise convolutions it has."""

from __future__ import annotations

import numpy as np

from ....tflite import schema
from ..builder import Builder, Value
from ..node import Node
from ..ops.pool import POOL
from ..quanta import HIGHEST, quanta
from ..window import axes_of, image_of, lifted, padding_of, put_image
from .conversions import integers


def lower_average(b: Builder, node: Node, output: Value) -> None:
    """Without padding, a mean is a depthwise convolution with equal weights, exactly: on a processor that is faster.

    Accelerators get the pool, which they have of their own.
    """
    x = node.input(0)
    given = integers(b, x, x.scale)
    axes = lifted(axes_of(node, x.shape, node.attr("kernel_shape"), ceil=bool(node.attr("ceil_mode", 0))))
    if b.integers_only or padding_of(axes) != schema.VALID:
        POOL[node.op](b, node.having((given,), (output,)))
        return
    height, width = axes
    held = image_of(b, given)
    channels = held.shape[-1]
    share = quanta(1 / (HIGHEST * height.kernel * width.kernel))
    sums = quanta(x.scale.scales[0] * share.scales[0])
    inputs = [
        held,
        b.constant(np.full((1, height.kernel, width.kernel, channels), HIGHEST, np.int8), quanta=share),
        b.constant(np.zeros(channels, np.int32), quanta=sums),
    ]
    shape = (held.shape[0], height.out, width.out, channels)
    strides = {"stride_h": height.stride, "stride_w": width.stride}
    result = b.op("DEPTHWISE_CONV_2D", inputs, shape, padding=schema.VALID, multiplier=1, **strides)
    put_image(b, output, result)
