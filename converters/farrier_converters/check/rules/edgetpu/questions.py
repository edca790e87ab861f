"""Questions about one operator that the Edge TPU's limits ask; what they return fills the limit's sentence."""

from __future__ import annotations

import math

from ....tflite.versions import first_runtime
from ...site import Site
from .. import common

COMPILER_RUNTIME = (2, 5)  # TensorFlow of mid-2021, when compiler 16.0, the last one, came out
LARGEST_ENLARGEMENT = 8  # 2 was mapped, 33 was not
LARGE_MEAN = 64 * 128  # elements averaged: so many were mapped, 256x128 were not


def newer_than_compiler(site: Site) -> object:
    """Is the operator's definition newer than the compiler?"""
    release = first_runtime(site.operator)
    return release if tuple(map(int, release.split(".")[:2])) > COMPILER_RUNTIME else ""


def outer_dimension(site: Site) -> object:
    """Has an activation more than one element outside of its three innermost dimensions?"""
    shapes = (tensor.shape for tensor in site.activations)
    return next(("x".join(map(str, s)) for s in shapes if math.prod(s[:-3]) > 1), "")


def not_flat(site: Site) -> object:
    """Has the result more than one row?"""
    return math.prod(site.output_shape[:-1]) > 1


def not_zeros(site: Site) -> object:
    """Is a constant joined that is more than a block of zeros?"""
    constants = [tensor for tensor in site.inputs if tensor.data is not None]
    if not constants:
        return False
    if len(site.inputs) != 2:
        return True
    zero_point = int(constants[0].zero_points[0]) if constants[0].zero_points.size else 0
    return bool((constants[0].data != zero_point).any())


def depth_not_of_four(site: Site) -> object:
    """Are channels reduced whose number is no multiple of 4?"""
    shape = site.shape()
    return len(shape) - 1 in site.axes() and len(shape) > 1 and shape[-1] % 4 != 0


def averages_many(site: Site) -> object:
    """Are more elements reduced than was ever seen mapped?"""
    shape = site.shape()
    return math.prod(shape[axis] for axis in site.axes() if axis < len(shape)) > LARGE_MEAN


def enlarges_much(site: Site) -> object:
    """Does it enlarge by more than was ever seen mapped?"""
    factor = common.enlargement(site)
    return f"{factor:g}" if factor > LARGEST_ENLARGEMENT else ""


def enlarges_oddly(site: Site) -> object:
    """Does it enlarge by other than 2?"""
    return common.enlargement(site) not in (1, 2)


def large(limit: int) -> common.Question:
    """Has the result more bytes than that?"""
    return lambda site: common.output_bytes(site) if common.output_bytes(site) > limit else 0


def slope_not_flat(site: Site) -> object:
    """Is there more than one slope for each channel?"""
    return math.prod(site.shape(1)[:-1]) > 1
