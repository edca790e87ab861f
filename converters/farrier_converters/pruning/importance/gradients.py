"""Importance from gradients: `training.importance` gathers the numbers, with PyTorch; here they are looked up."""

from __future__ import annotations

from farrier_contracts.errors import UsageError

from ..group import Groups
from .evidence import Evidence, Reading, Scores


def _given(name: str, groups: Groups, evidence: Evidence) -> Scores:
    if name not in evidence.gradients:
        raise UsageError(f"the importance {name!r} looks at gradients; give training or calibration data")
    return {group.name: evidence.gradients[name][group.name].copy() for group in groups.groups}


def taylor(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """(Sum of gradient times weight)^2, the loss's change to first order, squared, as its mean over batches.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", arXiv 1906.10771, equation 8.
    """
    return _given("taylor", groups, evidence)


def gate(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Mean of |sum of gradient times activation| over rows (Molchanov et al., arXiv 1611.06440, equation 8)."""
    return _given("gate", groups, evidence)


def fisher(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Half the mean over rows of (sum of gradient times activation)^2, the sum being over all layers of the group.

    The diagonal of the Fisher information stands for the Hessian: Liu et al., "Group Fisher Pruning",
    arXiv 2108.00708.
    """
    return _given("fisher", groups, evidence)


def hessian(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Half the sum of weight^2 times mean squared gradient (LeCun et al., "Optimal Brain Damage", 1989)."""
    return _given("hessian", groups, evidence)
