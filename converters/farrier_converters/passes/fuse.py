"""Make one operator of several: batch norms and scales into weights, paddings into windows, formulas into operators."""

from __future__ import annotations

from dataclasses import dataclass

from ..fusion import FUSING, NEWER, Log, Refusal, rewrite, would_apply
from ..graph.canonical import canonical
from ..graph.edit import Graph
from ..graph.upgrade import CannotUpgradeError, upgrade
from ..model import Model, opset
from . import Context, Pass


@dataclass(frozen=True)
class FuseOptions:
    """`newest`: the operator set that a graph may be raised to where a rule needs it (0: graphs stay in theirs).

    GELU is an operator since 20, a layer norm since 17. Runtimes on devices may be older than that.
    """

    newest: int = 0


def run(model: Model, options: FuseOptions, context: Context) -> Model:
    """Return an equal graph (to float32 rounding) with fewer nodes; `context.log` hears of each rule applied."""
    model = _raised(model, options.newest, context)
    graph = Graph(model)
    canonical(graph)
    context.tell(rewrite(graph, FUSING))
    return graph.build()


def _raised(model: Model, newest: int, context: Context) -> Model:
    """Return the model in the operator set of the newest rule that fits it."""
    versions = [version for version in sorted(NEWER) if opset(model.proto) < version <= newest]
    if not versions:
        return model
    graph = Graph(model)
    canonical(graph)
    for version in versions:
        rules = NEWER[version]
        if not would_apply(graph, rules, opset=version):
            continue
        try:
            model = upgrade(model, version)
        except CannotUpgradeError as error:
            why = f"it needs operator set {version}, and raising the graph to it failed: {error}"
            context.tell(Log(refusals=[Refusal(rule.name, (), why) for rule in rules]))
    return model


FUSE = Pass("fuse", FuseOptions, run)
