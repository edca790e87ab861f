"""Networks of many kinds in plain torch, small but with all their joints, and how each is exported to ONNX."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import nn

from . import attention, language, maps, mobile, pictures, sequences

SMALL, TINY, GREY = (3, 32, 32), (3, 16, 16), (1, 16, 16)
BATCH = 2  # of the exporter's example
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d, language.Rms)


@dataclass(frozen=True)
class Words:
    """An input of integers below `high`, of this shape behind the batch."""

    high: int
    shape: tuple[int, ...] = ()


Input = tuple[int, ...] | Words


@dataclass(frozen=True)
class Architecture:
    """What makes the network, its inputs behind the batch, and which of torch's exporters writes it.

    `floor` is the share of its weights that must lie on at least one axis that can be pruned. The axes `free` of each
    input, besides the batch, have any size: that of the example, or `more` than it.
    """

    make: Callable[[], nn.Module]
    inputs: dict[str, Input]
    floor: float
    dynamo: bool = False
    dynamic: bool = True
    opset: int = 17
    free: tuple[int, ...] = ()
    more: int = 0

    def feeds(self, batch: int, seed: int = 0, *, more: int = 0) -> dict[str, np.ndarray]:
        """Return seeded inputs of this many rows, with so much more on the free axes."""
        rng = np.random.default_rng(seed)
        extra = [more if axis in self.free else 0 for axis in range(1, 5)]
        return {name: _values(rng, batch, given, extra) for name, given in self.inputs.items()}

    def module(self, seed: int = 0) -> nn.Module:
        """Return the network, weights and statistics drawn anew, ready to be evaluated."""
        torch.manual_seed(seed)
        module = self.make().eval()
        _randomize(module)
        return module

    def export(self) -> onnx.ModelProto:
        """Return the network as torch exports it."""
        example = tuple(torch.from_numpy(value) for value in self.feeds(BATCH).values())
        with _quiet():
            return (_dynamo if self.dynamo else _script)(self, self.module(), example)


def _values(rng: np.random.Generator, batch: int, given: Input, extra: list[int]) -> np.ndarray:
    behind = given.shape if isinstance(given, Words) else given
    shape = (batch, *(size + more for size, more in zip(behind, extra, strict=False)))
    if isinstance(given, Words):
        return rng.integers(0, given.high, shape)
    return rng.standard_normal(shape).astype(np.float32)


def _randomize(module: nn.Module) -> None:
    """Draw weights that keep the size of what passes, and norms far from identity, so that each channel matters."""
    for layer in module.modules():
        norm = isinstance(layer, NORMS)
        for name, values in layer.named_parameters(recurse=False):
            if norm and name == "weight":
                nn.init.uniform_(values, 0.97, 1.4)
            elif values.dim() < 2 or name.startswith("bias"):
                nn.init.normal_(values, 0, 0.2)
            elif not isinstance(layer, nn.Embedding):
                nn.init.normal_(values, 0, 1.3 / math.sqrt(values[0].numel()))
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(layer.running_mean, 0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _script(found: Architecture, module: nn.Module, example: tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    file = io.BytesIO()
    free = {axis: f"size{axis}" for axis in found.free}
    axes = {name: {0: "batch", **free} for name in found.inputs} if found.dynamic else None
    torch.onnx.export(
        module, example, file, dynamo=False, opset_version=found.opset,
        input_names=list(found.inputs), dynamic_axes=axes,
    )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def _dynamo(found: Architecture, module: nn.Module, example: tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    sizes = {0: torch.export.Dim("batch")} | {axis: torch.export.Dim.DYNAMIC for axis in found.free}
    program = torch.onnx.export(
        module, example, dynamo=True, verbose=False, input_names=list(found.inputs),
        dynamic_shapes=tuple(sizes for _ in example) if found.dynamic else None,
    )  # fmt: skip
    assert program is not None
    return program.model_proto


def _arch(make: Callable[[], nn.Module], floor: float, *shape: int, **options: object) -> Architecture:
    return Architecture(make, {"x": shape}, floor, **options)  # type: ignore[arg-type]


FRAMES, TOKENS = (12, 12), Words(50, (12,))
BERT = {"tokens": TOKENS, "mask": Words(2, (12,)), "kinds": Words(2, (12,))}
ARCHITECTURES: dict[str, Architecture] = {
    "alexnet": _arch(pictures.AlexNet, 0.97, *SMALL),
    "vgg": _arch(pictures.Vgg, 0.97, *TINY),
    "resnet20": _arch(pictures.ResNet20, 0.97, *TINY),
    "resnet50": _arch(pictures.ResNet50, 0.97, *SMALL, dynamo=True),
    "resnext": _arch(lambda: pictures.ResNet50(groups=4), 0.97, *SMALL),
    "densenet": _arch(pictures.DenseNet, 0.97, *TINY),
    "inception": _arch(pictures.Inception, 0.97, *TINY),
    "squeezenet": _arch(pictures.SqueezeNet, 0.97, *SMALL),
    "repvgg": _arch(pictures.RepVgg, 0.97, *TINY),
    "mobilenet_v1": _arch(mobile.mobilenet_v1, 0.97, *TINY),
    "mobilenet_v2": _arch(mobile.mobilenet_v2, 0.97, *TINY, dynamo=True),
    "mobilenet_v3": _arch(mobile.MobileNetV3, 0.97, *TINY),
    "efficientnet": _arch(mobile.efficientnet, 0.97, *TINY),
    "regnet": _arch(mobile.regnet, 0.97, *TINY),
    "shufflenet_v1": _arch(mobile.shufflenet_v1, 0.97, *TINY),
    "shufflenet_v2": _arch(mobile.shufflenet_v2, 0.97, *TINY, dynamo=True),
    "ghostnet": _arch(mobile.ghostnet, 0.97, *TINY),
    "group_normed": _arch(mobile.GroupNormed, 0.97, *TINY, dynamo=True),
    "group_normed_script": _arch(mobile.GroupNormed, 0.97, *TINY),
    "xception": _arch(mobile.Xception, 0.97, *TINY),
    "unet": _arch(maps.UNet, 0.97, *TINY),
    "deeplab": _arch(maps.DeepLab, 0.97, *SMALL),
    "ssd": _arch(maps.Ssd, 0.94, *SMALL),
    "yolo": _arch(maps.Yolo, 0.97, *SMALL),
    "retinanet": _arch(maps.RetinaNet, 0.97, *TINY),
    "super_resolution": _arch(maps.SuperResolution, 0.97, *TINY),
    "autoencoder": _arch(maps.Autoencoder, 0.97, *GREY),
    "style_transfer": _arch(maps.StyleTransfer, 0.97, *TINY),
    "vit": _arch(attention.Vit, 0.97, *TINY),
    "vit_dynamo": _arch(attention.Vit, 0.97, *TINY, dynamo=True),
    "swin": _arch(attention.Swin, 0.97, *TINY),
    "swin_dynamo": _arch(attention.Swin, 0.97, *TINY, dynamo=True),
    "convnext": _arch(attention.convnext, 0.97, *SMALL),
    "mixer": _arch(attention.Mixer, 0.88, *TINY),
    "poolformer": _arch(attention.PoolFormer, 0.97, *TINY),
    "mobilevit": _arch(attention.MobileVit, 0.97, *TINY),
    "bert": Architecture(language.Bert, BERT, 0.97),
    "gpt": Architecture(language.Gpt, {"tokens": TOKENS}, 0.97),
    "gpt_dynamo": Architecture(language.Gpt, {"tokens": TOKENS}, 0.97, dynamo=True),
    "llama": Architecture(language.Llama, {"tokens": TOKENS}, 0.97),
    "translator": Architecture(
        language.Translator, {"source": Words(40, (10,)), "target": Words(40, (10,))}, 0.97
    ),
    "torch_encoder": _arch(language.TorchEncoder, 0.97, *FRAMES, dynamo=True),
    "einsums": _arch(language.Einsums, 0.97, *FRAMES),
    "conformer": _arch(language.Conformer, 0.97, 16, 12),
    "detr": _arch(language.Detr, 0.97, *TINY, dynamo=True),
    "lstm": Architecture(sequences.Lstm, {"tokens": Words(40, (12,))}, 0.97),
    "lstm_state": _arch(sequences.LstmState, 0.97, *FRAMES),
    "gru": _arch(sequences.Gru, 0.97, *FRAMES),
    "rnn": _arch(sequences.Rnn, 0.97, *FRAMES),
    "tcn": _arch(sequences.Tcn, 0.97, *FRAMES),
    "wavenet": _arch(sequences.WaveNet, 0.97, *FRAMES),
    "ds_cnn": _arch(sequences.ds_cnn, 0.97, 1, 49, 10),
    "crnn": _arch(sequences.Crnn, 0.97, 1, 16, 32),
    "dense_autoencoder": _arch(sequences.dense_autoencoder, 0.97, 64),
    "dlrm": Architecture(sequences.Dlrm, {"dense": (12,), "categories": Words(30, (3,))}, 0.97),
    "pointnet": _arch(sequences.PointNet, 0.97, 3, 20),
    "graph_convolution": Architecture(
        sequences.GraphConvolution, {"features": (9, 12), "adjacency": (9, 9)}, 0.97
    ),
    "highway": _arch(sequences.Highway, 0.97, 12),
    # the same with other sizes left free, and in older operator sets
    "unet_free": _arch(maps.UNet, 0.97, *TINY, free=(2, 3), more=16),
    "unet_free_dynamo": _arch(maps.UNet, 0.97, *TINY, free=(2, 3), more=16, dynamo=True),
    "style_transfer_free": _arch(maps.StyleTransfer, 0.97, *TINY, free=(2, 3), more=16),
    "ssd_free": _arch(maps.RetinaNet, 0.97, *TINY, free=(2, 3), more=16),
    "bert_free": Architecture(language.Bert, BERT, 0.97, free=(1,), more=-4),
    "gpt_free": Architecture(language.Gpt, {"tokens": TOKENS}, 0.96, free=(1,), more=4),
    "llama_free": Architecture(language.Llama, {"tokens": TOKENS}, 0.97, free=(1,), more=-3),
    "conformer_free": _arch(language.Conformer, 0.97, 16, 12, free=(1,), more=4),
    "wavenet_free": _arch(sequences.WaveNet, 0.97, *FRAMES, free=(1,), more=5),
    "lstm_free": Architecture(sequences.Lstm, {"tokens": Words(40, (12,))}, 0.97, free=(1,), more=3),
    "vgg_fixed": _arch(pictures.Vgg, 0.97, *TINY, dynamic=False),
    "resnet20_opset11": _arch(pictures.ResNet20, 0.97, *TINY, opset=11),
    "mobilenet_v2_opset9": _arch(mobile.mobilenet_v2, 0.97, *TINY, opset=9),
    "shufflenet_v2_opset9": _arch(mobile.shufflenet_v2, 0.97, *TINY, opset=9),
    "squeezenet_opset9": _arch(pictures.SqueezeNet, 0.97, *SMALL, opset=9),
    "ssd_opset11": _arch(maps.Ssd, 0.94, *SMALL, opset=11),
    "efficientnet_opset11": _arch(mobile.efficientnet, 0.97, *TINY, opset=11),
    "vit_opset13": _arch(attention.Vit, 0.97, *TINY, opset=13),
    "convnext_opset11": _arch(attention.convnext, 0.97, *SMALL, opset=11),
    "bert_opset11": Architecture(language.Bert, BERT, 0.97, opset=11),
    "gru_opset9": _arch(sequences.Gru, 0.97, *FRAMES, opset=9),
}
