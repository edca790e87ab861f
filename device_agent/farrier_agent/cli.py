"""The command that a device runs: `farrier-agent run | infer | check | status | version`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Callable, Mapping, NoReturn, Optional, Sequence

from farrier_contracts import __version__
from farrier_contracts.errors import FarrierError

INTERRUPTED = 130
NOT_RUNNING = 3  # exit code of `status`, as service managers use it


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command and return its exit code; `arguments` default to the process's own."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except FarrierError as error:
        sys.stderr.write(f"farrier-agent: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if getattr(options, "verbose", False):
            raise
        sys.stderr.write(
            f"farrier-agent: {type(error).__name__}: {error} (a fault of the agent; see --verbose)\n"
        )
        return 1


def _run(options: argparse.Namespace) -> int:
    from . import config
    from .supervisor import loop

    return loop.run(config.load(options.config), log=_log)


def _infer(options: argparse.Namespace) -> int:
    from .infer import infer

    _print(json.dumps(infer(options.bundle, options.input, options.output), indent=2))
    return 0


def _check(options: argparse.Namespace) -> int:
    from .infer import check

    _print(json.dumps(check(options.bundle), indent=2))
    return 0


def _status(options: argparse.Namespace) -> int:
    from . import config
    from .supervisor import lock, remembered

    state = config.load(options.config).state
    pid = lock.holder(state)
    version, slots = remembered.load(state / "deployments.json")
    deployments = [
        {"name": name, "wanted": slot.wanted and vars(slot.wanted), "good": slot.good and slot.good.digest}
        for name, slot in sorted(slots.items())
    ]
    _print(json.dumps({"process": pid, "desired_version": version, "deployments": deployments}, indent=2))
    return 0 if pid else NOT_RUNNING


def _version(_options: argparse.Namespace) -> int:
    _print(__version__)
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "infer": _infer,
    "check": _check,
    "status": _status,
    "version": _version,
}


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _log(sentence: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {sentence}\n")
    sys.stderr.flush()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"farrier-agent: {message}; see '{self.prog} --help'\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="farrier-agent", description="Runs model bundles on this device.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve what the fleet wants, until SIGTERM")
    status = commands.add_parser("status", help="what runs, from the state folder")
    for command in (run, status):
        command.add_argument("--config", type=Path, required=True, help="the configuration, a TOML file")
    run.add_argument("--verbose", action="store_true", help="tracebacks of the agent's own faults")
    infer = commands.add_parser("infer", help="run a bundle once on the arrays of a file")
    check = commands.add_parser(
        "check", help="verify a bundle, its fitness for this device and its golden vectors"
    )
    for command in (infer, check):
        command.add_argument("bundle", type=Path, help="a bundle file")
    infer.add_argument("--input", type=Path, required=True, help="an .npz with an array per input")
    infer.add_argument("--output", type=Path, help="an .npz to write the outputs to")
    commands.add_parser("version", help="the agent's version")
    return parser
