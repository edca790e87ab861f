"""How the weights of a layer are read: [outputs, inputs, kernel], whatever the order in which ONNX stores them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """A stored constant of `shape` as a cube [outputs, inputs, kernel pixels].

    The constant is transposed by `turned`, reshaped to `split`, and transposed by `order`; that reshapes to the cube.
    `taps` is the kernel's own shape, () for a dense layer. In a convolution of `groups`, outputs come group by group,
    and `inputs` are those of one group. The matrix view [outputs, inputs * kernel] is the cube's last two axes joined:
    a column is one kernel pixel of one input channel, pixels next to each other.
    """

    shape: tuple[int, ...]
    split: tuple[int, ...]
    order: tuple[int, ...]
    outputs: int
    inputs: int
    taps: tuple[int, ...] = ()
    groups: int = 1
    turned: tuple[int, ...] = ()

    @property
    def kernel(self) -> int:
        """The number of kernel pixels, 1 for a dense layer."""
        return math.prod(self.taps)

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    def cube(self, stored: np.ndarray) -> np.ndarray:
        """Return a stored constant as [outputs, inputs, kernel]."""
        used = stored.transpose(self.turned) if self.turned else stored
        return used.reshape(self.split).transpose(self.order).reshape(self.outputs, self.inputs, self.kernel)

    def stored(self, cube: np.ndarray) -> np.ndarray:
        """Undo `cube`: the constant in the order in which the file stores it."""
        split = cube.reshape([self.split[axis] for axis in self.order]).transpose(np.argsort(self.order))
        used_shape = [self.shape[axis] for axis in self.turned] if self.turned else self.shape
        used = split.reshape(used_shape)
        return np.ascontiguousarray(used.transpose(np.argsort(self.turned)) if self.turned else used)


def convolution(shape: tuple[int, ...], groups: int) -> View:
    """Return the view of Conv's weights [outputs, inputs / groups, kernel...]."""
    outputs, inputs, *taps = shape
    return View(
        shape, (outputs, inputs, math.prod(taps)), (0, 1, 2), outputs, inputs, tuple(taps), groups=groups
    )


def transposed_convolution(shape: tuple[int, ...], groups: int) -> View:
    """Return the view of ConvTranspose's weights [inputs, outputs / groups, kernel...]."""
    every, outputs, *taps = shape
    split = (groups, every // groups, outputs, math.prod(taps))
    return View(shape, split, (0, 2, 1, 3), groups * outputs, every // groups, tuple(taps), groups=groups)


def rows(shape: tuple[int, ...], turned: tuple[int, ...] = ()) -> View:
    """Return the view of weights [..., outputs, inputs]: recurrent layers, tables, Gemm with `transB`."""
    used = tuple(shape[axis] for axis in turned) if turned else shape
    outputs = math.prod(used[:-1])
    return View(shape, (outputs, used[-1]), (0, 1), outputs, used[-1], turned=turned)


def columns(shape: tuple[int, ...], turned: tuple[int, ...] = ()) -> View:
    """Return the view of weights [..., inputs, outputs]: MatMul and Gemm."""
    used = tuple(shape[axis] for axis in turned) if turned else shape
    batch = math.prod(used[:-2])
    split = (batch, used[-2], used[-1])
    return View(shape, split, (0, 2, 1), batch * used[-1], used[-2], turned=turned)
