"""Pruning from a goal to a model: groups, importance, allocation, cutting and rebuilding, round after round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice

import numpy as np

from farrier_contracts.errors import InputError

from ..graph import run
from ..graph.edit import Graph
from ..graph.types import infer
from ..model import Model
from . import blocks as whole
from .allocate import Allocation, allocate
from .allocate.costs import Totals
from .allocate.goal import MS, PARAMETERS, Goal, Limits
from .apply import remove
from .blocks.exchange import worths
from .group import Groups, groups_of
from .importance import GRADIENTS, ROWS, importance
from .importance import get as criterion
from .importance.carry import carry
from .importance.evidence import Evidence, Reading, Rows, Scores
from .options import AUTO, PruneOptions
from .rebuild import rebuild
from .separate import separate
from .staircase import Staircase, default, predict, weights, work_of

Gradients = Callable[[Groups, str], Mapping[str, np.ndarray]]
Tune = Callable[[Model], Model]
BLOCK_BATCHES = 2  # of calibration rows, on which blocks are weighed
MADE_UP = 4  # rows on which they are weighed where there are none


@dataclass(frozen=True)
class Resources:
    """What pruning works with: rows for calibration, what gathers gradients, what fine-tunes between rounds.

    `gradients(groups, criterion)` returns one number [units] for each unit, by the name of its group.
    """

    staircase: Staircase | None = None
    rows: Rows | None = None
    gradients: Gradients | None = None
    tune: Tune | None = None
    progress: Callable[[str, float], None] = lambda _stage, _share: None


@dataclass(frozen=True)
class Change:
    """A group before and after: how many of its channels are left, 0 where the block that held it is gone."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Pruned:
    """The pruned model and what it took. `note` says what was not reached, and why."""

    model: Model
    before: Totals
    after: Totals
    changes: tuple[Change, ...]
    blocks: tuple[str, ...]
    importance: str
    reached: bool
    note: str | None = None


def procedure(model: Model, options: PruneOptions, resources: Resources) -> Pruned:
    """Return the pruned model; the errors are those of the pass `prune`."""
    goal = options.goal
    staircase = resources.staircase or default("", "fp32", "")
    job = _Run(options, resources, staircase, _example(model, resources.rows))
    current = separate(model)
    before = totals(current, staircase)
    first = groups_of(current, job.example)
    job.limits = _limits(options, first)
    dropped: list[str] = []
    reached = True
    for number, keep in enumerate(options.steps()):
        groups = first if number == 0 else groups_of(current, job.example)
        now = totals(current, staircase)
        left = min(1.0, _measure(before, goal) * keep / max(_measure(now, goal), 1e-12))
        found = job.round(groups, Goal(goal.measure, left), number)
        reached = found.reached
        current = job.cut(groups, found)
        dropped += [block.name for block in found.blocks]
        if resources.tune is not None and number + 1 < options.rounds:
            current = resources.tune(current)
    after = totals(current, staircase)
    last = {group.name: group.size for group in groups_of(current, job.example).groups}
    changes = tuple(Change(group.name, group.size, last.get(group.name, 0)) for group in first.groups)
    note = None if reached else _short(before, after, goal)
    return Pruned(current, before, after, changes, tuple(dropped), job.criterion, reached, note)


@dataclass(frozen=True)
class _Chosen:
    """What goes in a round: the blocks, and units of the graph without them."""

    groups: Groups
    units: np.ndarray
    blocks: tuple[whole.Block, ...]
    reached: bool


class _Run:
    def __init__(
        self,
        options: PruneOptions,
        resources: Resources,
        staircase: Staircase,
        example: Mapping[str, np.ndarray] | None,
    ) -> None:
        self.options, self.resources, self.staircase, self.example = options, resources, staircase, example
        self.limits = Limits()
        self.criterion = options.importance
        if self.criterion == AUTO:
            self.criterion = "l2" if resources.rows is None else "energy"
            self.criterion = "fisher" if resources.gradients is not None else self.criterion

    def round(self, groups: Groups, goal: Goal, number: int) -> _Chosen:
        options, tell = self.options, self.resources.progress
        base = number / options.rounds
        tell("weighing channels", base)
        blocks = whole.blocks(groups.model, feeds=self.example) if options.blocks else ()
        blocks = tuple(block for block in blocks if not _excluded(_layers(groups, block), options.exclude))

        def told(share: float) -> None:
            tell("choosing channels", base + share / options.rounds)

        scores = self.scores(groups)
        worth = self.worths(groups, goal, scores, blocks)
        found = self.allocate(groups, goal, scores, blocks, worth, told)
        self.limits = self.limits.after(blocks, found.blocks)
        if not found.blocks:
            return _Chosen(groups, found.units, (), found.reached)
        # What two tensors had lost falls together where the block between them goes, on no step of either: channels
        # are chosen once more, from the blocks that are left. What they matter was measured with the blocks: without
        # them and not yet trained again, the model knows little, and its gradients tell less.
        shorter = groups_of(whole.drop(groups.model, found.blocks), self.example)
        dense, now = (_measure(totals(g.model, self.staircase), goal) for g in (groups, shorter))
        keep = goal.keep * dense / max(now, 1e-12)
        if keep >= 1 or not shorter.groups:
            return _Chosen(shorter, np.array([], np.int64), found.blocks, keep >= 1)
        again = self.allocate(shorter, Goal(goal.measure, keep), carry(groups, scores, shorter), (), {}, told)
        return _Chosen(shorter, again.units, found.blocks, again.reached)

    def allocate(
        self,
        groups: Groups,
        goal: Goal,
        scores: Scores,
        blocks: tuple[whole.Block, ...],
        worth: Mapping[int, float],
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Allocation:
        return allocate(
            groups,
            scores,
            goal,
            self.staircase.of_size(weights(groups.model)),
            limits=self.limits,
            scope=self.options.scope,
            blocks=blocks,
            worths=worth,
            progress=progress,
        )

    def scores(self, groups: Groups) -> Scores:
        needs = criterion(self.criterion).needs
        gradients: dict[str, Mapping[str, np.ndarray]] = {}
        if needs == GRADIENTS and self.resources.gradients is not None:
            gradients[self.criterion] = self.resources.gradients(groups, self.criterion)
        evidence = Evidence(
            self.rows if needs == ROWS and self.resources.rows else None, gradients, self.options.seed
        )
        return importance(
            groups, self.criterion, evidence, Reading(self.options.over, self.options.normalize)
        )

    def worths(
        self, groups: Groups, goal: Goal, scores: Scores, blocks: tuple[whole.Block, ...]
    ) -> dict[int, float]:
        """What blocks matter beside channels, on calibration rows or on made-up ones; empty where these do not fit."""
        if not blocks or self.options.scope != "global":
            return {}
        real = self.resources.rows is not None
        rows = (
            list(islice(self.rows(), BLOCK_BATCHES))
            if real
            else [run.sample(groups.model, seed=seed) for seed in range(MADE_UP)]
        )

        def choose(keep: float) -> np.ndarray:
            probe = Goal(goal.measure, max(goal.keep, keep))
            try:
                return self.allocate(groups, probe, scores, (), {}).units
            except InputError:  # so much cannot go
                return np.array([], np.int64)

        try:
            return worths(groups, scores, blocks, choose, rows, progress=self.resources.progress)
        except InputError:
            if real:
                raise
            return {}

    def rows(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Yield batches of calibration rows until there are `options.rows`."""
        seen = 0
        for feeds in self.resources.rows() if self.resources.rows is not None else ():
            yield feeds
            seen += max((len(value) for value in feeds.values() if np.ndim(value)), default=1)
            if seen >= self.options.rows:
                return

    def cut(self, groups: Groups, found: _Chosen) -> Model:
        if not len(found.units) and not found.blocks:
            return groups.model
        removed = remove(found.groups, found.units, example=self.example)
        if not self.options.rebuild or self.resources.rows is None:
            return removed.model
        tell = self.resources.progress
        return rebuild(groups.model, removed.model, removed.stays, self.rows, progress=tell)


def totals(model: Model, staircase: Staircase) -> Totals:
    """Return a model's multiply-adds in layers with weights, its parameters, and its predicted milliseconds."""
    graph = Graph(model)
    shapes = infer(graph.without_weights())
    layers = [work_of(node, graph, shapes) for node in graph.ordered()]
    multiply_adds = sum(
        layer.multiply_adds for layer in layers if layer is not None and layer.kind != "other"
    )
    parameters = sum(
        int(np.prod(tensor.dims))
        for tensor in graph.initializers.values()
        if tensor.data_type in (1, 10, 11, 16)
    )
    return Totals(multiply_adds, parameters, predict(model, staircase))


def _measure(found: Totals, goal: Goal) -> float:
    return {MS: found.ms, PARAMETERS: found.parameters}.get(goal.measure, found.multiply_adds)


def _short(before: Totals, after: Totals, goal: Goal) -> str:
    left = _measure(after, goal) / max(_measure(before, goal), 1e-12)
    return (
        f"{left:.0%} of the {goal.measure} are left, not {goal.keep:.0%}: fewer channels would not make the model "
        "faster on this target; any width removes more"
    )


def _limits(options: PruneOptions, groups: Groups) -> Limits:
    """Return what has to stay; raises InputError for a pattern that meets no layer."""
    names: set[str] = set()
    for pattern in options.exclude:
        met = {g.name for g in groups.groups if _excluded([g.name, *(p.node for p in g.places)], [pattern])}
        met_layers = any(_excluded([layer.name], [pattern]) for layer in groups.layers)
        if not met and not met_layers:
            raise InputError(f"no layer of {groups.model.name} is called {pattern!r}; see --show-groups")
        names |= met
    if options.keep_ends and groups.layers:
        ends = {groups.layers[0].name, groups.layers[-1].name}
        names |= {group.name for group in groups.groups if ends & {place.node for place in group.places}}
    return Limits(
        keep_least=options.keep_least,
        exclude=frozenset(names),
        on_steps=not options.any_width,
        keep_blocks=options.keep_blocks,
        sizes={group.name: group.size for group in groups.groups},
    )


def _excluded(names: Iterable[str], patterns: Iterable[str]) -> bool:
    patterns = tuple(patterns)
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _layers(groups: Groups, block: whole.Block) -> list[str]:
    """Return the names of the layers inside of a block."""
    inner, nodes = set(block.inner), list(Graph(groups.model).nodes)
    return [layer.name for layer in groups.layers if inner & set(nodes[layer.node].output)]


def _example(model: Model, rows: Rows | None) -> dict[str, np.ndarray] | None:
    """Return one row of data, or as many as the model's inputs fix."""
    feeds = None if rows is None else next(rows(), None)
    if feeds is None:
        return None
    found = {}
    for spec in model.inputs:
        if spec.name not in feeds:
            return None
        value = np.asarray(feeds[spec.name])
        found[spec.name] = value[: max(1, spec.shape[0])] if value.ndim and spec.shape else value
    return found
