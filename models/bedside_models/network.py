"""The reference network: a small residual CNN whose saliency map costs nothing.

Plain 3 x 3 convolutions, batch norm and ReLU only: every layer has a fast int8 kernel in both
engines. Global average pooling and one linear layer make the class-activation map exact: the
logit is the mean of the map (Zhou et al. 2016, arXiv:1512.04150).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bedside_core.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Shape of the network.

    Attributes:
        stem: channels after the first stride-2 convolution.
        stages: for each stage the widths of its residual blocks; the first block halves the size.
        input_size: side of the square input in pixels.
    """

    stem: int
    stages: tuple[tuple[int, ...], ...]
    input_size: int

    @property
    def features(self) -> int:
        """Channels of the pooled feature vector."""
        return self.stages[-1][-1]

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> "Architecture":
        """Return the architecture in JSON `fields`.

        Raises:
            InvalidInputError: a field is missing or of the wrong kind.
        """
        try:
            return cls(
                stem=int(fields["stem"]),
                stages=tuple(tuple(int(w) for w in stage) for stage in fields["stages"]),
                input_size=int(fields["input_size"]),
            )
        except (KeyError, TypeError, ValueError) as cause:
            raise InvalidInputError("checkpoint: architecture cannot be read") from cause


class _Block(nn.Module):  # type: ignore[misc,unused-ignore]
    """Two 3 x 3 convolutions with a shortcut (He et al. 2016, basic block)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class Network(nn.Module):  # type: ignore[misc,unused-ignore]
    """Image in; logit, pooled features and class-activation map out."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        width = architecture.stem
        layers: list[nn.Module] = [
            nn.Conv2d(1, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        for stage in architecture.stages:
            for number, outputs in enumerate(stage):
                layers.append(_Block(width, outputs, 2 if number == 0 else 1))
                width = outputs
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Linear(width, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logit (n, 1), features (n, c) and map (n, h, w) for images (n, 1, s, s)."""
        maps = self.backbone(x)
        features = maps.mean(dim=(2, 3))
        logit = self.head(features)
        cam = nn.functional.conv2d(maps, self.head.weight[:, :, None, None], self.head.bias)
        return logit, features, cam[:, 0]

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (n,) only, for training."""
        pooled: Tensor = self.backbone(x).float().mean(dim=(2, 3))
        return self.head(pooled)[:, 0]


def multiply_adds(architecture: Architecture) -> int:
    """Return the multiply-add operations of one forward pass, convolutions and head."""
    size = (architecture.input_size + 1) // 2
    width = architecture.stem
    total = 9 * width * size * size
    for stage in architecture.stages:
        for number, outputs in enumerate(stage):
            if number == 0:
                size = (size + 1) // 2
            shortcut = width * outputs if number == 0 or width != outputs else 0
            total += size * size * (9 * width * outputs + 9 * outputs * outputs + shortcut)
            width = outputs
    return total + 2 * width * size * size
