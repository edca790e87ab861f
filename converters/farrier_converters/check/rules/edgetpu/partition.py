"""The one partition that the Edge TPU's compiler makes."""

from __future__ import annotations

from collections.abc import Sequence

from ....tflite.file import TfliteFile


def first_partition(file: TfliteFile, mapped: Sequence[bool]) -> set[int]:
    """Return the operators of the first partition, by their place in the order of execution.

    TFLite cuts a graph for a delegate into sets of operators that are all supported or all not: each takes in whatever
    hangs on nothing but itself and the sets before it (tensorflow/lite/core/subgraph.cc, graph_info.cc,
    PartitionGraphIntoIndependentNodeSubsets). The compiler makes an operator of the first supported set and leaves the
    rest as it is: operators may come before it, and those of a branch that hangs on no refused one belong to it. So it
    was seen in logs: 60 of YOLOv3's 75 convolutions, all but what hangs on a refused resize (tensorflow issue 42024);
    all 203 of YOLOv9's beside refused transposes and gathers of its heads (dbro/frigate-detector-edgetpu-yolo9).
    """
    makers = {name: operator.index for operator in file.operators for name in operator.outputs}
    done: set[int] = set()
    kind = bool(mapped and mapped[0])
    while len(done) < len(mapped):
        chosen: set[int] = set()
        for operator in file.operators:  # in order of execution: makers come before readers
            waiting = {makers[name] for name in operator.inputs if name in makers}
            ready = all(i in done or i in chosen or i >= operator.index for i in waiting)
            if operator.index not in done and mapped[operator.index] == kind and ready:
                chosen.add(operator.index)
        if kind or not chosen:
            return chosen
        done |= chosen
        kind = True
    return set()
