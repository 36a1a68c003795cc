"""The small networks of the CIFAR literature.

A factory is ``(classes, channels, **arguments) -> nn.Module``. Its networks take images of 8x8 pixels and more, and every
channel count in them follows from one ``width``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

Factory = Callable[..., nn.Module]


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _conv_bn_relu(inputs: int, outputs: int) -> list[nn.Module]:
    return [_conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _plain(stages: list[list[int]], classes: int, channels: int) -> nn.Module:
    """Stages of 3x3 convolutions with pooling between them. Pooling rounds up, so that one pixel stays one pixel."""
    features: list[nn.Module] = []
    for i, stage in enumerate(stages):
        features += [nn.MaxPool2d(2, ceil_mode=True)] if i else []
        for width in stage:
            features += _conv_bn_relu(channels, width)
            channels = width
    return _classify(OrderedDict(features=nn.Sequential(*features)), channels, classes)


def _classify(body: OrderedDict[str, nn.Module], width: int, classes: int) -> nn.Module:
    """``body``, global average pooling and a linear classifier, with He et al.'s (2015) initial convolutions."""
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(width, classes)}
    model = nn.Sequential(OrderedDict({**body, **head}))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def cnn(classes: int, channels: int, width: int = 32, stages: int = 3) -> nn.Module:
    """Two 3x3 convolutions a stage, of widths w, 2w, 4w and so on, each with BatchNorm and ReLU.

    A stage more at half the width keeps the number of weights, and saves two thirds of the MACs.
    """
    w = _positive(width)
    return _plain([[w * 2**stage] * 2 for stage in range(_positive(stages, "stages"))], classes, channels)


def vgg16_bn(classes: int, channels: int, width: int = 64) -> nn.Module:
    """VGG-16 (Simonyan and Zisserman 2014) with BatchNorm, in its CIFAR form: one linear layer after global pooling."""
    w = _positive(width)
    return _plain([[w] * 2, [2 * w] * 2, [4 * w] * 3, [8 * w] * 3, [8 * w] * 3], classes, channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
        # Option A (zero padding of channels) has no weights to cut, so that its channels could not be pruned apart.
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def _resnet(blocks: int, classes: int, channels: int, width: int) -> nn.Module:
    """6n+2 layers (He et al. 2015, section 4.2): three stages of n blocks, of widths w, 2w and 4w."""
    w = _positive(width)
    stages = OrderedDict[str, nn.Module](stem=nn.Sequential(*_conv_bn_relu(channels, w)))
    inputs = w
    for stage, (outputs, stride) in enumerate([(w, 1), (2 * w, 2), (4 * w, 2)], start=1):
        first = BasicBlock(inputs, outputs, stride)
        stages[f"stage{stage}"] = nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))
        inputs = outputs
    return _classify(stages, inputs, classes)


def resnet20(classes: int, channels: int, width: int = 16) -> nn.Module:
    """The CIFAR ResNet of 20 layers."""
    return _resnet(3, classes, channels, width)


def resnet56(classes: int, channels: int, width: int = 16) -> nn.Module:
    """The CIFAR ResNet of 56 layers."""
    return _resnet(9, classes, channels, width)


def _positive(value: int, name: str = "width") -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


MODELS: Mapping[str, Factory] = {"cnn": cnn, "resnet20": resnet20, "resnet56": resnet56, "vgg16_bn": vgg16_bn}
