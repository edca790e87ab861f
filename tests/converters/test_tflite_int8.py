"""INT8 TFLite of whole networks: integers all the way, the scales of the graph, and the answers of ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from farrier_contracts.targets import ARITHMETICS, INTEGERS, Arithmetic
from farrier_converters import passes
from farrier_converters.compilers.tflite import Lowered, lower_model
from farrier_converters.graph import run
from farrier_converters.graph.edit import Graph
from farrier_converters.model import Model, load
from farrier_converters.quantize.recentre import unsigned
from farrier_converters.tflite.write import write

pytest.importorskip("ai_edge_litert")

TRAINING = "mlperf_tiny/benchmark/training"
FILES = {
    "ultraface": "ultraface/models/onnx/version-RFB-320.onnx",
    "resnet8": f"{TRAINING}/image_classification/trained_models/pretrainedResnet.tflite",
    "wake-words": f"{TRAINING}/visual_wake_words/trained_models/vww_96_float.tflite",
    "anomaly": f"{TRAINING}/anomaly_detection/trained_models/ad01_fp32.tflite",
}
NAMES = (*FILES, "resnet20")
XNNPACK, NPU = ARITHMETICS["xnnpack"], ARITHMETICS["integer-npu"]
ROWS = 4


@dataclass(frozen=True)
class Net:
    """A float network, inputs for it, and its quantized forms."""

    model: Model
    feeds: dict[str, np.ndarray]

    def quantized(self, arithmetic: Arithmetic) -> Model:
        context = passes.Context(arithmetic=arithmetic, calibration=self.batches)
        model = self.model
        for name, options in (
            ("clean", {}),
            ("fuse", {}),
            ("int8", {"method": "minmax", "bias_correction": False}),
        ):
            step = passes.get(name)
            model = step.run(model, step.options(**options), context)
        return model

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        yield self.feeds


@pytest.fixture(scope="module")
def net(shared_data: Path, resnet20: Model) -> Callable[[str], Net]:
    found: dict[str, Net] = {}

    def get(name: str) -> Net:
        if name not in found:
            model = resnet20 if name == "resnet20" else load(shared_data / FILES[name])
            (spec,) = model.inputs
            rows = 1 if spec.shape[0] > 0 else ROWS
            rng = np.random.default_rng(7)
            found[name] = Net(model, {spec.name: rng.normal(size=(rows, *spec.shape[1:])).astype(np.float32)})
        return found[name]

    return get


def engine(lowered: Lowered, folder: Path) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Run a file as the measuring process does: arrays as the model has them."""
    from farrier_converters.measure.litert import LiteRtSession

    path = folder / "model.tflite"
    path.write_bytes(write(lowered.file))
    return LiteRtSession(path, threads=1, options=lowered.options).run


def plain_kernels(lowered: Lowered, images: np.ndarray) -> np.ndarray:
    """Run images through LiteRT's own kernels, without XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=write(lowered.file),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    stored = images.transpose(lowered.options["layouts"][given["name"]])
    interpreter.resize_tensor_input(given["index"], stored.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], stored)
    interpreter.invoke()
    return interpreter.get_tensor(made["index"])


@pytest.mark.parametrize("name", NAMES)
def test_everything_with_a_quantizer_is_an_integer(name: str, net: Callable[[str], Net]) -> None:
    model = net(name).quantized(XNNPACK)
    lowered = lower_model(model)
    made = Counter(operator.name for operator in lowered.file.operators)
    asked = Counter(node.op_type for node in model.proto.graph.node)
    assert made["CONV_2D"] + made["DEPTHWISE_CONV_2D"] == asked["Conv"]
    assert made["FULLY_CONNECTED"] == asked["Gemm"] + asked["MatMul"]
    assert made["TRANSPOSE"] == 0
    assert made["QUANTIZE"] == 1  # of the input
    for operator in lowered.file.operators:
        if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MEAN"):
            assert lowered.file.tensors[operator.outputs[0]].dtype == "int8"
    graph = Graph(model)
    steps = [graph.constant(node.input[1]) for node in graph.nodes if node.op_type == "QuantizeLinear"]
    scales = {float(step) for step in steps if step is not None and step.ndim == 0}
    written = {
        float(tensor.scales[0])
        for tensor in lowered.file.tensors
        if tensor.dtype == "int8" and tensor.data is None
    }
    assert written == scales


@pytest.mark.parametrize("name", NAMES)
def test_integer_ends_leave_no_floats(name: str, net: Callable[[str], Net]) -> None:
    lowered = lower_model(net(name).quantized(NPU), integer_ends=True)
    kept = {"EXP", "QUANTIZE", "DEQUANTIZE"} if name == "ultraface" else set()
    for operator in lowered.file.operators:
        if operator.name not in kept:
            used = [lowered.file.tensors[i] for i in (*operator.inputs, *operator.outputs)]
            assert {tensor.dtype for tensor in used} <= {"int8", "int32"}, operator.name
    assert list(lowered.floats.values()) == ["no integer kernel for Exp"] * (name == "ultraface")
    ends = [lowered.file.tensors[i] for i in (*lowered.file.inputs, *lowered.file.outputs)]
    assert {tensor.dtype for tensor in ends} == {"int8"}
    assert lowered.options["quantized"] == [tensor.name for tensor in ends]
    for operator in lowered.file.operators:
        if operator.name == "FULLY_CONNECTED":
            assert lowered.file.tensors[operator.inputs[1]].scales.size == 1


@pytest.mark.parametrize("arithmetic", [XNNPACK, NPU], ids=lambda a: a.name)
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_onnx_runtime(
    name: str, arithmetic: Arithmetic, net: Callable[[str], Net], tmp_path: Path
) -> None:
    subject = net(name)
    signed = subject.quantized(arithmetic)
    lowered = lower_model(signed, integer_ends=arithmetic.quantizers == INTEGERS)
    names = [output.name for output in signed.outputs]
    wanted = dict(zip(names, run.once(unsigned(signed).proto, subject.feeds), strict=True))
    found = engine(lowered, tmp_path)(subject.feeds)
    for key, value in wanted.items():
        quantum = _quantum(lowered, key, value)
        assert (np.abs(found[key] - value) <= 1.01 * quantum).mean() >= 0.999


def _quantum(lowered: Lowered, name: str, value: np.ndarray) -> float:
    """Return the step of an output in integers; of one in floats, a 256th of what it spans."""
    tensor = next(t for t in lowered.file.tensors if t.name == name)
    return float(tensor.scales[0]) if tensor.scales.size else float(np.ptp(value)) / 256


def test_rows_at_once_are_rows_one_by_one(net: Callable[[str], Net], tmp_path: Path) -> None:
    subject = net("resnet20")
    lowered = lower_model(subject.quantized(XNNPACK))
    run_rows = engine(lowered, tmp_path)
    (name,) = subject.feeds
    together = run_rows(subject.feeds)["logits"]
    alone = [run_rows({name: row[None]})["logits"] for row in subject.feeds[name]]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_accuracy_is_that_of_onnx_runtime_in_every_kind_of_kernel(
    resnet20: Model, cifar10: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    images, labels = cifar10
    subject = Net(resnet20, {resnet20.inputs[0].name: images[:128]})
    rows = slice(128, 628)
    signed = subject.quantized(XNNPACK)
    lowered = lower_model(signed)
    twin = run.session(unsigned(signed).proto)
    name = resnet20.inputs[0].name
    wanted = np.asarray(twin.run(None, {name: images[rows]})[0]).argmax(1)
    for found in (
        engine(lowered, tmp_path)({name: images[rows]})["logits"],
        plain_kernels(lowered, images[rows]),
    ):
        assert (found.argmax(1) == wanted).mean() >= 0.97
        assert abs((found.argmax(1) == labels[rows]).mean() - (wanted == labels[rows]).mean()) <= 0.01
