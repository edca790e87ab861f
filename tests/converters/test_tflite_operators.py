"""Single TFLite operators with random data, imported and compared with LiteRT: alone, and behind a convolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from farrier_contracts.errors import InputError
from farrier_converters import importers, model

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffers = pytest.importorskip("flatbuffers")

ROWS = 2
IMAGE = (1, 6, 8, 4)
RNG = np.random.default_rng(1)


@dataclass
class Graph:
    """A TFLite graph in the making, through the schema's own objects."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)

    def tensor(self, shape: Sequence[int], dtype: Any, data: np.ndarray | None = None, **more: Any) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = f"t{len(self.tensors)}", list(shape)
        tensor.type = getattr(schema.TensorType, np.dtype(dtype).name.upper())
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        for name, value in more.items():
            setattr(tensor, name, value)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def input(self, shape: Sequence[int], dtype: Any = np.float32, *, free: bool = True) -> int:
        signature = [-1, *shape[1:]] if free else list(shape)
        self.inputs.append(self.tensor(shape, dtype, shapeSignature=signature))
        return self.inputs[-1]

    def constant(self, value: np.ndarray) -> int:
        return self.tensor(value.shape, value.dtype, value)

    def add(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: int | Sequence[Any] = 1,
        shape: Any = (1,),
        **options: Any,
    ) -> list[int]:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), VERSIONS.get(name, 1)
        self.codes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs = len(self.codes) - 1, list(inputs)
        kinds = [np.float32] * outputs if isinstance(outputs, int) else outputs
        op.outputs = [self.tensor(shape, kind) for kind in kinds]
        if (kind := OPTIONS.get(name)) is not None:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            op.builtinOptions = getattr(schema, f"{kind}T")()
            for key, value in options.items():
                assert hasattr(op.builtinOptions, key), key
                setattr(op.builtinOptions, key, value)
        self.operators.append(op)
        return op.outputs

    def write(self, path: Path, outputs: Sequence[int]) -> Path:
        graph, whole = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = self.inputs, list(outputs)
        whole.version, whole.operatorCodes, whole.buffers = 3, self.codes, self.buffers
        whole.subgraphs = [graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(whole.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


VERSIONS = {"RESIZE_BILINEAR": 3, "RESIZE_NEAREST_NEIGHBOR": 3, "TRANSPOSE_CONV": 3, "FULLY_CONNECTED": 5}
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "CONCATENATION": "ConcatenationOptions",
    "SOFTMAX": "SoftmaxOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "GELU": "GeluOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "SPLIT": "SplitOptions",
    "SPLIT_V": "SplitVOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "GATHER": "GatherOptions",
    "SHAPE": "ShapeOptions",
    "PACK": "PackOptions",
    "UNPACK": "UnpackOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "SQUEEZE": "SqueezeOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "ARG_MAX": "ArgMaxOptions",
    "CAST": "CastOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), "ReducerOptions"),
}
STRIDE = {"strideH": 2, "strideW": 2}
POOL = {"filterHeight": 3, "filterWidth": 2, **STRIDE}
UNIT = {"strideH": 1, "strideW": 1}


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """`others` are the further inputs: arrays are constants, tuples are shapes of data, "x" is the data itself."""

    op: str
    others: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = IMAGE
    first: tuple[Any, ...] = ()  # inputs before the data
    outputs: int | Sequence[Any] = 1
    positive: bool = False

    def __str__(self) -> str:
        return "-".join([self.op, *(f"{k}{v}" for k, v in self.options.items()), str(len(self.shape))])


CASES = [
    *(
        Case(
            "CONV_2D", (floats(5, k, 3, 4), floats(5)), {"padding": p, "fusedActivationFunction": a, **s, **d}
        )
        for k, p, a, s, d in [
            (3, 0, 0, STRIDE, {}),
            (2, 0, 1, STRIDE, {}),
            (3, 1, 3, UNIT, {}),
            (3, 0, 2, UNIT, {"dilationHFactor": 2, "dilationWFactor": 3}),
            (2, 1, 2, {"strideH": 1, "strideW": 3}, {}),
        ]
    ),
    Case("CONV_2D", (floats(6, 3, 3, 2), floats(6)), {"padding": 0, **UNIT}),  # two groups
    *(
        Case(
            "DEPTHWISE_CONV_2D",
            (floats(1, 3, 3, 4 * m), floats(4 * m)),
            {"padding": p, "depthMultiplier": m, **STRIDE},
        )
        for m, p in [(1, 0), (2, 0), (2, 1)]
    ),
    *(
        Case(
            "TRANSPOSE_CONV",
            (floats(5),) if bias else (),
            {"padding": p, **s},
            first=(ints(1, h, w, 5), floats(5, 3, 3, 4)),
        )
        for p, s, h, w, bias in [
            (0, STRIDE, 12, 16, True),
            (1, STRIDE, 13, 17, False),
            (0, STRIDE, 11, 15, True),
            (1, STRIDE, 14, 18, True),
        ]
    ),
    *(
        Case(op, (), {"padding": p, "fusedActivationFunction": a, **POOL})
        for op in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
        for p, a in [(0, 0), (1, 1)]
    ),
    Case("AVERAGE_POOL_2D", (), {"padding": 1, "filterHeight": 6, "filterWidth": 8, **STRIDE}),
    *(
        Case(op, (other,), {"fusedActivationFunction": a})
        for op in ("ADD", "SUB", "MUL", "DIV")
        for other, a in [
            (floats(4) + 3, 0),
            (IMAGE, 1),
            (floats(), 0),
            ((1, 1, 1, 4), 3),
            (floats(6, 8, 1), 0),
        ]
    ),
    *(
        Case(op, (other,))
        for op in ("MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")
        for other in (floats(4), IMAGE)
    ),
    Case("POW", (floats(4),), positive=True),
    Case("PRELU", (floats(1, 1, 4),)),
    *(
        Case(op)
        for op in (
            "LOGISTIC",
            "TANH",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
            "ELU",
            "HARD_SWISH",
            "EXP",
            "ABS",
            "NEG",
            "SQUARE",
            "FLOOR",
        )
    ),
    *(Case(op, positive=True) for op in ("SQRT", "RSQRT", "LOG")),
    Case("LEAKY_RELU", (), {"alpha": 0.2}),
    Case("GELU", (), {"approximate": True}),
    Case("GELU", (), {"approximate": False}),
    Case("SOFTMAX", (), {"beta": 1.0}),
    Case("SOFTMAX", (), {"beta": 0.5}, (1, 7)),
    Case("LOG_SOFTMAX"),
    Case("L2_NORMALIZATION"),
    *(
        Case(op, (axes,), {"keepDims": keep})
        for op in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
        for axes, keep in [(ints(1, 2), True), (ints(1, 2), False), (ints(-1), False), (ints(2), False)]
    ),
    Case("RESHAPE", (ints(-1, 192),)),
    Case("RESHAPE", (ints(1, 48, 4),)),
    Case("RESHAPE", (ints(-1, 8, 24),)),
    Case("SQUEEZE", (), {"squeezeDims": [2]}, (1, 6, 1, 4)),
    Case("EXPAND_DIMS", (ints(1),), shape=(1, 6, 4)),
    Case("CONCATENATION", (IMAGE, "x"), {"axis": 3}),
    Case("CONCATENATION", (IMAGE, "x"), {"axis": -3}),
    Case("PAD", (ints((0, 0), (1, 2), (3, 0), (0, 0)),)),
    Case("PAD", (ints((0, 0), (1, 2), (3, 0), (1, 2)),)),
    Case("PADV2", (ints((0, 0), (1, 2), (3, 0), (0, 0)), np.float32(-2))),
    Case("MIRROR_PAD", (ints((0, 0), (1, 2), (3, 0), (0, 0)),), {"mode": 0}),
    Case("MIRROR_PAD", (ints((0, 0), (1, 1), (1, 0), (0, 0)),), {"mode": 1}),
    *(
        Case(op, (size,), {"alignCorners": c, "halfPixelCenters": h})
        for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
        for size in (ints(12, 16), ints(9, 5), ints(3, 4))
        for c, h in [(False, False), (True, False), (False, True)]
    ),
    Case("TRANSPOSE", (ints(0, 3, 1, 2),)),
    Case("TRANSPOSE", (ints(0, 2, 1, 3),)),
    Case("SPLIT", (), {"numSplits": 2}, first=(ints(3).reshape(()),), outputs=2),
    Case("SPLIT", (), {"numSplits": 3}, first=(ints(1).reshape(()),), outputs=3),
    Case("SPLIT_V", (ints(1, 3), ints(3).reshape(())), {"numSplits": 2}, outputs=2),
    Case("UNPACK", (), {"num": 6, "axis": 1}, outputs=6),
    Case("PACK", (IMAGE,), {"valuesCount": 2, "axis": 2}),
    Case("SLICE", (ints(0, 1, 2, 1), ints(-1, 3, 4, 2))),
    *(
        Case("STRIDED_SLICE", (ints(*begin), ints(*end), ints(*step)), masks)
        for begin, end, step, masks in [
            ((0, 1, 2, 0), (0, 5, 8, 4), (1, 2, 3, 1), {"beginMask": 1, "endMask": 1}),
            ((0, 1, 7, 0), (0, 2, 0, 4), (1, 1, -2, 1), {"beginMask": 1, "endMask": 5, "shrinkAxisMask": 2}),
            ((0, 0, 0, -1), (0, 0, 0, 0), (1, 1, 1, 1), {"beginMask": 7, "endMask": 7, "shrinkAxisMask": 8}),
        ]
    ),
    Case("GATHER", (ints(3, 0, 1, 1),), {"axis": 3}),
    Case("GATHER", (ints(5, 2),), {"axis": 1}, (1, 6, 4)),
    Case("REVERSE_V2", (ints(2),)),
    Case("REVERSE_V2", (ints(1),), shape=(1, 6, 4)),
    Case("BATCH_MATMUL", (floats(1, 4, 5),), shape=(1, 6, 4)),
    Case("BATCH_MATMUL", ((1, 5, 4),), {"adjY": True}, (1, 6, 4)),
    Case("BATCH_MATMUL", ((1, 6, 5),), {"adjX": True}, (1, 6, 4)),
    Case("ARG_MAX", (ints(3).reshape(()),), {"outputType": 2}, outputs=(np.int32,)),
    Case("ARG_MAX", (ints(1).reshape(()),), {"outputType": 4}, outputs=(np.int64,)),
    Case("SPACE_TO_DEPTH", (), {"blockSize": 2}),
    Case("DEPTH_TO_SPACE", (), {"blockSize": 2}),
    Case("CAST", (), {"inDataType": 0, "outDataType": 2}, outputs=(np.int32,)),
    Case("FULLY_CONNECTED", (floats(5, 192), floats(5)), {"fusedActivationFunction": 1}),
    Case("FULLY_CONNECTED", (floats(5, 4), floats(5)), {"keepNumDims": True}),
    Case("FULLY_CONNECTED", (floats(5, 4), floats(5)), {}, (1, 4)),
]


def build(case: Case, path: Path, *, behind: bool) -> Path:
    graph = Graph()
    data = graph.input(case.shape)
    if behind:  # an identity whose result is stored as NCHW
        kernel = np.eye(case.shape[3], dtype=np.float32)[:, None, None, :]
        inputs = [data, graph.constant(kernel), graph.constant(np.zeros(case.shape[3], np.float32))]
        (data,) = graph.add("CONV_2D", inputs, padding=0, **UNIT)

    def operand(value: Any) -> int:
        if isinstance(value, str):
            return data
        return graph.input(value) if isinstance(value, tuple) else graph.constant(np.asarray(value))

    inputs = [*map(operand, case.first), data, *map(operand, case.others)]
    shape = (1, 3, 4, 2) if case.op == "SLICE" else (1,)  # LiteRT finds the others' itself
    return graph.write(path, graph.add(case.op, inputs, case.outputs, shape, **case.options))


def litert(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows one by one, in LiteRT's own kernels."""
    from ai_edge_litert.interpreter import Interpreter

    engine, rows = Interpreter(model_path=str(path), num_threads=1), []
    engine.allocate_tensors()
    for index in range(len(next(iter(feeds.values())))):
        engine.reset_all_variables()
        for detail in engine.get_input_details():
            engine.set_tensor(detail["index"], feeds[detail["name"]][index : index + 1])
        engine.invoke()
        rows.append({d["name"]: engine.get_tensor(d["index"]) for d in engine.get_output_details()})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def onnx_run(found: model.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(found.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in found.outputs]
    return dict(zip(names, session.run(names, feeds), strict=True))


def compare(path: Path, *, rows: int = ROWS, positive: bool = False) -> model.Model:
    found = model.load(path)
    rng = np.random.default_rng(9)
    feeds = {}
    for tensor in found.inputs:
        values = rng.normal(size=(rows, *tensor.shape[1:])) * 2
        feeds[tensor.name] = (np.abs(values) + 0.1 if positive else values).astype(np.float32)
    ours, theirs = onnx_run(found, feeds), litert(path, feeds)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype
        np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-4)
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operator_computes_what_litert_computes(case: Case, tmp_path: Path) -> None:
    found = compare(build(case, tmp_path / "op.tflite", behind=False), positive=case.positive)
    assert all(tensor.shape[0] == -1 for tensor in found.inputs)
    if len(case.shape) == 4 and not case.positive:
        compare(build(case, tmp_path / "behind.tflite", behind=True))


def kinds(found: model.Model) -> Counter[str]:
    return Counter(node.op_type for node in found.proto.graph.node)


def conv(graph: Graph, x: int, depth: int, channels: int, size: int = 3, **options: Any) -> int:
    inputs = [x, graph.constant(floats(channels, size, size, depth)), graph.constant(floats(channels))]
    return graph.add("CONV_2D", inputs, **{"padding": 0, **UNIT, **options})[0]


def test_a_dense_layer_behind_an_image_costs_no_transpose(tmp_path: Path) -> None:
    graph = Graph()
    x = conv(graph, graph.input(IMAGE), 4, 5)
    (flat,) = graph.add("RESHAPE", [x, graph.constant(ints(-1, 240))])
    found = compare(
        graph.write(
            tmp_path / "m.tflite",
            graph.add("FULLY_CONNECTED", [flat, graph.constant(floats(3, 240)), graph.constant(floats(3))]),
        )
    )
    assert kinds(found) == {"Transpose": 1, "Conv": 1, "Flatten": 1, "Gemm": 1}


def test_a_net_between_images_has_a_transpose_at_each_edge_and_none_inside(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input(IMAGE)
    (scaled,) = graph.add("MUL", [x, graph.constant(floats(4))])
    a = conv(graph, scaled, 4, 6, fusedActivationFunction=1)
    (padded,) = graph.add("PAD", [a, graph.constant(ints((0, 0), (1, 1), (1, 1), (0, 0)))])
    b = conv(graph, padded, 6, 6, padding=1)
    (total,) = graph.add("ADD", [a, b], fusedActivationFunction=3)
    (gate,) = graph.add("MEAN", [total, graph.constant(ints(1, 2))], keepDims=True)
    (gate,) = graph.add("LOGISTIC", [gate])
    (gated,) = graph.add("MUL", [total, gate])
    (joined,) = graph.add("CONCATENATION", [gated, a], axis=3)
    (large,) = graph.add("RESIZE_BILINEAR", [joined, graph.constant(ints(12, 16))], halfPixelCenters=True)
    found = compare(graph.write(tmp_path / "m.tflite", [large, total]))
    count = kinds(found)
    assert (count["Transpose"], count["Pad"]) == (3, 0)  # one for the input, one for each output
    assert [tensor.name for tensor in found.outputs] == [f"t{large}", f"t{total}"]
    assert found.outputs[0].shape == (-1, 12, 16, 12)


@pytest.mark.parametrize(("block", "crop"), [(2, 0), (3, 0), (2, 1)])
def test_blocks_around_a_convolution_are_its_dilation(tmp_path: Path, block: int, crop: int) -> None:
    graph = Graph()
    x = graph.input((1, 12, 12, 4))
    pads = ints((block, block + (-2 * block - 12) % block), (block, block))
    cut = [graph.constant(ints(block, block)), graph.constant(pads)]
    (blocks,) = graph.add("SPACE_TO_BATCH_ND", [x, *cut], shape=(1, 1, 1, 1))
    y = conv(graph, blocks, 4, 5, padding=1)
    crops = graph.constant(ints((0, crop), (crop, 0)))
    (whole,) = graph.add("BATCH_TO_SPACE_ND", [y, cut[0], crops], shape=(1, 1, 1, 1))
    found = compare(graph.write(tmp_path / "m.tflite", [whole]))
    assert kinds(found) == {"Transpose": 2, "Conv": 1}
    (node,) = (node for node in found.proto.graph.node if node.op_type == "Conv")
    assert next(list(a.ints) for a in node.attribute if a.name == "dilations") == [block, block]


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_net_of_causal_sequence_convolutions_has_one_transpose(tmp_path: Path, dilation: int) -> None:
    """As Keras writes Conv1D: images of height one, blocks for a dilation, and a dense layer at the end."""
    graph = Graph()
    x = graph.input((1, 12, 4))
    for _ in range(2):
        (x,) = graph.add("PAD", [x, graph.constant(ints((0, 0), (2 * dilation, 0), (0, 0)))])
        cut = [graph.constant(ints(dilation)), graph.constant(ints((0, 0)).reshape(1, 2))]
        if dilation > 1:
            (x,) = graph.add("SPACE_TO_BATCH_ND", [x, *cut], shape=(1, 1, 1))
        (x,) = graph.add("EXPAND_DIMS", [x, graph.constant(ints(1))])
        weights = [graph.constant(floats(4, 1, 3, 4)), graph.constant(floats(4))]
        (x,) = graph.add("CONV_2D", [x, *weights], padding=1, **UNIT)
        (x,) = graph.add("SQUEEZE", [x], squeezeDims=[1])
        if dilation > 1:
            (x,) = graph.add("BATCH_TO_SPACE_ND", [x, *cut], shape=(1, 1, 1))
        (x,) = graph.add("RELU", [x])
    (x,) = graph.add("RESHAPE", [x, graph.constant(ints(-1, 48))])
    dense = [graph.constant(floats(3, 48)), graph.constant(floats(3))]
    found = compare(graph.write(tmp_path / "m.tflite", graph.add("FULLY_CONNECTED", [x, *dense])))
    count = kinds(found)
    assert (count["Transpose"], count["Conv"], count["Pad"]) == (1, 2, 0)


def test_a_constant_with_one_row_for_each_of_the_input(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input((1, 3))
    (shape,) = graph.add("SHAPE", [x], [np.int32], outType=2)
    bounds = [graph.constant(ints(v)) for v in (0, 1, 1)]
    (rows,) = graph.add("STRIDED_SLICE", [shape, *bounds], [np.int32], shrinkAxisMask=1)
    (target,) = graph.add("PACK", [rows, graph.constant(ints(2).reshape(()))], [np.int32], valuesCount=2)
    (filled,) = graph.add("FILL", [target, graph.constant(np.float32(0.5))])
    compare(graph.write(tmp_path / "m.tflite", graph.add("CONCATENATION", [x, filled], axis=1)))


def test_blocks_without_a_convolution_are_moved(tmp_path: Path) -> None:
    graph = Graph()
    cut = [graph.constant(ints(2, 4)), graph.constant(ints((1, 1), (0, 0)))]
    (blocks,) = graph.add("SPACE_TO_BATCH_ND", [graph.input(IMAGE), *cut], shape=(1, 1, 1, 1))
    (active,) = graph.add("RELU", [blocks])
    compare(
        graph.write(tmp_path / "m.tflite", graph.add("BATCH_TO_SPACE_ND", [active, *cut], shape=(1, 1, 1, 1)))
    )


def test_shapes_computed_in_the_graph_are_known_while_importing(tmp_path: Path) -> None:
    graph = Graph()
    x = conv(graph, graph.input(IMAGE), 4, 4)
    (shape,) = graph.add("SHAPE", [x], [np.int32], outType=2)
    bounds = [graph.constant(ints(v)) for v in (0, 1, 1)]
    (rows,) = graph.add("STRIDED_SLICE", [shape, *bounds], [np.int32], shrinkAxisMask=1)
    sizes = [graph.constant(ints(v).reshape(())) for v in (-1, 4)]
    (target,) = graph.add("PACK", [rows, *sizes], [np.int32], valuesCount=3)
    found = compare(graph.write(tmp_path / "m.tflite", graph.add("RESHAPE", [x, target])))
    assert found.outputs[0].shape == (-1, 48, 4)
    assert "Shape" not in kinds(found)


def test_a_choice_between_two_images(tmp_path: Path) -> None:
    graph = Graph()
    x = conv(graph, graph.input(IMAGE), 4, 4)
    (larger,) = graph.add("GREATER", [x, graph.constant(np.float32(0.5))], [np.bool_])
    (other,) = graph.add("NEG", [x])
    compare(graph.write(tmp_path / "m.tflite", graph.add("SELECT_V2", [larger, x, other])))


def test_integers_look_up_rows_of_a_table(tmp_path: Path) -> None:
    graph = Graph()
    words = graph.input((1, 7), np.int32)
    (rows,) = graph.add("GATHER", [graph.constant(floats(9, 5)), words], axis=0)
    (mean,) = graph.add("MEAN", [rows, graph.constant(ints(1))], keepDims=False)
    path = graph.write(tmp_path / "m.tflite", [mean])
    feeds = {f"t{words}": RNG.integers(0, 9, (3, 7)).astype(np.int32)}
    (ours,), (theirs,) = onnx_run(model.load(path), feeds).values(), litert(path, feeds).values()
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_weights_stored_as_float16_are_constants(tmp_path: Path) -> None:
    graph = Graph()
    half = graph.constant(floats(5, 8).astype(np.float16))
    (weights,) = graph.add("DEQUANTIZE", [half])
    found = compare(
        graph.write(
            tmp_path / "m.tflite",
            graph.add("FULLY_CONNECTED", [graph.input((1, 8)), weights, graph.constant(floats(5))]),
        )
    )
    assert kinds(found) == {"Gemm": 1}


@pytest.mark.parametrize("time_major", [False, True])
def test_a_sequence_lstm(tmp_path: Path, time_major: bool) -> None:
    graph, hidden = Graph(), 6
    x = graph.input((7, 1, 5) if time_major else (1, 7, 5), free=not time_major)
    inputs = [x]
    inputs += [graph.constant(floats(hidden, 5)) for _ in range(4)]
    inputs += [graph.constant(floats(hidden, hidden)) for _ in range(4)]
    inputs += [-1, -1, -1]
    inputs += [graph.constant(floats(hidden)) for _ in range(4)]
    inputs += [-1, -1]
    inputs += [graph.tensor((1, hidden), np.float32, isVariable=True) for _ in range(2)]
    inputs += [-1] * 4
    options = {"fusedActivationFunction": 4, "timeMajor": time_major}
    found = graph.write(
        tmp_path / "m.tflite", graph.add("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, shape=(1, 1, 1), **options)
    )
    if not time_major:
        compare(found)
        return
    loaded = model.load(found)
    feeds = {loaded.inputs[0].name: floats(7, 1, 5)}
    (ours,) = onnx_run(loaded, feeds).values()
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(model_path=str(found))
    engine.allocate_tensors()
    engine.set_tensor(engine.get_input_details()[0]["index"], feeds[loaded.inputs[0].name])
    engine.invoke()
    np.testing.assert_allclose(ours, engine.get_tensor(engine.get_output_details()[0]["index"]), atol=1e-5)


def test_a_graph_that_mixes_rows_keeps_its_batch_and_says_why(tmp_path: Path) -> None:
    graph = Graph()
    (mean,) = graph.add("MEAN", [graph.input((1, 8)), graph.constant(ints(0))], keepDims=True)
    imported = importers.read(graph.write(tmp_path / "m.tflite", [mean]), max_bytes=1 << 20)
    assert imported.model.inputs[0].shape == (1, 8)
    assert imported.notes == ("the batch stays fixed: it mixes rows",)
    assert imported.check() == ()


def test_rows_that_meet_through_a_reshape_are_found_by_running(tmp_path: Path) -> None:
    graph = Graph()
    (turned,) = graph.add("RESHAPE", [graph.input((1, 4, 4)), graph.constant(ints(4, -1))])
    (soft,) = graph.add("SOFTMAX", [turned], beta=1.0)
    (back,) = graph.add("RESHAPE", [soft, graph.constant(ints(-1, 4, 4))])
    imported = importers.read(graph.write(tmp_path / "m.tflite", [back]), max_bytes=1 << 20)
    assert imported.model.inputs[0].shape == (1, 4, 4)
    assert "batch stays fixed" in imported.notes[0]
    assert imported.check() == ()


def test_outputs_that_are_inputs_constants_or_twice_the_same_keep_their_values(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input((1, 3))
    (y,) = graph.add("RELU", [x])
    loaded = model.load(graph.write(tmp_path / "m.tflite", [y, y, x]))
    value = floats(2, 3)
    first, second, third = onnx_run(loaded, {f"t{x}": value}).values()
    np.testing.assert_array_equal(first, np.maximum(value, 0))
    np.testing.assert_array_equal(second, first)
    np.testing.assert_array_equal(third, value)
    assert loaded.outputs[0].name == f"t{y}"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("WHILE", "operator 1 (WHILE) is control flow"),
        ("RFFT2D", "operator 1 (RFFT2D) has no counterpart here"),
    ],
)
def test_what_is_not_known_is_refused_with_its_index(tmp_path: Path, name: str, sentence: str) -> None:
    graph = Graph()
    (x,) = graph.add("RELU", [graph.input((1, 3))])
    path = graph.write(tmp_path / "m.tflite", graph.add(name, [x]))
    with pytest.raises(InputError) as refusal:
        model.load(path)
    assert sentence in str(refusal.value)


def test_free_sizes_besides_the_batch_are_refused(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.tensor((1, 1, 1, 3), np.float32, shapeSignature=[-1, -1, -1, 3])
    graph.inputs.append(x)
    path = graph.write(tmp_path / "m.tflite", graph.add("RELU", [x]))
    with pytest.raises(InputError, match="free sizes besides the batch"):
        model.load(path)


def test_a_wrong_import_would_be_noticed(tmp_path: Path) -> None:
    graph = Graph()
    path = graph.write(tmp_path / "m.tflite", graph.add("RELU", [graph.input((1, 8))]))
    other = Graph()
    wrong = other.write(tmp_path / "w.tflite", other.add("ABS", [other.input((1, 8))]))
    from farrier_converters.importers.tflite.check import against_litert

    (sentence,) = against_litert(path, model.load(wrong))
    assert "differs from LiteRT's by up to" in sentence
