"""exp(x - max x) / sum exp(x - max x) becomes Softmax, whose engine takes care of large numbers itself."""

from __future__ import annotations

import onnx

from ...graph.edit import attribute, standard
from ..record import Rewrite, Rule
from ..site import Site


def find(site: Site, exp: onnx.NodeProto) -> Rewrite | None:
    """Find the exponential, with or without the maximum taken off before."""
    if site.opset < 13 or not site.floats(exp.output[0]):
        return None
    readers = site.graph.readers.get(exp.output[0], [])
    total = next((n for n in readers if standard(n, "ReduceSum")), None)
    end = next((n for n in readers if standard(n, "Div")), None)
    if total is None or end is None or list(end.input) != [exp.output[0], total.output[0]]:
        return None
    axis = _axis(site, total)
    if axis is None:
        return None
    source, before = exp.input[0], ()
    minus = site.maker(source, "Sub")
    largest = None if minus is None else site.maker(minus.input[1], "ReduceMax")
    if minus is not None and largest is not None and largest.input[0] == minus.input[0]:
        if _axis(site, largest) != axis:
            return None
        source, before = minus.input[0], (largest, minus)
    nodes = (*before, exp, total, end)
    if not site.closed(nodes, [end.output[0]]):
        return None
    return Rewrite(nodes, (site.node("Softmax", [source], end.output, axis=axis),))


def _axis(site: Site, reduction: onnx.NodeProto) -> int | None:
    """Return the one axis of a reduction that keeps its dimensions."""
    axes, rank = site.numbers(reduction, 1, "axes"), site.rank(reduction.input[0])
    if axes is None or len(axes) != 1 or rank is None or not attribute(reduction, "keepdims", 1):
        return None
    return axes[0] % rank


SOFTMAX = Rule("softmax from its formula", ("Exp",), find)
