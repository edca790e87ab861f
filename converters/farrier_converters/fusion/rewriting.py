"""Look for rules all over a graph, prove each place, and carry it out."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import onnx

from ..graph.edit import Graph
from ..model import STANDARD_DOMAINS
from .gain import gain
from .proof import UnprovenError, prove
from .record import Application, Log, Refusal, Rewrite, Rule
from .site import Site

MAX_ROUNDS = 8  # each sees the types of what the one before made; real graphs take two or three


def rewrite(graph: Graph, rules: Sequence[Rule], *, newest: int = 0) -> Log:
    """Apply `rules` in their order, over and over until none fits, in place; return what was done and what was not.

    No operator is brought in that is newer than the operator set `newest` (0: than the graph's own).
    """
    newest = min(newest or graph.opset, graph.opset)
    log = Log()
    for _ in range(MAX_ROUNDS):
        done = len(log.applications)
        log.refusals.clear()  # what has no known shape in one round may have one in the next
        graph.nodes = graph.ordered()
        graph.index()
        site = Site(graph, newest=newest)
        for rule in rules:
            _everywhere(site, rule, log)
        if len(log.applications) == done:
            break
    return log


def would_apply(graph: Graph, rules: Sequence[Rule], *, newest: int) -> bool:
    """Say whether any of these rules would do more if operators up to this operator set could be brought in."""
    sites = Site(graph), Site(graph, newest=newest)
    for rule, node in ((rule, node) for rule in rules for node in graph.nodes if _concerns(rule, node)):
        now, then = ([n.op_type for n in found.new] if (found := rule.find(s, node)) else [] for s in sites)
        if now != then:
            return True
    return False


def _everywhere(site: Site, rule: Rule, log: Log) -> None:
    graph = site.graph
    waiting = deque(n for n in graph.nodes if _concerns(rule, n))
    while waiting:
        node = waiting.popleft()
        if not any(graph.producer.get(name) is node for name in node.output if name):
            continue  # it went with an earlier rewrite
        found = rule.find(site, node)
        results = [] if found is None else _results(site, found)
        if found is None or not results:
            continue
        names = tuple(n.name or n.output[0] for n in found.old)
        try:
            proof = prove(site, found, results, exact=rule.exact)
        except UnprovenError as error:
            log.refusals.append(Refusal(rule.name, names, str(error)))
            continue
        log.applications.append(Application(rule.name, names, proof, gain(site, found, results)))
        _carry_out(graph, found)
        waiting.extendleft(n for n in reversed(found.new) if _concerns(rule, n))


def _concerns(rule: Rule, node: onnx.NodeProto) -> bool:
    return node.domain in STANDARD_DOMAINS and (not rule.ops or node.op_type in rule.ops)


def _results(site: Site, found: Rewrite) -> list[str]:
    """Return the results of the old nodes that something else needs."""
    inside = {id(node) for node in found.old}
    names = [name for node in found.old for name in node.output if name]
    graph = site.graph
    return [
        name
        for name in names
        if graph.kept(name) or any(id(reader) not in inside for reader in graph.readers.get(name, []))
    ]


def _carry_out(graph: Graph, found: Rewrite) -> None:
    graph.swap(found.old, found.new)
    for result, source in found.aliases.items():
        if graph.kept(result):
            graph.rename(source, result)
        else:
            graph.redirect(result, source)


def can_alias(graph: Graph, result: str, source: str) -> bool:
    """Say whether readers of `result` can read `source`: a name that an output or a subgraph needs has to stay."""
    if not graph.kept(result):
        return True
    return source in graph.producer and not graph.kept(source) and result not in graph.captured
