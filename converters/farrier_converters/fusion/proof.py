"""Run the old and the new form of a place side by side on random inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import helper

from ..graph import run
from ..graph.edit import attribute, reads, standard
from ..graph.partial import INTEGERS, RULES
from .record import Proof, Rewrite
from .site import Site, copy

TOLERANCE = 1e-5  # of a distance, relative to the largest result
MAX_ELEMENTS = 1 << 24  # of the inputs together; a place of more cannot be proved
LARGE = 16  # a size beyond this is made smaller where no constant depends on it
SMALL = (11, 13, 7, 9, 15, 5, 14, 6, 12, 10)  # what takes the places of large sizes, each one once
FREE = 3  # stands for a free dimension
SPREAD = 2.0  # standard deviation of the inputs, so that activation functions see both of their ends
ANY_RANK = ("Identity", "Dropout", "Cast", "Relu", "Clip", "Abs", "Erf", "Tanh", "Sigmoid", "HardSigmoid")
AFTER = "/after"  # what the new form's tensors are called


class UnprovenError(Exception):
    """The new form computes something else, or cannot be run; says which."""


def prove(site: Site, rewrite: Rewrite, results: list[str], *, exact: bool) -> Proof:
    """Compare what both forms make of `results`; raises UnprovenError.

    Sizes that no constant knows of are made small first; where that does not run, the true ones are taken.
    """
    nodes = (*_sizes(site, rewrite), *rewrite.old, *rewrite.new)
    inner = {name for node in nodes for name in node.output}
    outer = {name for node in nodes for name in reads(node)} - inner
    outer |= {name for name in rewrite.aliases.values() if name not in inner}
    constants = [site.graph.initializers[name] for name in sorted(outer & set(site.graph.initializers))]
    variables = sorted(outer - set(site.graph.initializers))
    proto = _both(site, rewrite, results, constants, variables)
    why = "the engine does not run it"
    for shapes in _shapes(site, rewrite, constants, variables):
        if sum(math.prod(shape) for shape in shapes.values()) > MAX_ELEMENTS:
            raise UnprovenError("its tensors are too large to try")
        feeds = {name: _noise(site, name, shape) for name, shape in shapes.items()}
        try:
            found = run.session(proto, optimize=False).run(None, feeds)
        except run.runtime_errors() as error:
            why = f"the engine does not run it: {run.brief(error)}"
            continue
        arrays = [np.asarray(value) for value in found]
        return _compare(arrays[: len(results)], arrays[len(results) :], exact=exact)
    raise UnprovenError(why)


def _sizes(site: Site, rewrite: Rewrite) -> list[onnx.NodeProto]:
    """Return the nodes outside that compute sizes for the place, back to the tensors whose sizes they are."""
    inside = {id(node) for node in (*rewrite.old, *rewrite.new)}
    names = [name for node in rewrite.old for name in node.input]
    found: dict[int, onnx.NodeProto] = {}
    while names:
        name = names.pop()
        maker, kind = site.maker(name, *RULES), site.types.get(name)
        if maker is None or kind is None or kind.dtype not in INTEGERS or {id(maker)} & {*inside, *found}:
            continue
        found[id(maker)] = maker
        names += maker.input
    return [node for node in site.graph.nodes if id(node) in found]


def _both(
    site: Site,
    rewrite: Rewrite,
    results: list[str],
    constants: list[onnx.TensorProto],
    variables: list[str],
) -> onnx.ModelProto:
    """Return one graph that holds both forms; the tensors of the new one have names of their own."""
    made = {name: name + AFTER for node in rewrite.new for name in node.output if name}
    after = []
    for node in rewrite.new:
        renamed = copy(node)
        renamed.input[:] = [made.get(name, name) for name in node.input]
        renamed.output[:] = [made.get(name, name) for name in node.output]
        renamed.name = f"{node.name}{AFTER}"
        after.append(renamed)
    for name in results:
        if name not in made:
            source = rewrite.aliases[name]
            after.append(helper.make_node("Identity", [made.get(source, source)], [name + AFTER]))
    outputs = [onnx.ValueInfoProto(name=name) for name in (*results, *(name + AFTER for name in results))]
    graph = helper.make_graph(
        [*_sizes(site, rewrite), *rewrite.old, *after],
        "proof",
        [_declared(site, name) for name in variables],
        outputs,
        constants,
    )
    return helper.make_model(
        graph,
        opset_imports=list(site.graph.model.proto.opset_import),
        ir_version=max(site.graph.model.proto.ir_version, 10 if site.opset >= 21 else 7),
    )


def _declared(site: Site, name: str) -> onnx.ValueInfoProto:
    kind = site.types.get(name)
    if kind is None:
        raise UnprovenError(f"the type of {name} is not known")
    return helper.make_tensor_value_info(name, kind.dtype, None)


def _shapes(
    site: Site, rewrite: Rewrite, constants: list[onnx.TensorProto], variables: list[str]
) -> Iterator[dict[str, list[int]]]:
    """Yield the shapes of the inputs to try: small ones, then the true ones."""
    true: dict[str, list[int]] = {}
    for name in variables:
        shape = site.shape(name)
        true[name] = (
            _guessed(site, rewrite, name)
            if shape is None
            else [FREE if size is None else size for size in shape]
        )
    known = {size for tensor in constants for size in tensor.dims}
    known |= {size for node in rewrite.old for size in _integers(node)}
    for tensor in constants:
        if tensor.data_type == onnx.TensorProto.INT64 and math.prod(tensor.dims) <= LARGE:
            known.update(int(v) for v in onnx.numpy_helper.to_array(tensor).reshape(-1))
    large = sorted({size for shape in true.values() for size in shape if size > LARGE and size not in known})
    smaller = dict(zip(large, SMALL, strict=False))
    if smaller:
        yield {name: [smaller.get(size, size) for size in shape] for name, shape in true.items()}
    yield true


def _integers(node: onnx.NodeProto) -> Iterator[int]:
    for field in node.attribute:
        yield from (field.ints if field.ints else (field.i,))


def _guessed(site: Site, rewrite: Rewrite, name: str) -> list[int]:
    """Return a shape that fits a tensor whose rank is not known, from the weights of what reads it."""
    for node in rewrite.old:
        weight = site.graph.initializers.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or node.input[0] != name:
            continue
        if standard(node, "Conv"):
            return [2, weight.dims[1] * attribute(node, "group", 1), *(size + 4 for size in weight.dims[2:])]
        if standard(node, "ConvTranspose"):
            return [2, weight.dims[0], *(size + 4 for size in weight.dims[2:])]
        if standard(node, "Gemm", "MatMul"):
            return [2, weight.dims[1 if attribute(node, "transB", 0) else 0]]
    if all(standard(node, *ANY_RANK) for node in rewrite.old):
        return [2, FREE]
    raise UnprovenError(f"the shape of {name} is not known")


def _noise(site: Site, name: str, shape: Iterable[int]) -> np.ndarray:
    dtype = helper.tensor_dtype_to_np_dtype(site.types[name].dtype)
    rng = np.random.default_rng(len(name))
    if dtype.kind == "O":
        return np.asarray(rng.choice(np.array(["", "a", "b"], object), tuple(shape)))
    if dtype.kind in "iub":
        return np.asarray(rng.integers(0, 2, tuple(shape))).astype(dtype)
    if dtype.kind != "f":
        raise UnprovenError(f"there is no noise of type {dtype}")
    return np.asarray(SPREAD * rng.standard_normal(tuple(shape), np.float32)).astype(dtype)


def _compare(before: list[np.ndarray], after: list[np.ndarray], *, exact: bool) -> Proof:
    furthest = relative = 0.0
    values = 0
    for old, new in zip(before, after, strict=True):
        if np.shape(old) != np.shape(new) or old.dtype != new.dtype:
            raise UnprovenError(
                f"it makes {new.dtype}{list(np.shape(new))} of {old.dtype}{list(np.shape(old))}"
            )
        values += old.size
        if exact or old.dtype.kind != "f":
            if not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
                raise UnprovenError("it gives other values")
            continue
        with np.errstate(invalid="ignore"):
            gaps = np.abs(old.astype(np.float64) - new.astype(np.float64))
            same = (old == new) | (np.isnan(old) & np.isnan(new))
        gap = float(np.where(same, 0.0, gaps).max(initial=0.0))
        finite = np.abs(old[np.isfinite(old)].astype(np.float64)).max(initial=0.0)
        share = gap / max(float(finite), 1e-30) if gap else 0.0
        if not share <= _tolerance(old.dtype):
            raise UnprovenError(f"it gives values that differ by {share:.1g} of the largest")
        furthest, relative = max(furthest, gap), max(relative, share)
    return Proof(furthest, relative, values)


def _tolerance(dtype: np.dtype) -> float:
    return TOLERANCE if dtype.itemsize > 2 else 2e-3
