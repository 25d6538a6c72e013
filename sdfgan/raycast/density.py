"""Fewer final evaluations: opaque blocks of pixels share one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sdfgan.raycast.layers import LayerSamples


class SharedSamples(NamedTuple):
    """Which samples are kept, and which pixel takes its values from which of them."""

    kept: Tensor  # [N] bool
    pixels: Tensor  # [P] all pixels that have a sample, ascending
    source: Tensor  # [P] which is itself one that keeps its own


def shared_samples(samples: LayerSamples, density: int) -> SharedSamples:
    """Blocks of `density`^2 pixels that are opaque, without an edge in front, keep the sample of one in the middle."""
    side, blocks = samples.resolution, samples.resolution // density
    first = samples.first
    pixels = samples.pixel[first]
    images = int(pixels[-1]) // side**2 + 1 if len(pixels) else 0
    opaque = torch.zeros(images * side**2, dtype=torch.bool, device=pixels.device)
    opaque.index_fill_(0, samples.pixel[first & samples.opaque], True)
    whole = opaque.view(images, blocks, density, blocks, density).all(4).all(2).flatten()  # [images blocks^2]

    def block_and_middle(pixel: Tensor) -> tuple[Tensor, Tensor]:
        image, y, x = pixel // side**2, pixel // side % side // density, pixel % side // density
        block = (image * blocks + y) * blocks + x
        middle = (image * side + y * density + density // 2) * side + x * density + density // 2
        return block, middle

    block, middle = block_and_middle(samples.pixel)
    kept = ~whole[block] | (samples.pixel == middle)
    block, middle = block_and_middle(pixels)
    return SharedSamples(kept, pixels, torch.where(whole[block], middle, pixels))
