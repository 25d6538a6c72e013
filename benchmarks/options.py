"""What the command line of `bench.py` says to every case."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from blobs import blobs
from sdfgan import cameras
from sdfgan.fields import FilmSirenSDF


@dataclass(frozen=True)
class Options:
    """What to measure with, and where."""

    quick: bool
    generator: Path | None
    device: str = "cpu"

    def blobs(self, width: int) -> tuple[FilmSirenSDF, Tensor]:
        """See `blobs.blobs`."""
        return blobs(width, self.quick, self.device)

    def axes(self, images: int) -> Tensor:
        """Cameras from all around."""
        angles = torch.linspace(-0.4, 0.9, images), torch.linspace(0, 2 * math.pi * (1 - 1 / images), images)
        return cameras.rotate_axes(angles).to(self.device)
