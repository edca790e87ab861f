"""A CIFAR ResNet pruned by Torch-Pruning; in an environment of its own (`make torch-pruning`).

python torch_pruning_resnet.py WEIGHTS.npz ROWS.npz OUT.onnx CUT taylor|magnitude

WEIGHTS holds the network's constants under the names of its checkpoint, ROWS `images` and `labels` for gradients.
Option-A shortcuts (every second pixel, with channels of zeros) are written as 1 x 1 convolutions that compute the same,
since the pruner follows no padding of channels. The pruner is the group-wise one with global ranking, and takes small
steps until the multiply-adds are cut CUT times. Batch norms stay nodes of their own in OUT.
"""

# Torch-Pruning lives in an environment of its own
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportCallIssue=false
from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn

STEPS = 100  # from the whole network to nothing
ROWS = 128  # pictures whose gradients each step looks at
WIDTHS = (16, 32, 64)
SEED = 0


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else self.padded(inputs, outputs, stride)

    @staticmethod
    def padded(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
        """The shortcut that pads with channels of zeros, half before and half after, as a convolution."""
        found = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        nn.init.zeros_(found.weight)
        before = (outputs - inputs) // 2
        with torch.no_grad():
            for channel in range(inputs):
                found.weight[before + channel, channel, 0, 0] = 1
        return found

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inputs = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, start=1):
            blocks = []
            for index in range(depth):
                blocks.append(Block(inputs, width, 2 if stage > 1 and index == 0 else 1))
                inputs = width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def network(weights: dict[str, np.ndarray]) -> ResNet:
    depth = sum(name.startswith("layer1.") and name.endswith(".conv1.weight") for name in weights)
    model = ResNet(depth)
    left_out = model.load_state_dict({n: torch.from_numpy(v) for n, v in weights.items()}, strict=False)
    missing = [n for n in left_out.missing_keys if "shortcut" not in n and "num_batches" not in n]
    if missing or left_out.unexpected_keys:
        raise SystemExit(f"the weights do not fit: {missing} {left_out.unexpected_keys}")
    return model.eval()


def main(weights: str, rows: str, out: str, cut: str, importance: str) -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    model = network(dict(np.load(weights)))
    example = torch.zeros(1, 3, 32, 32)
    dense, _ = tp.utils.count_ops_and_params(model, example)
    taylor = importance == "taylor"
    judge = tp.importance.GroupTaylorImportance() if taylor else tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.MetaPruner(
        model,
        example,
        importance=judge,
        global_pruning=True,
        iterative_steps=STEPS,
        pruning_ratio=1.0,
        max_pruning_ratio=0.9,
        ignored_layers=[model.linear],
    )
    found = np.load(rows)
    images, labels = torch.from_numpy(found["images"]), torch.from_numpy(found["labels"])
    operations, parameters = dense, 0.0
    for step in range(STEPS):
        if taylor:
            model.zero_grad()
            part = slice(step * ROWS % len(images), step * ROWS % len(images) + ROWS)
            F.cross_entropy(model(images[part]), labels[part]).backward()
        pruner.step()
        operations, parameters = tp.utils.count_ops_and_params(model, example)
        if operations * float(cut) <= dense:
            break
    with torch.no_grad():
        loss = float(F.cross_entropy(model(images), labels))
    print(
        f"torch-pruning {tp.__version__}, {importance}: cut {dense / operations:.3f} x by its own count, "
        f"{parameters} parameters, loss {loss:.3f} on {len(images)} training pictures"
    )
    torch.onnx.export(
        model,
        (example,),
        out,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "N"}, "logits": {0: "N"}},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
