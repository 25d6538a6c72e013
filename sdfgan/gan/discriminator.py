"""The network that tells pictures of shapes from renderings: a small residual one, as StyleGAN2 lays them out."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2
_STDDEV_GROUP = 4


class ResidualDown(nn.Module):
    """Two 3x3 convolutions and a halving of the picture, beside a skip connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.second = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first(x), _SLOPE)
        y = F.leaky_relu(self.second(y), _SLOPE)
        return (F.avg_pool2d(y, 2) + self.skip(F.avg_pool2d(x, 2))) / math.sqrt(2)


class Discriminator(nn.Module):
    """Logits [B] of pictures [B, 4, R, R], premultiplied RGBA in [0, 1]; R is a power of two from 16."""

    def __init__(self, resolution: int, channels: int = 32) -> None:
        super().__init__()
        halvings = int(math.log2(resolution)) - 3  # from half the resolution down to 4
        widths = [min(channels * 2**level, 512) for level in range(halvings + 1)]
        self.stem = nn.Conv2d(4, channels, 4, stride=2, padding=1)
        self.blocks = nn.Sequential(*(ResidualDown(a, b) for a, b in pairwise(widths)))
        self.last = nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1)
        self.head = nn.Linear(widths[-1] * 16, 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, _SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.head.weight *= 0.3
        # A fifth faster on a CPU. torch has this overload, its stubs do not.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(self.stem(images * 2 - 1), _SLOPE)
        x = self.blocks(x)
        x = torch.cat([x, minibatch_stddev(x)], dim=1)
        return self.head(F.leaky_relu(self.last(x), _SLOPE).flatten(1))[:, 0]


def minibatch_stddev(x: Tensor) -> Tensor:
    """How much the pictures of a group of four differ, as one more channel [B, 1, H, W] (Karras et al. 2018)."""
    batch, _, height, width = x.shape
    group = _STDDEV_GROUP if batch % _STDDEV_GROUP == 0 else batch
    grouped = x.unflatten(0, (group, batch // group))
    spread = torch.sqrt(grouped.var(0, unbiased=False) + 1e-8).mean((1, 2, 3))  # [B / group]
    return spread.repeat(group).view(batch, 1, 1, 1).expand(batch, 1, height, width)
