"""Where training computes: the device, how batches get there, and how many threads of the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.tensors import NUMPY_NAMES, TensorSpec

from ...data import SAFE_CASTS


def resolve(name: str) -> torch.device:
    """Return the device of that name, "auto" the best there is; raises UsageError where it is not there."""
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if name == "cuda" and not there:
        raise UsageError("this machine has no CUDA device that PyTorch can use; take device 'cpu' or 'auto'")
    return torch.device(name)


def to_device(value: np.ndarray, device: torch.device) -> Tensor:
    """Return an array on the device.

    On an accelerator by way of pinned memory, so that nothing waits; on the processor with memory of its own.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.array(value))
    given = torch.from_numpy(np.require(value, requirements=("C", "W")))
    if device.type == "cuda":
        given = given.pin_memory()
    return given.to(device, non_blocking=True)


def feeds_on(
    inputs: Mapping[str, np.ndarray],
    specs: Sequence[TensorSpec],
    device: torch.device,
    *,
    channels_last: bool,
) -> dict[str, Tensor]:
    """Return the inputs of a batch on the device, in the types of the model (bytes of pictures travel as bytes).

    Raises InputError for an input that is missing, or of a type or rank that does not fit.
    """
    feeds = {}
    for spec in specs:
        if spec.name not in inputs:
            raise InputError(f"a batch of the training data lacks the input {spec.name!r}")
        value = np.asarray(inputs[spec.name])
        have, want = value.dtype.name, NUMPY_NAMES[spec.datatype]
        if have != want and want not in SAFE_CASTS.get(have, ()):
            raise InputError(f"the input {spec.name!r} is {want}; the training data holds {have}")
        if value.ndim != len(spec.shape):
            shapes = f"{list(spec.shape)} is wanted, {list(value.shape)} is given"
            raise InputError(f"the training data for the input {spec.name!r} does not fit: {shapes}")
        made = to_device(value, device)
        made = made.to(getattr(torch, want)) if have != want else made
        if channels_last and made.ndim == 4:
            made = made.to(memory_format=torch.channels_last)
        feeds[spec.name] = made
    return feeds


@contextmanager
def tuned(device: torch.device) -> Iterator[None]:
    """Let cuDNN look for its fastest convolutions meanwhile: batches are all of one size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


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
