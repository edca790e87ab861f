"""What each operator does to the labels of channels: one function per operator, one file per family.

A rule is `rule(site) -> None`. A new operator is one function and one line in its family's table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from ...model import STANDARD_DOMAINS
from ..site import Site
from . import einsum, elementwise, joins, linear, norms, pick, pools, recurrent, shapes

Rule = Callable[[Site], None]
FAMILIES = (linear, einsum, elementwise, norms, pools, shapes, joins, pick, recurrent)
RULES: Mapping[str, Rule] = {name: rule for family in FAMILIES for name, rule in family.RULES.items()}


def rule_of(node: onnx.NodeProto) -> Rule | None:
    """Return the rule of a node's operator, None for one that cannot be followed."""
    return RULES.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
