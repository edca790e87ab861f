"""How a network becomes smaller and then integers: the orders of passes that are tried, one after the other.

A new one is one function and one line in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from farrier_converters.search import Candidate, Step

from .settings import SmallerSettings

SIZE, LATENCY = "size", "latency"
HARD = 0.5  # share of the labels in the loss of integers that learn; the rest is the original's answers
Cuts = Mapping[str, float]  # of SIZE and LATENCY, how many times less there is to be


@dataclass(frozen=True)
class Order:
    """A way to a smaller network: `shrink(cuts, taught)` gives the passes for some cuts.

    Where nothing will be taught, the passes need not keep what the network knows, only what it costs.
    """

    name: str
    shrink: Callable[[Cuts, bool], tuple[Step, ...]]

    def candidate(
        self,
        cuts: Cuts,
        finish: Candidate,
        settings: SmallerSettings,
        *,
        taught: bool = True,
        trained: bool = False,
    ) -> Candidate:
        """Return the candidate that shrinks, learns from the original, and goes on as the candidate `finish` does.

        Without `taught` nothing learns: it costs the same. With `trained` the integers learn too.
        """
        fit = {"epochs": settings.epochs}
        rest = [step for step in finish.steps if step.name != "clean"]
        if trained:
            learns = {"fit": fit, "hard": HARD}
            rest = [Step("qat", {"int8": dict(s.options), **learns}) for s in rest if s.name == "int8"]
        teach = (Step("distill", {"fit": fit}),) if taught else ()
        size = "-".join(f"{cut:g}x" for cut in cuts.values())
        return replace(
            finish,
            name=f"{self.name}-{size}-{finish.name}{'-qat' if trained else ''}",
            steps=(Step("clean"), *self.shrink(cuts, taught), *teach, *rest),
        )


def prunes(cuts: Cuts, taught: bool) -> tuple[Step, ...]:
    """Return the passes that take out channels and blocks: those that hold parameters, then those that take time."""
    goals = {SIZE: "parameters", LATENCY: "latency"}
    rebuilt = {} if taught else {"rebuild": False}
    return tuple(Step("prune", {goals[what]: round(1 / cut, 4), **rebuilt}) for what, cut in cuts.items())


def leaves_layers_out(cuts: Cuts, _taught: bool) -> tuple[Step, ...]:
    """Return the pass that leaves out repeated layers, whichever of the cuts is the larger one."""
    return (Step("student", {"layers": f"{100 / max(cuts.values()):.0f}%"}),)


ORDERS = (Order("pruned", prunes), Order("shallow", leaves_layers_out))
