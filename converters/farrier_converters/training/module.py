"""An ONNX graph as a torch module: one parameter per weight, and back to ONNX without touching anything else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from farrier_contracts.errors import InputError

from ..graph import run
from ..graph.write_back import write_back
from ..model import Model
from . import slots
from .lowering import Step, execute, lower, tensor
from .ops import host


class OnnxModule(nn.Module):
    """Computes what the graph computes, with gradients, on the device that `to` moves it to.

    There is one parameter per initializer, so that weights used twice stay tied. `parameters_by_name` and
    `state_dict` hold them under the model's own names (dots become underscores). Batch norms learn their statistics
    in `train()`, unless `norms_frozen` is set; a batch size fixed in the file is no limit here.

    `trainable` adds constants to those found by `slots`, `frozen` takes some away. With `scales`, the scales of
    fused quantizers learn too, as binary logarithms: a step is relative to the scale, which stays positive.
    `checkpoints` > 1 cuts the steps into as many segments, whose inner results are computed again for the backward
    pass instead of kept (Chen et al., arXiv 1604.06174). `example` (inputs by name) decides shape-dependent branches.
    Raises InputError for a graph that cannot be trained.
    """

    _anchor: Tensor

    def __init__(
        self,
        model: Model,
        *,
        example: Mapping[str, np.ndarray] | None = None,
        trainable: Collection[str] = (),
        frozen: Collection[str] = (),
        scales: bool = False,
        checkpoints: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        program = lower(model, run.sample(model) if example is None else example)
        self.steps: list[Step] = program.steps
        self.guards = tuple(program.guards)
        self.norms_frozen = False
        self.checkpoints = checkpoints
        self._recomputing = False
        self.attributes: dict[str, str] = {}  # name in the graph -> attribute of the module
        self.logarithmic: set[str] = set()
        # Tells where the module is; integers and what is read as numbers stay on the processor with the shapes.
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        self._fixed: dict[str, Tensor] = {}
        self._copies: dict[
            tuple[str, torch.device], Tensor
        ] = {}  # of those, where data is computed from them
        plain = [(step.name, step.inputs, step.outputs) for step in self.steps]
        self._numbers = host.read_as_numbers(plain, [spec.name for spec in model.outputs])
        self._data = [host.data_inputs(name, inputs) for name, inputs, _ in plain]
        names = [*slots.parameters(program.nodes, program.constants), *trainable]
        learned = {s.inputs[1] for s in self.steps if s.name == "FakeQuantize"} if scales else set()
        wanted = ({*names} | learned) - {*frozen}
        for name, value in program.constants.items():
            self._register(name, value, trains=name in wanted, logarithm=name in learned)
        self._uses = self._last_uses()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._anchor.device

    @property
    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """The parameters under the names of their initializers."""
        found = {name: getattr(self, attribute) for name, attribute in self.attributes.items()}
        return {name: value for name, value in found.items() if isinstance(value, nn.Parameter)}

    def value(self, name: str) -> Tensor:
        """Return the tensor that stands for a constant of the graph."""
        if name in self._fixed:
            return self._fixed[name]
        stored = getattr(self, self.attributes[name])
        return torch.exp2(stored) if name in self.logarithmic else stored

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Return the output, or a tuple of them; inputs in the model's order or by name."""
        specs = [spec.name for spec in self.model.inputs]
        values = self.compute({**dict(zip(specs, inputs, strict=False)), **named})
        results = tuple(values[spec.name] for spec in self.model.outputs)
        return results[0] if len(results) == 1 else results

    def compute(self, feeds: Mapping[str, Tensor], keep: Collection[str] = ()) -> dict[str, Tensor]:
        """Return the outputs, and the inner tensors called `keep`, by name.

        Raises InputError for an input that is missing, or a name that the graph does not hold.
        """
        missing = [spec.name for spec in self.model.inputs if spec.name not in feeds]
        if missing:
            raise InputError(f"the model needs the input {missing[0]!r} too")
        values: dict[str, Any] = dict(feeds)
        if self.checkpoints > 1 and torch.is_grad_enabled():
            self._run_in_segments(values, keep)
        else:
            self.run(values, 0, len(self.steps), keep=keep)
        wanted = dict.fromkeys((*(spec.name for spec in self.model.outputs), *keep))
        return {name: values[name] if name in values else self._stored(name) for name in wanted}

    def _stored(self, name: str) -> Tensor:
        if name not in self._fixed and name not in self.attributes:
            raise InputError(f"the model computes no tensor called {name!r}")
        return self.value(name)

    def run(self, values: dict[str, Any], start: int, stop: int, *, keep: Collection[str] = ()) -> None:
        """Execute some of the steps over named values, forgetting each after its last use unless in `keep`."""
        state = {"training": self.training and not self.norms_frozen, "keep": self._recomputing}
        away = self.device.type != "cpu"
        for position in range(start, stop):
            step = self.steps[position]
            borrowed = [n for n in step.inputs if n and n not in values]
            values.update({name: self.value(name) for name in borrowed})
            moved = self._moved(position, values) if away else None
            if moved:
                left = {name: values[name] for name in moved}
                values.update(moved)
                execute(step, values, **state)
                values.update(left)
            else:
                execute(step, values, **state)
            for name in {*borrowed, *(n for n in self._uses[position] if n not in keep)}:
                values.pop(name, None)

    def write_back(self) -> Model:
        """Return the model with what training changed, and everything else byte for byte as it was."""
        changed: dict[str, np.ndarray] = {}
        for name, attribute in self.attributes.items():
            stored = getattr(self, attribute).detach()
            if not torch.equal(stored.cpu(), self._original[name]):
                changed[name] = self.value(name).detach().cpu().contiguous().numpy()
        return write_back(self.model, changed)

    def _moved(self, position: int, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return copies on the device of what a step reads as data from the processor beside data on the device.

        A step that reads from the processor alone computes with shapes, and stays there. Copies from memory that is
        not pinned are staged before the call returns: nothing waits for the device.
        """
        step, found = self.steps[position], {n: values[n] for n in self._data[position]}
        strays = [n for n, value in found.items() if value.device.type == "cpu"]
        if not strays or len(strays) == len(found):
            return {}
        moved = {}
        for name in strays:
            if name in self._fixed:
                key = (name, self.device)
                if key not in self._copies:
                    self._copies[key] = found[name].to(self.device)
                moved[name] = self._copies[key]
            elif found[name].ndim or step.name not in host.SCALARS:
                moved[name] = found[name].to(self.device, non_blocking=True)
        return moved

    def _register(self, name: str, value: np.ndarray, *, trains: bool, logarithm: bool) -> None:
        stored = tensor(value)
        number = name in self._numbers and not trains
        if number or not (stored.is_floating_point() or stored.dtype == torch.bool):
            self._fixed[name] = stored
            return
        attribute = "".join(c if c.isalnum() else "_" for c in name) or "unnamed"
        while hasattr(self, attribute):
            attribute += "_"
        self.attributes[name] = attribute
        if logarithm and trains:
            self.logarithmic.add(name)
            stored = torch.log2(stored)
        self._original[name] = stored.clone()
        if trains:
            self.register_parameter(attribute, nn.Parameter(stored))
        else:
            self.register_buffer(attribute, stored)

    @property
    def _original(self) -> dict[str, Tensor]:
        return self.__dict__.setdefault("_originals", {})

    def _last_uses(self) -> list[list[str]]:
        """For each step, the values that nothing reads after it."""
        last: dict[str, int] = {}
        for position, step in enumerate(self.steps):
            last.update(dict.fromkeys((*step.outputs, *step.inputs), position))
        wanted = {spec.name for spec in self.model.outputs}
        uses: list[list[str]] = [[] for _ in self.steps]
        for name, position in last.items():
            if name and name not in wanted:
                uses[position].append(name)
        return uses

    def _run_in_segments(self, values: dict[str, Any], keep: Collection[str]) -> None:
        length = -(-len(self.steps) // self.checkpoints)
        for start in range(0, len(self.steps), length):
            stop = min(start + length, len(self.steps))
            names = list(values)

            def segment(
                *tensors: Tensor, a: int = start, b: int = stop, names: list[str] = names
            ) -> dict[str, Any]:
                inner = dict(zip(names, tensors, strict=True))
                self.run(inner, a, b, keep=keep)
                return inner

            found: Any = checkpoint(
                segment, *values.values(), use_reentrant=False, context_fn=self._recomputation
            )
            values.clear()
            values.update(found)

    def _recomputation(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Statistics of batch norms must not move a second time when a segment is computed again."""
        return nullcontext(), self._while_recomputing()

    @contextmanager
    def _while_recomputing(self) -> Iterator[None]:
        self._recomputing = True
        try:
            yield
        finally:
            self._recomputing = False
