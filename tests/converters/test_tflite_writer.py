"""TFLite files as they are written: every field comes back, everything is aligned, versions are exact."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from farrier_contracts.errors import InputError
from farrier_converters.tflite import schema, write
from farrier_converters.tflite.file import Operator, Signature, Tensor, TfliteFile, read
from farrier_converters.tflite.runtimes import RUNTIMES
from farrier_converters.tflite.versions import first_runtime, version, versioned

NOTHING = np.zeros(0, np.float32), np.zeros(0, np.int64)
NAMES = st.text(max_size=12)
NUMBERS = {"<b": st.integers(-128, 127), "<i": st.integers(-(2**31), 2**31 - 1)}


def tensor(index, shape, dtype="float32", data=None, **changes):
    plain = Tensor(index, f"t{index}", dtype, shape, shape, data, *NOTHING, 0, False, False)
    return dataclasses.replace(plain, **changes)


@st.composite
def tensors(draw, index):
    dtype = draw(st.sampled_from(sorted(set(schema.DTYPES.values()))))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=3))
    data = draw(st.none() | hnp.arrays(dtype, shape))
    count = draw(st.integers(0, 3))
    scales = draw(hnp.arrays(np.float32, count, elements=st.floats(0, 1, width=32)))
    return tensor(
        index,
        shape,
        dtype,
        data,
        name=draw(NAMES),
        signature=tuple(draw(st.sampled_from([size, -1])) for size in shape),
        scales=scales,
        zero_points=draw(hnp.arrays(np.int64, count)),
        axis=draw(st.integers(0, 3)) if count else 0,
        variable=draw(st.booleans()),
    )


@st.composite
def operators(draw, index, count):
    name = draw(st.sampled_from([o for o in schema.OPERATORS if o != "CUSTOM"]) | st.just("CUSTOM:mine"))
    options = {
        key: draw(st.floats(width=32, allow_nan=False) if kind.code == "<f" else NUMBERS[kind.code])
        for key, (_, kind, _) in schema.OPTIONS.get(name, {}).items()
    }
    if name in schema.LISTS:
        options[schema.LISTS[name][0]] = draw(st.lists(st.integers(-5, 5), max_size=3))
    inputs = draw(st.lists(st.integers(-1, count - 1), max_size=4))
    outputs = draw(st.lists(st.integers(0, count - 1), max_size=2))
    return Operator(index, name, tuple(inputs), tuple(outputs), options, draw(st.integers(1, 12)))


@st.composite
def files(draw):
    count = draw(st.integers(1, 5))
    indices = st.integers(0, count - 1)
    ends = [tuple(draw(st.lists(indices, min_size=least, max_size=3))) for least in (0, 1)]
    pairs = st.lists(st.tuples(NAMES, indices), max_size=2).map(tuple)
    return TfliteFile(
        tuple(draw(tensors(i)) for i in range(count)),
        tuple(draw(operators(i, count)) for i in range(draw(st.integers(0, 4)))),
        ends[0],
        ends[1],
        draw(NAMES),
        tuple(draw(st.lists(st.tuples(NAMES, st.binary(max_size=20)), max_size=2))),
        tuple(draw(st.lists(st.builds(Signature, NAMES, pairs, pairs), max_size=2))),
    )


def same(left: TfliteFile, right: TfliteFile) -> bool:
    """Compare two files; arrays by their bytes, since NaN is not equal to itself."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, value.tobytes()
        if dataclasses.is_dataclass(value):
            return tuple(plain(getattr(value, field.name)) for field in dataclasses.fields(value))
        return tuple(map(plain, value)) if isinstance(value, tuple) else value

    return plain(left) == plain(right)


@settings(max_examples=150, deadline=None)
@given(file=files())
def test_what_is_written_reads_back(file, tmp_path_factory):
    content = write.write(file)
    path = tmp_path_factory.mktemp("file") / "model.tflite"
    path.write_bytes(content)
    assert same(read(path, max_bytes=1 << 20), file)
    assert write.write(file) == content


@settings(max_examples=60, deadline=None)
@given(file=files())
def test_everything_is_aligned(file):
    """A walk over the raw bytes that knows only flatbuffers' layout and where the schema keeps vectors."""
    content = write.write(file)

    def at(position, code="<I"):
        return struct.unpack_from(code, content, position)[0]

    def field(table, slot):
        vtable = table - at(table, "<i")
        entry = at(vtable + 4 + 2 * slot, "<H") if 4 + 2 * slot < at(vtable, "<H") else 0
        return table + entry if entry else None

    def vector(table, slot, item):
        place = field(table, slot)
        if place is None:
            return []
        start = place + at(place)
        assert (start + 4) % item == 0
        assert start % 4 == 0
        return [start + 4 + item * i for i in range(at(start))]

    root = at(0)
    assert content[4:8] == b"TFL3"
    buffers = [place + at(place) for place in vector(root, 4, 4)]
    assert vector(buffers[0], 0, 1) == []
    for buffer in buffers[1:]:
        assert vector(buffer, 0, 1)[0] % write.ALIGNMENT == 0
    (first,) = vector(root, 2, 4)
    graph = first + at(first)
    for place in vector(graph, 0, 4):
        quantization = field(place + at(place), 4)
        vector(place + at(place), 0, 4)
        if quantization is not None:
            assert len(vector(quantization + at(quantization), 3, 8)) > 0
    for place in vector(root, 1, 4):
        code = place + at(place)
        short, whole = field(code, 0), field(code, 3)
        number = at(whole, "<i") if whole else 0
        assert (at(short, "<b") if short else 0) == min(number, 127)


def test_real_files_survive(shared_data: Path, tmp_path):
    for path in sorted((shared_data / "mlperf_tiny").rglob("*.tflite")):
        file = read(path, max_bytes=1 << 24)
        copy = tmp_path / "copy.tflite"
        copy.write_bytes(write.write(file))
        assert same(read(copy, max_bytes=1 << 24), file)


def test_equal_constants_share_a_buffer():
    ones = np.ones(1000, np.float32)
    file = TfliteFile(tuple(tensor(i, (1000,), data=ones) for i in range(5)), (), (), (0,))
    assert len(write.write(file)) < 6_000


def test_a_file_beyond_two_gigabytes_is_refused():
    shape = (1 << 29,)
    data = np.broadcast_to(np.float32(0), shape)  # takes no memory
    with pytest.raises(InputError, match="2 GiB"):
        write.write(TfliteFile((tensor(0, shape, data=data),), (), (), (0,)))


def test_the_schema_is_what_litert_ships():
    generated = pytest.importorskip("ai_edge_litert.schema_py_generated")
    numbers = {k: v for k, v in vars(generated.BuiltinOperator).items() if not k.startswith("_")}
    assert {name: number for number, name in enumerate(schema.OPERATORS)} == numbers
    unions = {v: k.removesuffix("Options") for k, v in vars(generated.BuiltinOptions).items() if k[0] != "_"}
    for name, number in schema.UNION.items():
        assert hasattr(generated, f"{unions[number]}OptionsStart"), name
        for slot, kind, default in schema.OPTIONS.get(name, {}).values():
            assert slot < 9
            assert kind.code in ("<b", "<i", "<f")
            assert default in (0, 1)


VERSIONS = [
    ("CONV_2D", ["float32", "float32"], {}, 1),
    ("CONV_2D", ["int8", "int8"], {}, 3),
    ("DEPTHWISE_CONV_2D", ["float32", "float32"], {"dilation_w": 2}, 2),
    ("DEPTHWISE_CONV_2D", ["int8", "int8"], {"dilation_w": 2}, 3),
    ("FULLY_CONNECTED", ["float32", "float32", "float32"], {}, 1),
    ("FULLY_CONNECTED", ["float32", "float32", "float32"], {"keep_dims": 1}, 5),
    ("FULLY_CONNECTED", ["float32", "float32"], {}, 6),
    ("FULLY_CONNECTED", ["int8", "int8", "int32"], {}, 4),
    ("RESIZE_BILINEAR", ["float32"], {"half_pixel": 1}, 3),
    ("RESIZE_NEAREST_NEIGHBOR", ["int8"], {}, 2),
    ("BROADCAST_TO", ["float32"], {}, 2),
    ("SOFTMAX", ["int8"], {}, 2),
    ("GATHER", ["float32", "int32"], {"batch_dims": 1}, 5),
]


@pytest.mark.parametrize(("name", "kinds", "options", "expected"), VERSIONS)
def test_versions_are_the_lowest(name, kinds, options, expected):
    held = tuple(tensor(i, (1, 2, 2, 3), kind) for i, kind in enumerate(kinds))
    operator = Operator(0, name, tuple(range(len(kinds))), (0,), options)
    assert version(operator, held) == expected


def test_ranks_and_groups_ask_for_newer_versions():
    held = (tensor(0, (1, 4, 4, 6)), tensor(1, (6, 3, 3, 2)), tensor(2, (1, 1, 1, 1, 2)))
    assert version(Operator(0, "CONV_2D", (0, 1), (0,), {}), held) == 6
    assert version(Operator(0, "TRANSPOSE", (2,), (0,), {}), held) == 4
    assert version(Operator(0, "DIV", (2, 0), (0,), {}), held) == 2


def test_the_oldest_runtime_is_that_of_the_newest_operator():
    held = (tensor(0, (1, 4, 4, 6)), tensor(1, (6, 3, 3, 2)))
    plain = Operator(0, "RELU", (0,), (0,), {})
    grouped = Operator(1, "CONV_2D", (0, 1), (0,), {})
    file = versioned(TfliteFile(held, (plain, grouped), (0,), (0,)))
    assert dict(file.metadata)["min_runtime_version"].rstrip(b"\0") == b"2.9.0"
    assert [o.version for o in file.operators] == [1, 6]
    assert all(first_runtime(Operator(0, name, (), (), {})) == known[0] for name, known in RUNTIMES.items())
