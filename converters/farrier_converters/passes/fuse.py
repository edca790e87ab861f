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
    """`newest`: the newest operator set of which operators may be brought in (0: the graph's own).

    GELU is an operator since 20, a layer norm since 17, hard swish since 14. A graph of an older set is raised where a
    rule needs that. Where the graph's set is newer than what a device's runtime knows, no such operators are made.
    """

    newest: int = 0


def run(model: Model, options: FuseOptions, context: Context) -> Model:
    """Return an equal graph (to float32 rounding) with fewer nodes; `context.log` hears of each rule applied."""
    model = raised(model, options.newest, context)
    graph = Graph(model)
    canonical(graph)
    context.tell(rewrite(graph, FUSING, newest=options.newest))
    return graph.build()


def raised(model: Model, newest: int, context: Context = Context()) -> Model:
    """Return the model in the operator set of the newest rule that fits it, at most `newest`."""
    versions = [version for version in sorted(NEWER) if opset(model.proto) < version <= newest]
    if not versions:
        return model
    graph = Graph(model)
    canonical(graph)
    for version in versions:
        rules = NEWER[version]
        if not would_apply(graph, rules, newest=version):
            continue
        try:
            model = upgrade(model, version)
        except CannotUpgradeError as error:
            why = f"it needs operator set {version}, and raising the graph to it failed: {error}"
            context.tell(Log(refusals=[Refusal(rule.name, (), why) for rule in rules]))
    return model


FUSE = Pass("fuse", FuseOptions, run)
