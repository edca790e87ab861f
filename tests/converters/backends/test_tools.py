"""Tools in processes of their own: absent, silent, killed, starved, and in another environment."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from farrier_contracts.errors import InputError, MissingToolError, UsageError
from farrier_converters import tools
from farrier_converters.measure import Child, EngineFailure
from farrier_converters.tools import process
from farrier_converters.tools.process import Limits

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
ROOT = Path(__file__).resolve().parents[3]
CHILD = """
import os, signal, subprocess, sys, time

def answer(request):
    print("words on stdout are no answer")
    if request["do"] == "sum":
        return {"sum": sum(request["numbers"]), "module": __name__}
    if request["do"] == "refuse":
        raise ValueError("\\n  a tensor of rank 9\\n  and more")
    if request["do"] == "die":
        print("a last word", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if request["do"] == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open("pid", "w").write(str(child.pid))
        time.sleep(600)
    if request["do"] == "eat":
        bytearray(1 << 40)
"""


@pytest.fixture
def ask(tmp_path, monkeypatch):
    (tmp_path / "a_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")

    def call(what, seconds=60.0, **fields):
        limits = Limits(seconds=seconds)
        request = {"do": what, **fields}
        python = Path(sys.executable)
        return process.ask(python, "a_child", request, title="Tool", folder=tmp_path, limits=limits)

    return call


def test_answers(ask):
    assert ask("sum", numbers=[1, 2]) == {"sum": 3, "module": "a_child"}


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("refuse", "^Tool refused it: a tensor of rank 9$"),
        ("die", "^Tool's process ended by SIGSEGV: a last word$"),
        ("eat", "^Tool refused it: it ran out of the memory that it may use$"),
    ],
)
def test_every_end_is_one_sentence(ask, what, sentence):
    with pytest.raises(InputError, match=sentence):
        ask(what)


def test_what_hangs_ends_with_all_it_started(ask, tmp_path, eventually):
    with pytest.raises(InputError, match="not done within 3 s"):
        ask("hang", seconds=3)
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/status")
    eventually(lambda: not status.exists() or "zombie" in status.read_text(), what="its child is gone")


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    monkeypatch.setenv(tools.HOME, str(tmp_path))
    absent = tools.Tool("absent", "Absent", "no_such_module", ("absent>=1",))
    monkeypatch.setitem(tools.TOOLS, "absent", absent)


def test_a_missing_tool_is_one_sentence_with_the_command(nothing_installed, tmp_path):
    with pytest.raises(MissingToolError, match=r"python -m farrier_converters.tools absent$") as caught:
        process.call("absent", {}, folder=tmp_path)
    assert "pip install 'farrier[absent]'" in str(caught.value)
    with pytest.raises(UsageError, match="choose one of: openvino"):
        tools.get("nonsense")


def test_a_folder_of_a_tools_name_is_no_tool(nothing_installed, tmp_path, monkeypatch):
    (tmp_path / "no_such_module").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "not installed" in str(tools.missing("absent"))


def test_a_missing_engine_is_the_same_sentence(nothing_installed, tmp_path):
    with (
        pytest.raises(EngineFailure, match=r"Absent is not installed; run: pip"),
        Child(tmp_path / "x", "absent"),
    ):
        pass


def test_a_bare_python_runs_a_module_of_ours(tmp_path, monkeypatch):
    """In an environment that holds nothing, as far as a module imports the standard library alone."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    monkeypatch.setenv("PYTHONPATH", "")
    python = tmp_path / "bare" / "bin" / "python"
    with pytest.raises(InputError, match=r"^Tool refused it: No module named 'a_child'$"):
        process.ask(python, "a_child", {}, title="Tool", folder=tmp_path, limits=Limits())


def test_extras_install_what_environments_do():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, tool in tools.TOOLS.items():
        assert extras[name] == list(tool.packages)
