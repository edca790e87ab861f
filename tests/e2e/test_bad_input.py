"""Bad input as its user meets it: real command lines, one sentence, an exit code, and a folder left as it was."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from farrier import repo
from farrier.bundle import build
from farrier.fleet import init_fleet
from farrier.store import open_store

PROGRAMS = {"farrier": "farrier", "farrier-agent": "farrier_agent"}
LIMIT_S = 90
ROWS = 64
AGENT = """
device = "edge-1"
fleet = "shop"
state_dir = "state"
[broker]
url = "mqtt://127.0.0.1:1"
[repository]
url = "repo/public"
root = "{root}"
"""

# what is typed, the exit code, words of the sentence; {closed} and {taken} are ports, {full} is a full disk
MODELS = [
    *(
        (f"farrier {command.format(model)}", 2, words)
        for command in (
            "optimize {} -o out",
            "bench {}",
            "check {}",
            "bundle build {} --name m --version 1 -o x.farrier",
        )
        for model, words in (
            ("none.onnx", "there is no model at none.onnx"),
            ("cut.onnx", "it is truncated"),
            ("unknown.onnx", "the operator 'Frobnicate'"),
        )
    ),
    ("farrier optimize text.onnx -o out", 2, "is not an ONNX file"),
    ("farrier check m.onnx --target nope", 2, "choose one of: host"),
    ("farrier check m.onnx --toolchain nope", 2, "choose one of: onnx"),
    ("farrier check m.onnx --min-accelerated much", 2, "written like 95%"),
    ("farrier check m.onnx --tpus 0", 2, "1 segment or more"),
    ("farrier compare none.onnx m.onnx --data rows.npz", 2, "there is no model at none.onnx"),
    ("farrier compare m.onnx text.onnx --data rows.npz", 2, "is not an ONNX file"),
    ("farrier compare m.onnx m.onnx", 2, "missing option '-d'"),
    (
        "farrier compare m.onnx other.onnx --data rows.npz",
        2,
        "the models take different inputs: m.onnx takes x FP32",
    ),
    ("farrier compare m.onnx m.tflite --data rows.npz", 2, "only ONNX models can be compared"),
    ("farrier compare m.onnx m.onnx --data rows.npz --rows 0", 2, "rows must be at least 1"),
    ("farrier compare m.onnx m.onnx --data rows.npz --apply cured.onnx", 2, "has no quantizers"),
    ("farrier compare m.onnx m.onnx --data rows.npz --html no/x.html", 2, "the folder no does not exist"),
    ("farrier bench text.txt", 2, "of no kind that can be measured"),
    ("farrier optimize m.onnx --target nope -o out", 2, "choose one of: host"),
    ("farrier optimize m.onnx --max-drop much -o out", 2, "written like 1%"),
    ("farrier optimize m.onnx -o m.onnx", 2, "give a folder"),
    ("farrier optimize m.onnx", 2, "missing option '-o'"),
    ("farrier optimize m.onnx --data rows.npz --max-size 1B -o out", 3, "the budget cannot be met; the best"),
    ("farrier bench m.onnx --batch one", 2, "written like 1,4,8"),
]
DATA = [
    *(
        (f"farrier {command.format(data)}", 2, words)
        for command in (
            "optimize m.onnx --data {} -o out",
            "bundle build m.onnx --name m --version 1 --golden {} -o x.farrier",
        )
        for data, words in (
            ("none.npz", "none.npz does not exist"),
            ("cut.npz", "is damaged"),
            ("names.npz", "image"),
            ("shapes.npz", "has shape (64, 5)"),
        )
    ),
    ("farrier compare m.onnx m.onnx --data none.npz", 2, "none.npz does not exist"),
    ("farrier compare m.onnx m.onnx --data names.npz", 2, "image"),
    ("farrier compare m.onnx m.onnx --data rows.npz --metric accuracy", 2, "needs an array 'labels'"),
    ("farrier optimize m.onnx --data objects.npz -o out", 2, "save plain numeric arrays"),
    ("farrier optimize m.onnx --data counts.npz -o out", 2, "they must agree"),
    ("farrier optimize m.onnx --data rows.npz --metric accuracy -o out", 2, "needs an array 'labels'"),
    ("farrier-agent infer m.farrier --input none.npz", 2, "none.npz does not exist"),
    ("farrier-agent infer m.farrier --input cut.npz", 2, "cut.npz is not an .npz file"),
    ("farrier-agent infer m.farrier --input names.npz", 2, "the model takes x"),
    ("farrier-agent infer m.farrier --input shapes.npz", 2, "has shape [64, 5]"),
]
BUNDLES = [
    *(
        (f"{command.format(file)}", 2, words)
        for command in (
            "farrier bundle inspect {}",
            "farrier bundle verify {}",
            "farrier bench {}",
            "farrier repo publish {} --repo repo",
            "farrier-agent check {}",
            "farrier-agent infer {} --input rows.npz",
        )
        for file, words in (
            ("none.farrier", "none.farrier does not exist"),
            ("flipped.farrier", "'model.onnx' is damaged"),
        )
    ),
    ("farrier bundle inspect cut.farrier", 2, "is cut short"),
    ("farrier-agent check cut.farrier", 2, "is cut short"),
    ("farrier bundle diff m.farrier none.farrier", 2, "none.farrier does not exist"),
    ("farrier bundle build m.onnx --name M! --version 1 -o x.farrier", 2, "lower-case letters"),
    ("farrier bundle build m.onnx --name m --version 1 -o no/x.farrier", 2, "the folder no does not exist"),
]
SERVICES = [
    ("farrier repo init repo", 2, "choose a new folder"),
    ("farrier repo publish m.farrier --repo none", 2, "make one with 'farrier repo init none'"),
    ("farrier repo serve none", 2, "make one with 'farrier repo init none'"),
    ("farrier repo serve repo --port {taken}", 2, "port {taken} on 127.0.0.1 is in use"),
    ("farrier collect --broker mqtt://127.0.0.1:{closed} --store sqlite:///new.db --connect-timeout 0.2", 1,
     "no broker answers at mqtt://127.0.0.1:{closed} (Connection refused); start it"),
    ("farrier collect --broker 127.0.0.1 --store sqlite:///new.db", 2, "write mqtt://host:1883"),
    ("farrier collect --broker mqtt://127.0.0.1 --store new.db", 2, "write sqlite:///name.db"),
    ("farrier dashboard --store sqlite:///new.db --port {taken}", 2, "port {taken} on 127.0.0.1 is in use"),
    ("farrier dashboard --store sqlite:///m.onnx --port 0", 2, "m.onnx is not a usable fleet store"),
    ("farrier dashboard --store sqlite:///new.db --token-file none", 2, "cannot read a token from none"),
    ("farrier fleet ls", 2, "make one with `farrier fleet init`"),
    ("farrier fleet ls --fleet text.txt", 2, "text.txt cannot be read"),
    ("farrier fleet show edge-9 --fleet fleet/FLEET.toml", 2, "no device 'edge-9' is known in fleet shop"),
    ("farrier fleet rollout m@1 --all --fleet fleet/FLEET.toml", 2, "has no devices yet"),
    ("farrier fleet rollout m@1 --fleet fleet/FLEET.toml", 2, "say which devices with --device, or --all"),
    ("farrier fleet rollout m --all --fleet fleet/FLEET.toml", 2, "write NAME@VERSION"),
    ("farrier fleet rollback --device edge-9 --fleet fleet/FLEET.toml", 2, "no device 'edge-9' is known"),
    ("farrier fleet init fleet --name shop --broker mqtt://h --repository http://h --root text.txt", 2,
     "FLEET.toml is there already"),
    ("farrier fleet init new --name shop --broker h --repository http://h --root text.txt", 2,
     "write mqtt://host:1883"),
    ("farrier fleet init new --name shop --broker mqtt://h --repository h --root text.txt", 2,
     "write http://host:8788"),
    ("farrier fleet init new --name shop --broker mqtt://h --repository http://h --root text.txt", 2,
     "text.txt is no root of trust"),
    ("farrier flash root@127.0.0.1 --port {closed} --fleet fleet/FLEET.toml", 1, "nothing listens for SSH"),
    ("farrier flash root@127.0.0.1 --port {closed}", 2, "make one with `farrier fleet init`"),
    ("farrier-agent run --config none.toml", 2, "none.toml does not exist"),
    ("farrier-agent run --config m.onnx", 2, "it is not TOML"),
    ("farrier-agent run --config agent.toml", 2, "none.json does not exist"),
    ("farrier-agent run", 2, "--config"),
]  # fmt: skip
FULL_DISK = [
    ("farrier optimize m.onnx -o {full}/out", 1),
    ("farrier bundle build m.onnx --name m --version 1 -o {full}/x.farrier", 1),
    ("farrier repo init {full}/new", 1),
    ("farrier repo publish next.farrier --repo {full}/repo", 1),
    ("farrier fleet init {full}/new --name shop --broker mqtt://h --repository http://h --root root.json", 1),
    ("farrier dashboard --store sqlite:///{full}/new.db --port 0", 1),
    ("farrier-agent infer m.farrier --input rows.npz --output {full}/y.npz", 1),
    ("farrier-agent run --config {full}/agent.toml", 2),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good one of everything, and damaged ones beside them."""
    folder = tmp_path_factory.mktemp("place")
    write_models(folder)
    write_data(folder)
    build(folder / "m.onnx", name="m", version="1", target="host", output=folder / "m.farrier")
    whole = (folder / "m.farrier").read_bytes()
    (folder / "cut.farrier").write_bytes(whole[:-400])
    flipped = bytearray(whole)
    flipped[whole.index(b"weights-of-m") + 40] ^= 1
    (folder / "flipped.farrier").write_bytes(flipped)
    build(folder / "m.onnx", name="m", version="2", target="host", output=folder / "next.farrier")
    root = repo.init(folder / "repo").root
    repo.publish(folder / "m.farrier", repo=folder / "repo")
    shutil.copy(root, folder / "root.json")
    fleet = init_fleet(
        folder / "fleet", name="shop", broker="mqtt://127.0.0.1:1", repository="http://h", root=root
    )
    open_store(f"sqlite:///{fleet.parent}/fleet.db").close()
    (folder / "agent.toml").write_text(AGENT.format(root="none.json"))
    return folder


def write_models(folder: Path) -> None:
    weights = np.arange(48, dtype=np.float32).reshape(4, 12)
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size]) for n, size in (("x", 4), ("y", 12))
    )
    constant = helper.make_tensor("weights-of-m", TensorProto.FLOAT, (4, 12), weights.tobytes(), raw=True)
    for name, kind in (("m", "MatMul"), ("unknown", "Frobnicate")):
        node = helper.make_node(kind, ["x", "weights-of-m"], ["y"])
        graph = helper.make_graph([node], name, [x], [y], [constant])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, folder / f"{name}.onnx")
    other = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])
    renamed = helper.make_graph(
        [helper.make_node("MatMul", ["z", "weights-of-m"], ["y"])], "o", [other], [y], [constant]
    )
    onnx.save(
        helper.make_model(renamed, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "other.onnx",
    )
    whole = (folder / "m.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "text.onnx").write_text("no model")
    (folder / "text.txt").write_text("no model")


def write_data(folder: Path) -> None:
    rows = np.random.default_rng(0).random((ROWS, 4), dtype=np.float32)
    np.savez(folder / "rows.npz", x=rows)
    np.savez(folder / "names.npz", image=rows, mask=rows)
    np.savez(folder / "shapes.npz", x=np.zeros((ROWS, 5), np.float32))
    np.savez(folder / "counts.npz", x=rows, labels=np.zeros(3, np.int64))
    np.savez(folder / "objects.npz", x=np.array([{}]))
    whole = (folder / "rows.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """A port that something listens on, and one that nothing can listen on meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound without listening: whoever connects is refused
        yield {"taken": taken.getsockname()[1], "closed": bound.getsockname()[1]}


@pytest.fixture
def full(tmp_path: Path, place: Path) -> Iterator[Path]:
    """A disk with a repository and an agent on it, and not a byte to spare."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting needs root")
    disk = tmp_path / "full"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mount is not allowed here")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", str(disk)], check=True)
        shutil.copytree(place / "repo", disk / "repo")
        (disk / "state").mkdir()
        (disk / "state" / "lock").touch()
        (disk / "agent.toml").write_text(AGENT.format(root=place / "root.json"))
        with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        yield disk


def contents(folder: Path) -> dict[str, str]:
    """What lies in a folder: the digest of every file, by path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def refused(line: str, place: Path, code: int, words: str) -> None:
    """Type a line in `place`; it must end with `code` and say one sentence that holds `words`, besides notes."""
    program, *arguments = shlex.split(line)
    done = subprocess.run(
        [sys.executable, "-m", PROGRAMS[program], *arguments],
        cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    *progress, sentence = done.stderr.splitlines()
    assert all(each.endswith(" ...") or each.startswith("note: ") for each in progress), done.stderr
    assert sentence.startswith(f"{program}: ")
    assert words in sentence
    assert "internal error" not in sentence


@pytest.mark.parametrize(("line", "code", "words"), [*MODELS, *DATA, *BUNDLES, *SERVICES])
def test_it_is_one_sentence_and_changes_nothing(
    line: str, code: int, words: str, place: Path, ports: dict[str, int]
) -> None:
    before = contents(place)
    refused(line.format(**ports), place, code, words.format(**ports))
    assert contents(place) == before


@pytest.mark.parametrize(("line", "code"), FULL_DISK)
def test_a_full_disk_is_one_sentence_and_changes_nothing(
    line: str, code: int, place: Path, full: Path
) -> None:
    before, before_there = contents(full), contents(place)
    refused(line.format(full=full), place, code, "full" if code == 1 else "No space left on device")
    assert contents(full) == before
    assert contents(place) == before_there
