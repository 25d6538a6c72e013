"""Sets of training images, wherever they are kept: a set gives the images of some indices at some resolution."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Images(Protocol):
    """N square images, premultiplied RGBA."""

    def __len__(self) -> int: ...

    @property
    def poses(self) -> Tensor | None:
        """[N, 2] elevation and azimuth in radians of the cameras, or None where they are not known."""

    def batch(self, indices: Tensor, resolution: int) -> Tensor:
        """[n, 4, resolution, resolution] uint8 of indices [n], on any device."""


@dataclass(frozen=True)
class InMemory:
    """Images that have been decoded, at a resolution that the ones asked for divide."""

    images: Tensor  # [N, 4, R, R] uint8
    poses: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, resolution: int) -> Tensor:
        """See `Images`."""
        return shrink(self.images[indices.to(self.images.device)], resolution)

    def select(self, indices: Tensor) -> InMemory:
        """The set of some of the images."""
        poses, labels = (None if part is None else part[indices] for part in (self.poses, self.labels))
        return InMemory(self.images[indices], poses, labels)


class Decoder(Protocol):
    """What reads one image [4, R, R] uint8; it may be called from several threads."""

    def __call__(self, index: int, resolution: int) -> Tensor: ...


@dataclass(frozen=True)
class OnDisk:
    """Images that are read again whenever they are needed, for sets that do not fit into memory."""

    decode: Decoder
    indices: Tensor  # [N] of the images among the decoder's
    poses: Tensor | None = None
    labels: Tensor | None = None
    threads: int = 4

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor, resolution: int) -> Tensor:
        """See `Images`."""
        wanted: Sequence[int] = self.indices[indices.cpu()].tolist()
        with ThreadPoolExecutor(self.threads) as pool:
            return torch.stack(list(pool.map(lambda index: self.decode(index, resolution), wanted)))

    def select(self, indices: Tensor) -> OnDisk:
        """The set of some of the images."""
        poses, labels = (None if part is None else part[indices] for part in (self.poses, self.labels))
        return OnDisk(self.decode, self.indices[indices], poses, labels, self.threads)


def shrink(images: Tensor, resolution: int) -> Tensor:
    """Images [n, C, R, R] uint8 at a resolution that divides R, each pixel the mean of those it covers."""
    factor, rest = divmod(images.shape[2], resolution)
    if rest or factor < 1:
        raise ValueError(f"shrink: resolution must divide {images.shape[2]}, got {resolution}")
    if factor == 1:
        return images
    return F.avg_pool2d(images.float(), factor).round().to(torch.uint8)
