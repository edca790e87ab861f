"""The frame of the `farrier` command: lazy table, help, and how errors end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import click
import pytest

from farrier import cli
from farrier_contracts import __version__
from farrier_contracts.errors import BudgetError, FarrierError, InputError


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a real command of the table that raises `error`."""

    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(cli, "raising_command", command, raising=False)
    monkeypatch.setitem(cli.COMMANDS, "raising", ("farrier.cli:raising_command", "Raise an error."))
    return cli.main(["raising"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("m.onnx is damaged; copy it again"), 2),
        (BudgetError("no candidate fits"), 3),
        (FarrierError("no"), 1),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "out"), 1),
        (ValueError("a\nb"), 1),
    ],
)
def test_every_error_is_one_line_on_stderr(error, code, monkeypatch, capsys):
    assert raising(error, monkeypatch) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    sentence = captured.err.strip()  # on an interrupt click first ends the line that shows ^C
    assert sentence.startswith("farrier: ")
    assert "\n" not in sentence


def test_an_interrupt_that_an_extension_makes_an_import_error_of(monkeypatch, capsys):
    def loading():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    def needing():
        try:
            loading()
        except ImportError:
            raise FarrierError("this needs a tool that is not installed") from None

    for step, kind in ((loading, ImportError), (needing, FarrierError)):
        with pytest.raises(kind) as found:
            step()
        assert raising(found.value, monkeypatch) == cli.INTERRUPTED
        assert capsys.readouterr().err == "farrier: interrupted\n"


def test_traceback_only_on_request(monkeypatch, capsys):
    monkeypatch.setenv(cli.TRACEBACK_VARIABLE, "1")
    assert raising(ValueError("deep inside"), monkeypatch) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nope"], ["--nope"]])
def test_wrong_usage(arguments, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "farrier --help" in error


def test_an_interrupt_that_comes_after_the_last_word_changes_nothing():
    """While Python ends it has given up its own handler; a command says either that it was interrupted or nothing."""
    for moment in range(12):
        with subprocess.Popen(
            [sys.executable, "-m", "farrier", "--version"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert __version__ in process.stdout.readline()
            try:
                process.wait(moment * 0.002)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        assert process.returncode in (0, cli.INTERRUPTED)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_help_lists_every_command_and_loads_none():
    script = (
        "import sys; from farrier.cli import main; main(['--help']);"
        "loaded = [m for m in sys.modules if m.startswith('farrier.cli.')"
        " or m.partition('.')[0] in ('numpy', 'onnx', 'onnxruntime', 'rich', 'farrier_converters')];"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    for name, (_, line) in cli.COMMANDS.items():
        assert name in done.stdout
        assert line in done.stdout


def test_the_defaults_that_help_states_are_the_real_ones(capsys):
    from farrier.collector import Settings
    from farrier.fleet.rollouts import WAIT_TIMEOUT_S
    from farrier.repo import Lifetimes

    for command, defaults in (
        (["repo", "init"], vars(Lifetimes()).values()),
        (["collect"], [Settings().connect_timeout_s]),
        (["fleet", "rollout"], [WAIT_TIMEOUT_S]),
    ):
        assert cli.main([*command, "--help"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        for default in defaults:
            assert f"[default: {default:g}]" in said
