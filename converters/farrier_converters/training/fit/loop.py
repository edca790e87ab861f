"""The training loop: epochs, what they reached, and which weights are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from farrier_contracts.errors import InputError, UsageError

from ...metrics import Metric
from ..data import Stream, held_out, repeatable, stream
from ..losses import Loss, task
from ..module import OnnxModule
from ..objective import Hook, Objective, Plain
from . import rate
from .device import threads, tuned
from .history import History
from .judge import Judge, Verdict
from .resume import Checkpoint, capture, restore
from .settings import FitSettings
from .trainer import Trainer

Progress = Callable[[str, float], None]
NOTE = "note: "  # begins what is no stage but a sentence to be read


def fit(
    module: OnnxModule,
    data: Any,
    settings: FitSettings = FitSettings(),
    *,
    objective: Objective | None = None,
    hooks: Sequence[Hook] = (),
    loss: Loss | None = None,
    teacher: OnnxModule | None = None,
    validation: Any = None,
    metric: Metric | None = None,
    work: Path | None = None,
    key: str = "",
    progress: Progress = lambda _stage, _share: None,
) -> History:
    """Train a module in place on a stream, or any iterable of batches (see `data.stream`).

    `objective` says what is minimized. Without one it is `loss(outputs, labels)`, or the one that the labels suggest
    (`losses.Task`); batches without labels learn from `teacher`'s answers then. `hooks` act around each step.

    With `validation` (see `data.held_out`) each epoch is judged by `metric`, or the accuracy where labels are classes,
    or the loss; the best weights are kept, those from before the training included. In the folder `work` a killed
    training finds its last epoch again and ends as if nothing had happened, bit for bit on the processor; `key` tells
    trainings apart that differ in what is not seen here (an objective's own settings).

    The module stays on the device of `settings`. Where the loss or a weight is no longer a number, training stops and
    the best weights so far stay. Raises InputError for data that does not fit, or a loss that is no number in the
    first epoch (the module is as it was then); UsageError for a device or precision that is not there.
    """
    if settings.smoothing and (loss is not None or objective is not None):
        raise UsageError(
            "smoothing is for the loss that labels suggest; a loss of your own smooths its labels itself"
        )
    torch.manual_seed(settings.seed)
    names = [spec.name for spec in module.model.inputs]
    data = stream(data, names)
    for note in getattr(data, "notes", ()):
        progress(NOTE + note, 0.0)
    if settings.patience and validation is None:
        progress(
            f"{NOTE}patience needs validation data; without, all {settings.epochs} epochs are trained", 0.0
        )
    objective = objective or Plain(module, loss or task(module, settings.smoothing), teacher)
    plain = Trainer(module, settings, objective, ())  # for trials, which leave nothing behind
    with tuned(plain.device), threads(settings.threads, lambda: plain.rehearse(data)):
        settings = _tested(plain, data, progress)
        trainer = Trainer(module, settings, objective, hooks)
        judge = None if validation is None else Judge(trainer, held_out(validation, names), metric)
        first = None if work is None else next(iter(data(0)), None)
        training = _Training(trainer, judge, Checkpoint(work, trainer, first, key), progress)
        torch.manual_seed(settings.seed)  # whatever looked at the data before
        training.run(data)
    for hook in hooks:
        hook.finish(module)
    module.eval()
    return training.history


def _tested(trainer: Trainer, data: Stream, progress: Progress) -> FitSettings:
    """Return the settings, with a learning rate that a range test finds safe where one is called for."""
    settings = trainer.settings
    wanted = settings.test_rate
    if not (rate.called_for(trainer.module) and repeatable(data) if wanted is None else wanted):
        return settings
    progress("testing the learning rate", 0.0)
    share = rate.safe_share(trainer, data)
    if share == 1.0:
        return settings
    found = settings.learning_rate * share
    progress(
        f"{NOTE}the learning rate is {found:.2g} instead of {settings.learning_rate:.2g}, with which a range test"
        " saw the loss rise (test_rate = false leaves it out)",
        0.0,
    )
    return replace(settings, learning_rate=found)


class _Training:
    def __init__(
        self, trainer: Trainer, judge: Judge | None, checkpoint: Checkpoint, progress: Progress
    ) -> None:
        self.trainer, self.judge, self.checkpoint, self.progress = trainer, judge, checkpoint, progress
        self.module, self.settings = trainer.module, trainer.settings
        self.history = History()
        self.settled = max((hook.settled for hook in trainer.hooks), default=0.0)
        self.kept = trainer.delivered()  # what is delivered if the next epoch fails
        self.best: Verdict | None = None
        self.latest: Verdict | None = None

    def run(self, data: Stream) -> None:
        """Train from where the checkpoint stands, and leave the weights that are delivered in the module."""
        first = self._resume()
        if first == 0 and self.judge is not None and self.settled == 0:
            self.best = self.latest = self.judge()
            self.history.start, self.history.best = (self.best.loss, self.best.score), -1
        for epoch in range(first, self.settings.epochs):
            if self._patience_is_over():
                break
            started = time.perf_counter()
            mean = self.trainer.epoch(
                data, epoch, lambda share, e=epoch: self.progress(self._words(e), share)
            )
            if mean is None:
                self._diverged(epoch)
                break
            self._record(epoch, mean, time.perf_counter() - started)
            self.checkpoint.save({**capture(self.trainer), **self._state(epoch + 1)})
        self.module.load_state_dict(self.kept)
        if self.history.best == -1:
            self._say("no epoch was better on the validation data than the start, whose weights are kept")

    def _record(self, epoch: int, mean: float, seconds: float) -> None:
        history = self.history
        history.losses.append(mean)
        history.rates.append(self.trainer.optimizers.rate)
        history.seconds.append(seconds)
        latest = self.trainer.delivered()
        if self.judge is None:
            self.kept = latest
            return
        with self._in_place(latest):
            verdict = self.latest = self.judge()
        history.validation_losses.append(verdict.loss)
        if verdict.score is not None:
            history.scores.append(verdict.score)
            history.metric = verdict.metric
        last = epoch + 1 == self.settings.epochs
        counts = (epoch + 1) / self.settings.epochs >= self.settled or last
        if counts and verdict.better(self.best):
            self.best, self.kept, history.best = verdict, latest, epoch
        elif self.best is None:
            self.kept = latest

    def _state(self, epoch: int) -> dict[str, Any]:
        """Return what goes into a checkpoint besides the trainer's state; `epoch` is the one to go on with."""
        state: dict[str, Any] = {"epoch": epoch, "history": self.history.to_dict()}
        for name, verdict in (("best", self.best), ("latest", self.latest)):
            state[name] = None if verdict is None else asdict(verdict)
        if self.judge is not None:
            state["kept"] = self.kept
        return state

    def _resume(self) -> int:
        """Take up what a checkpoint holds; returns the epoch to go on with."""
        saved = self.checkpoint.load()
        if saved is None:
            return 0
        restore(self.trainer, saved)
        self.history = History.of(saved["history"])
        self.best, self.latest = (
            None if saved[name] is None else Verdict(**saved[name]) for name in ("best", "latest")
        )
        self.kept = saved.get("kept") or self.trainer.delivered()
        return saved["epoch"]

    @contextmanager
    def _in_place(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Have these weights in the module meanwhile, where they are not those that train."""
        if self.trainer.average is None:
            yield
            return
        current = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(weights)
        try:
            yield
        finally:
            self.module.load_state_dict(current)

    def _diverged(self, epoch: int) -> None:
        if epoch == 0:
            self.module.load_state_dict(self.kept)
            raise InputError("the loss is not a number from the first epoch on; lower the learning rate")
        which = "best weights" if self.judge is not None else "weights"
        self._say(f"the loss of epoch {epoch + 1} is not a number; the {which} before it are kept")

    def _patience_is_over(self) -> bool:
        best, done = self.history.best, len(self.history.losses)
        if self.settings.patience == 0 or best is None or done - 1 - best < self.settings.patience:
            return False
        self._say(f"stopped after epoch {done}: none of the last {self.settings.patience} was better")
        return True

    def _say(self, note: str) -> None:
        self.history.note = note if self.history.note is None else f"{self.history.note}; {note}"
        self.progress(NOTE + note, 1.0)

    def _words(self, epoch: int) -> str:
        """Return the stage in words; the same throughout an epoch, since each new one is a line in a log."""
        history, words = self.history, f"train, epoch {epoch + 1} of {self.settings.epochs}"
        if history.losses:
            words += f", loss {history.losses[-1]:.4g}"
        if self.latest is not None:
            words += f", {self.latest.words}"
        return words
