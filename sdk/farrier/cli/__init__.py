"""The `farrier` command: a literal table of commands, each loaded on use, and one place for errors."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from farrier_contracts import __version__
from farrier_contracts.errors import FarrierError

# name -> ("module:command", the line that `farrier --help` shows without importing the module)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("farrier.cli.demo:demo", "Run the whole loop on this machine."),
    "targets": ("farrier.cli.targets:targets", "List what a model can be fitted to."),
    "check": ("farrier.cli.check:check", "Say what will run where on a target, and why not."),
    "optimize": ("farrier.cli.optimize:optimize", "Fit a model to a target within a budget."),
    "distill": ("farrier.cli.compression.distill:distill", "Teach a small model what a large one knows."),
    "prune": (
        "farrier.cli.compression.prune:prune",
        "Remove what a model can do without, where that makes it faster.",
    ),
    "bench": ("farrier.cli.bench:bench", "Measure a model or bundle on this machine."),
    "compare": ("farrier.cli.compare:compare", "Say where two models differ, and why."),
    "bundle": ("farrier.cli.bundle:bundle", "Build, inspect, verify and compare bundles."),
    "repo": ("farrier.cli.repo:repo", "Keep a signed update repository."),
    "flash": ("farrier.cli.flash:flash", "Install the agent on a device over SSH."),
    "fleet": ("farrier.cli.fleet:fleet", "See and steer a fleet of devices."),
    "collect": ("farrier.cli.collect:collect", "Store a fleet's telemetry."),
    "dashboard": ("farrier.cli.dashboard:dashboard", "Show a fleet in the browser."),
}
TRACEBACK_VARIABLE = "FARRIER_TRACEBACK"
INTERRUPTED = 130  # exit code: 128 + SIGINT, as shells have it


class LazyCommands(click.Group):
    """A click group over `COMMANDS` that imports a command's module when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order, which is the order of the workflow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="farrier")
def cli() -> None:
    """Optimize models for edge devices, deploy them to fleets, and see what they really do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` default to the process's own."""
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments), prog_name="farrier", standalone_mode=False
        )
    except click.ClickException as error:
        return _report_usage(error)
    except (KeyboardInterrupt, click.Abort):
        return _report_interrupt()
    except Exception as error:
        return _report_interrupt() if _interrupted(error) else _report(error)
    return code if isinstance(code, int) else 0


def script() -> int:
    """Run the process's command and return its exit code, as the last thing that this process does.

    While Python ends, it gives signals back to the system: an interrupt then would kill a process that has written and
    said all, and its exit code would say that it had failed.
    """
    code = main()
    if code == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _report_usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if context is None or "\n" in message:  # a command that was given nothing answers with its help
        error.show()
    else:
        sentence = message[:1].lower() + message[1:].rstrip(".")
        _say(f"{sentence}; see '{context.command_path} --help'")
    return error.exit_code


def _report_interrupt() -> int:
    _say("interrupted")
    return INTERRUPTED


def _interrupted(error: BaseException) -> bool:
    """Whether an interrupt is where this error came from.

    An extension module that is being loaded when it comes makes an ImportError of it (pybind11 does), which says
    nothing to whoever pressed the keys.
    """
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        if isinstance(one, KeyboardInterrupt):
            return True
        seen.append(one)
        waiting += [one.__cause__, one.__context__]
    return False


def _report(error: Exception) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    if isinstance(error, FarrierError):
        _say(str(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        # The reader of stdout went away (`| head`): nothing to say, and nothing left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FarrierError.exit_code
    if isinstance(error, OSError) and error.strerror:
        _say(_os_sentence(error))
        return FarrierError.exit_code
    _say(
        f"internal error ({type(error).__name__}: {_one_line(str(error))}); please report it; "
        f"run with {TRACEBACK_VARIABLE}=1 to see where it came from"
    )
    return FarrierError.exit_code


def _os_sentence(error: OSError) -> str:
    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, writing{where} failed; free some space or choose another folder"
    return f"cannot use{where or ' a file or socket'}: {error.strerror}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _say(sentence: str) -> None:
    click.echo(f"farrier: {sentence}", err=True)
