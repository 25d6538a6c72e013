"""What a renderer gives, be it of surfaces (`sdfgan.raycast`) or of volumes (`sdfgan.volume`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdfgan.checks import described
from sdfgan.fields.base import FieldSample


@dataclass(frozen=True)
class Rendering:
    """Images [B, C, H, W] of resolution H = W, and the field's values from which they were made."""

    rgb: Tensor  # [B, 3, H, W] shaded colour over the background (premultiplied by alpha if that is black)
    alpha: Tensor  # [B, 1, H, W] coverage in [0, 1]
    depth: Tensor  # [B, 1, H, W] distance along the unit ray; infinite where alpha is 0
    normals: Tensor  # [B, 3, H, W] unit world normals; 0 where alpha is 0
    hit: Tensor  # [B, 1, H, W] bool: the ray through the pixel's centre meets the surface
    field: FieldSample  # at the samples, flat
    counts: Tensor  # [2] int64: points evaluated while tracing for rays, and in all (with idle lanes)
    valid: Tensor | None = None  # bool, which of the field's samples count; None: all
    image: Tensor | None = None  # int64, to which image each of them belongs, ascending; None: unknown

    def __repr__(self) -> str:
        return described(self)

    @property
    def queries(self) -> int:
        """Points evaluated while tracing. Waits for the device."""
        return int(self.counts[0])

    @property
    def rgba(self) -> Tensor:
        """[B, 4, H, W]."""
        return torch.cat([self.rgb, self.alpha], dim=1)
