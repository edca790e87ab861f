"""Which inputs of operators are read as numbers on the processor: shapes, axes, counts and bounds.

What only such inputs read stays on the processor, wherever the module is, so that nothing waits for a device.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

REDUCTIONS = ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")

NUMBERS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Split": (1,),
    "Slice": (1, 2, 3, 4),
    "Expand": (1,),
    "Tile": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "Pad": (1, 2, 3),
    "Resize": (1, 2, 3),
    "Upsample": (1, 2, 3),
    "OneHot": (1,),
    "TopK": (1,),
    "CumSum": (1,),
    "Trilu": (1,),
    "Clip": (1, 2),
    "Dropout": (1, 2),
    "LSTM": (4,),
    "GRU": (4,),
    "RNN": (4,),
    "FakeQuantize": (2,),
    "Guard": (0,),
    **{f"Reduce{kind}": (1,) for kind in REDUCTIONS},
}
SHAPES = ("Shape", "Size")  # read no value at all
# Take a single number on the processor beside tensors on any device.
SCALARS = ("Add", "Sub", "Mul", "Div", "Pow")


def read_as_numbers(
    steps: Sequence[tuple[str, Sequence[str], Sequence[str]]], outputs: Iterable[str]
) -> set[str]:
    """Return the names of which nothing but numbers on the processor comes.

    `steps` are (operator, inputs, outputs) in the order of their execution, `outputs` the graph's.
    """
    used: set[str] = set()
    data: set[str] = set(outputs)
    for name, inputs, made in reversed(steps):
        reads_data = name in SHAPES or any(output in data for output in made)
        for slot, value in enumerate(inputs):
            if value:
                used.add(value)
                if reads_data and slot not in NUMBERS.get(name, ()):
                    data.add(value)
    return used - data


def data_inputs(name: str, inputs: Sequence[str]) -> Collection[str]:
    """Return the inputs of an operator that are to be on one device."""
    numbers = NUMBERS.get(name, ())
    if name in SHAPES:
        return ()
    return tuple(value for slot, value in enumerate(inputs) if value and slot not in numbers)
