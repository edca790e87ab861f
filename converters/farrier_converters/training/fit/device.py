"""Where training computes: the device, how batches get there, and how many threads of the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farrier_contracts.errors import UsageError


def resolve(name: str) -> torch.device:
    """Return the device of that name, "auto" the best there is; raises UsageError where it is not there."""
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if name == "cuda" and not there:
        raise UsageError("this machine has no CUDA device that PyTorch can use; take device 'cpu' or 'auto'")
    return torch.device(name)


def to_device(value: Any, device: torch.device, *, channels_last: bool = False) -> Tensor:
    """Return an array (or tensor) on the device.

    On an accelerator through pinned memory, so that nothing waits; on the processor with memory of its own.
    """
    given = value if isinstance(value, Tensor) else None
    if given is None and device.type == "cpu":
        given = torch.from_numpy(np.array(value))
    elif given is None:
        given = torch.from_numpy(np.ascontiguousarray(value))
    if device.type != "cpu":
        if device.type == "cuda" and given.device.type == "cpu":
            given = given.pin_memory()
        given = given.to(device, non_blocking=True)
    if channels_last and given.ndim == 4:
        return given.to(memory_format=torch.channels_last)
    return given


def feeds_on(inputs: Mapping[str, Any], device: torch.device, *, channels_last: bool) -> dict[str, Tensor]:
    """Return the inputs of a batch on the device."""
    return {name: to_device(value, device, channels_last=channels_last) for name, value in inputs.items()}


@contextmanager
def threads(wanted: int, probe: Callable[[], None]) -> Iterator[None]:
    """Set the number of threads, by probing for 0: more of them are slower on some machines.

    `probe` does what training does once.
    """
    before = torch.get_num_threads()
    try:
        if wanted:
            torch.set_num_threads(wanted)
        else:
            seconds = {}
            for count in {1, before}:
                torch.set_num_threads(count)
                probe()
                started = time.perf_counter()
                probe()
                seconds[count] = time.perf_counter() - started
            torch.set_num_threads(min(seconds, key=lambda count: seconds[count]))
        yield
    finally:
        torch.set_num_threads(before)
