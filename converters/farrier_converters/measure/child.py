"""The measuring side of an engine's own process: started, asked, timed out, and always ended."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from farrier_contracts.errors import FarrierError, MissingToolError
from farrier_contracts.tensors import TensorSpec

from ..tools.process import END_LIMIT_S, end, memory_limit, module_command, obituary
from .engines import interpreter
from .frames import Frame, PipeError, receive, send

WORKER = "farrier_converters.measure.worker"


class EngineFailure(FarrierError):
    """An artifact did not load or run: the engine refused it, was ended, or took too long."""


@dataclass(frozen=True)
class ChildSettings:
    """Limits on one engine process."""

    threads: int = 1
    open_limit_s: float = 180.0
    run_limit_s: float = 120.0
    memory_share: float = 0.8  # of the machine's memory


class Child:
    """One artifact in one engine process. Use as a context manager; every method raises EngineFailure.

    With `reference` it computes in the engine's reference arithmetic: slow, and right where kernels saturate.
    `options` are the artifact's own (see `compilers.Compiled`). `python` is the one that has the engine, where that is
    not the one that would be chosen (see `engines.interpreter`).
    """

    def __init__(
        self,
        path: Path,
        engine: str,
        settings: ChildSettings = ChildSettings(),
        *,
        reference: bool = False,
        options: Mapping[str, Any] | None = None,
        python: Path | None = None,
    ) -> None:
        self.python = python
        self.path, self.engine, self.settings, self.reference = path, engine, settings, reference
        self.options = dict(options or {})
        self.engine_version = ""
        self.inputs: tuple[TensorSpec, ...] = ()
        self._words: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process's number while it lives."""
        return self._process.pid if self._process else None

    def open(self) -> None:
        """Start the process and load the artifact."""
        try:
            command = module_command(self.python or interpreter(self.engine), WORKER)
        except MissingToolError as error:
            raise EngineFailure(str(error)) from None
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            bufsize=0,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
        self.load(self.path, options=self.options)

    def load(self, path: Path, *, options: Mapping[str, Any] | None = None) -> None:
        """Load an artifact in the process that runs, in place of the one before."""
        self.path, self.options = path, dict(options or {})
        fields = {
            "op": "open",
            "engine": self.engine,
            "path": str(path.resolve()),
            "threads": self.settings.threads,
            "reference": self.reference,
            "options": self.options,
            "memory_bytes": memory_limit(self.settings.memory_share),
        }
        answer = self._ask(Frame(fields), self.settings.open_limit_s)
        self.engine_version = answer.fields["engine"]
        self.inputs = tuple(TensorSpec.from_dict(item) for item in answer.fields["inputs"])

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once and return the outputs by name, in the artifact's order."""
        return dict(self._ask(Frame({"op": "run"}, feeds), self.settings.run_limit_s).arrays)

    def time(self, feeds: Mapping[str, np.ndarray], calls: int) -> tuple[np.ndarray, int]:
        """Run `calls` times; return the nanoseconds of each and the processor nanoseconds of all."""
        answer = self._ask(Frame({"op": "time", "calls": calls}, feeds), self.settings.run_limit_s)
        return answer.arrays["ns"], int(answer.fields["cpu_ns"])

    def peak_bytes(self) -> int:
        """Return the process's peak resident memory over that of the same process before the artifact."""
        return int(self._ask(Frame({"op": "peak"}), self.settings.run_limit_s).fields["bytes"])

    def close(self) -> None:
        """End the process, whatever it does, and collect it."""
        process, self._process = self._process, None
        if process is not None:
            end(process)
        if self._words is not None:
            self._words.close()

    def _ask(self, frame: Frame, limit_s: float) -> Frame:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EngineFailure("the engine's process was closed")
        try:
            send(process.stdin.fileno(), frame, limit_s=limit_s)
            answer = receive(process.stdout.fileno(), limit_s=limit_s)
        except PipeError as error:
            raise EngineFailure(self._obituary(process, str(error), limit_s)) from None
        if "error" in answer.fields:
            raise EngineFailure(f"{self.engine} refused it: {answer.fields['error']}")
        return answer

    def _obituary(self, process: subprocess.Popen[bytes], error: str, limit_s: float) -> str:
        if error.endswith("in time"):
            process.kill()
            return f"{self.engine} did not answer within {limit_s:g} s"
        try:
            code = process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            return error
        return error if self._words is None else obituary(self.engine, code, self._words)
