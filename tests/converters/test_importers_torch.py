"""Torch modules, exported programs and their files become ONNX that computes the same; code in files is refused."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest

from farrier_contracts.errors import InputError
from farrier_converters import importers
from farrier_converters.graph import run
from farrier_converters.importers.torch.archive import vetted
from farrier_converters.model import load

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
LIMIT = 1 << 30


class Pictures(torch.nn.Module):
    """A convolution with batch norm, in two results."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x)))
        return {"map": y, "mean": y.mean((2, 3))}


class Words(torch.nn.Module):
    """An embedding of whole numbers, scaled by a second input."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(20, 6)
        self.register_buffer("mask", torch.tril(torch.ones(4, 4)))

    def forward(self, words, scale):
        return self.mask @ self.table(words) * scale


class Branches(torch.nn.Module):
    """What it does depends on the values: no graph of operators does the same."""

    def forward(self, x):
        return x * 2 if x.sum() > 0 else x - 1


def test_a_module_with_a_free_batch():
    module = Pictures().train()
    imported = importers.from_torch(module, torch.randn(1, 3, 8, 8), name="pictures")
    assert module.training
    assert module.norm.training
    assert imported.model.name == "pictures"
    assert imported.model.inputs[0].shape == (-1, 3, 8, 8)
    assert imported.notes == imported.check() == ()
    images = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(images))
    found = run.once(imported.model.proto, {imported.model.inputs[0].name: images})
    for array, name in zip(found, ("map", "mean"), strict=True):
        np.testing.assert_allclose(array, expected[name].numpy(), atol=1e-5)
    assert "/" not in str(imported.model.proto.metadata_props)


def test_the_check_finds_a_difference():
    module = torch.nn.Linear(4, 4)
    imported = importers.from_torch(module, torch.randn(2, 4), dynamic_batch=False)
    assert imported.model.inputs[0].shape == (2, 4)
    with torch.no_grad():
        module.weight[0, 0] += 1
    (sentence,) = imported.check()
    assert "differs from torch's by up to" in sentence


def test_branches_are_traced_and_told():
    imported = importers.from_torch(Branches(), torch.ones(2, 3))
    assert any("was traced" in note for note in imported.notes)
    assert any("differs" in sentence for sentence in imported.check())


@pytest.mark.parametrize(
    ("module", "inputs", "match"),
    [
        ("net", torch.ones(1), "not str"),
        (torch.nn.ReLU(), (), "example inputs"),
        (torch.nn.ReLU(), (1,), "example inputs"),
    ],
)
def test_what_is_no_module(module, inputs, match):
    with pytest.raises(InputError, match=match):
        importers.from_torch(module, inputs)


@pytest.fixture(scope="module")
def program():
    batch = torch.export.Dim("batch")
    inputs = (torch.randint(0, 20, (2, 4)), torch.rand(2, 1, 1))
    return torch.export.export(Words().eval(), inputs, dynamic_shapes=({0: batch}, {0: batch}))


@pytest.fixture(scope="module")
def saved(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "words.pt2"
    torch.export.save(program, path)
    return path


def test_a_saved_program_computes_what_it_did(program, saved):
    imported = importers.read(saved, max_bytes=LIMIT)
    assert imported.check() == ()
    assert imported.model.name == "words"
    assert [spec.shape for spec in imported.model.inputs] == [(-1, 4), (-1, 1, 1)]
    words, scale = torch.randint(0, 20, (3, 4)), torch.rand(3, 1, 1)
    feeds = {
        spec.name: value.numpy() for spec, value in zip(imported.model.inputs, (words, scale), strict=True)
    }
    (found,) = run.once(imported.model.proto, feeds)
    np.testing.assert_allclose(found, program.module()(words, scale).detach().numpy(), atol=1e-6)


def _changed(saved, path, change):
    """Write the archive again with `change(name, content)` in the place of each member; None leaves it out."""
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            content = change(info.filename.partition("/")[2], source.read(info))
            if content is not None:
                target.writestr(info.filename, content)
    return path


class _Boom:
    def __reduce__(self):
        return (print, ("it ran",))


def _edited(part, old, new):
    def change(name, content):
        return content.replace(old, new) if name.startswith(part) else content

    return change


HARM = {
    "a pickled weight": (_edited("data/weights/model", b'"use_pickle": false', b'"use_pickle": true'), "pickle"),
    "an operator from elsewhere": (
        _edited("models/", b"torch.ops.aten.embedding.default", b"torch.hub.load"), "torch.hub.load",
    ),
    "an operator of python's": (
        _edited("models/", b"torch.ops.aten.embedding.default", b"_operator.methodcaller"), "methodcaller",
    ),
    "an expression that calls": (
        _edited("models/", b"Symbol('", b"__import__('os').system('"), "no plain arithmetic",
    ),
    "a part that is unknown": (
        lambda name, content: content if name != "data/sample_inputs/model.pt" else pickle.dumps(_Boom()), "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_a_file_that_could_run_code_is_refused_or_stripped(saved, tmp_path, harm, capfd):
    change, reason = HARM[harm]
    path = _changed(saved, tmp_path / "bad.pt2", change)
    if reason:
        with pytest.raises(InputError, match=reason):
            vetted(path, max_bytes=LIMIT)
    else:  # example inputs are a pickle always: they are left out
        assert not [name for name in vetted(path, max_bytes=LIMIT) if "sample_inputs" in name]
    assert "it ran" not in capfd.readouterr().out


def test_code_that_guards_inputs_is_left_out(saved):
    members = vetted(saved, max_bytes=LIMIT)
    (name,) = [name for name in members if name.startswith("models/")]
    assert "guards_code" not in json.loads(members[name])


def test_files_that_are_no_programs(saved, tmp_path):
    def unknown(name, content):
        return content

    for name, content, match in (
        ("cut.pt2", saved.read_bytes()[:2000], "damaged"),
        ("empty.pt2", b"", "damaged"),
        ("net.pth", b"", "pickle"),
        ("net.pt", b"", "farrier.optimize"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=match):
            load(path)
    with pytest.raises(InputError, match="there is no model"):
        load(tmp_path / "absent.pt2")
    with pytest.raises(InputError, match="limit"):
        vetted(saved, max_bytes=100)
    path = _changed(saved, tmp_path / "more.pt2", unknown)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("words/data/aotinductor/model.so", b"")
    with pytest.raises(InputError, match="no part of a plain exported program"):
        vetted(path, max_bytes=LIMIT)


def test_what_torch_itself_refuses_is_one_sentence(saved, tmp_path):
    path = _changed(saved, tmp_path / "newer.pt2", _edited("models/", b'"major": ', b'"major": 99'))
    with pytest.raises(InputError, match=r"torch, reading .*newer\.pt2, refused it"):
        load(path)
