"""A module of Farrier's in a tool's own process: asked once, limited in time and memory, and always ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import farrier_contracts
from farrier_contracts.errors import InputError

from . import boot, get, python_of

CHILD = "farrier_converters.tools.child"
CHILDREN = "farrier_converters.tools.children"
LAST_WORDS_BYTES = 4096
END_LIMIT_S = 5.0
PACKAGES = (Path(farrier_contracts.__file__).parent, Path(__file__).parent.parent)


@dataclass(frozen=True)
class Limits:
    """On one call of a tool."""

    seconds: float = 900.0
    memory_share: float = 0.8  # of the machine's memory


def module_command(python: Path, module: str) -> list[str]:
    """Return the command that runs a module of Farrier's as a script in `python`."""
    if python == Path(sys.executable):
        return [sys.executable, "-m", module]
    return [str(python), "-I", str(Path(boot.__file__)), module, *map(str, PACKAGES)]


def call(tool: str, request: Mapping[str, Any], *, folder: Path, limits: Limits = Limits()) -> dict[str, Any]:
    """Let the tool's own module among `children` answer a request; what it writes goes into `folder`.

    Raises MissingToolError where the tool is absent; InputError where it refuses, ends, or takes too long.
    """
    module = f"{CHILDREN}.{tool}_child"
    return ask(python_of(tool), module, request, title=get(tool).title, folder=folder, limits=limits)


def ask(
    python: Path, module: str, request: Mapping[str, Any], *, title: str, folder: Path, limits: Limits
) -> dict[str, Any]:
    """Return what `module.answer(request)` says in a process of its own; raises InputError, as `call` does."""
    envelope = {
        "module": module,
        "request": dict(request),
        "memory_bytes": memory_limit(limits.memory_share),
        "seconds": limits.seconds,
    }
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            module_command(python, CHILD),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            cwd=folder,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # so that what the tool starts ends with it
        )
        try:
            said, _ = process.communicate(json.dumps(envelope).encode(), limits.seconds)
        except subprocess.TimeoutExpired:
            raise InputError(f"{title} was not done within {limits.seconds:g} s") from None
        finally:
            end(process)
        return _answer(said, title, process.returncode, words)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own group, with all that it started, and collect it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_LIMIT_S)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def obituary(title: str, code: int, words: IO[bytes]) -> str:
    """Say how a process ended, with the last line that it wrote to stderr."""
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    last = _last_words(words)
    return f"{title}'s process ended {how}" + (f": {last}" if last else "")


def _last_words(words: IO[bytes]) -> str:
    words.seek(max(0, words.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
    lines = words.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""


def memory_limit(share: float) -> int:
    """Return a share of the machine's memory in bytes, 0 (no limit) where that is unknown."""
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * share)
    except (ValueError, OSError):
        return 0


def _answer(said: bytes, title: str, code: int, words: IO[bytes]) -> dict[str, Any]:
    try:
        answer = json.loads(said)
    except ValueError:
        raise InputError(obituary(title, code, words)) from None
    if "error" in answer:
        raise InputError(f"{title} refused it: {answer['error']}")
    return answer["answer"]
