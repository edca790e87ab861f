"""Normalizations: scales per channel are cut along; statistics over channels are of those that stay."""

from __future__ import annotations

from ..site import Site
from .pools import apart


def batch(site: Site) -> None:
    """Follow BatchNormalization: four vectors over axis 1."""
    labels = site.along(0, 1)
    for position in range(1, 5):
        site.slot(position, 0, labels, makes=True)
    site.set(site.labels(0))


def instance(site: Site) -> None:
    """Follow InstanceNormalization: statistics over all axes behind the first two."""
    labels = site.labels(0)
    if labels is None:
        return
    for axis in range(2, labels.ndim):
        if labels.shape[axis] > 1:  # a group norm in disguise: each group loses the same channels
            site.units.tie_along(labels, 1)
            site.statistics()
            site.set(labels)
            return
    channels = site.along(0, 1)
    for position in (1, 2):
        site.slot(position, 0, channels, makes=True)
    site.set(labels)


def layer(site: Site) -> None:
    """Follow LayerNormalization and RMSNormalization: statistics over the axes from `axis` on."""
    labels = site.labels(0)
    if labels is None:
        return
    rank = labels.ndim
    first = int(site.attribute("axis", -1)) % rank
    labels = apart(site, labels, range(first, rank))
    axes = [a for a in range(first, rank) if labels.shape[a] > 1]
    for axis in axes[1:]:
        site.units.tie_along(labels, axis)
    if axes:
        site.statistics()
        for position in (1, 2):
            if site.has(position):
                behind = len(site.shape(position)) - (rank - axes[0])
                if behind >= 0 and site.shape(position)[behind] > 1:
                    along = site.along(0, axes[0])
                    site.slot(position, behind, along, makes=True)
    for position in range(len(site.node.output)):  # those behind the first are the statistics
        if position and axes and site.node.output[position]:
            site.freeze(labels, "its statistics are read")
        site.set(labels, position)


def group(site: Site) -> None:
    """Follow GroupNormalization: each group loses the same channels."""
    labels = site.along(0, 1)
    if labels is None:
        return
    groups = int(site.attribute("num_groups"))
    site.units.tie_along(labels.reshape(groups, -1), 0)
    site.statistics()
    for position in (1, 2):
        if site.shape(position)[0] == len(labels):
            site.slot(position, 0, labels, makes=True)
        # before opset 21 there is one scale for each group
    site.set(site.labels(0))


def local(site: Site) -> None:
    """Follow LRN, a sum over neighbouring channels: over those that stay."""
    labels = site.along(0, 1)
    if labels is not None:
        site.statistics()
    site.set(site.labels(0))


RULES = {
    "LRN": local,
    "BatchNormalization": batch,
    "InstanceNormalization": instance,
    "LayerNormalization": layer,
    "RMSNormalization": layer,
    "GroupNormalization": group,
}
