"""From where a scene is seen, how it is drawn, and what an image of it is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan.cameras import DEFAULT_FOV, camera_distance, rotate_axes
from sdfgan.images import Show
from sdfgan.ops.pixels import PixelViews, pixel_views
from sdfgan.raycast import Lighting

_ZOOM = 64.0  # at most, and as its inverse at least


@dataclass(frozen=True)
class View:
    """An orbit camera around `target`, and the size of its image in pixels. Angles in radians."""

    elevation: float = 0.0
    azimuth: float = 0.0
    zoom: float = 1.0  # 1: what is 2 high fills the image
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)  # world, in the middle of the image
    fov: float = DEFAULT_FOV
    height: int = 128
    width: int = 128

    @classmethod
    def of(cls, position: Sequence[float], target: Sequence[float], seen: float, **options: Any) -> View:
        """That of a browser's camera with a vertical field of view `seen`; the view's own `fov` is an option."""
        apart = [float(a) - float(b) for a, b in zip(position, target, strict=True)]
        elevation = math.atan2(apart[1], math.hypot(apart[0], apart[2]))
        zoom = 1 / max(math.hypot(*apart) * math.tan(seen / 2), 1 / _ZOOM)
        x, y, z = map(float, target)
        return cls(elevation, math.atan2(apart[0], apart[2]), max(zoom, 1 / _ZOOM), (x, y, z), **options)

    @property
    def axes(self) -> Tensor:
        """[1, 3, 3]; see `cameras.rotate_axes`."""
        return rotate_axes((torch.tensor([self.elevation]), torch.tensor([self.azimuth])))

    @property
    def distance(self) -> float:
        """Of the camera from the origin."""
        return camera_distance(self.fov)

    def limited(self, side: int) -> View:
        """The same, of fewer pixels where its square would have a larger side."""
        share = min(1.0, side / (self.zoom * self.height))
        return replace(self, height=max(2, int(share * self.height)), width=max(2, int(share * self.width)))

    @property
    def window(self) -> Window:
        """Where its image lies in the square one of an orbit camera, whose middle is the origin."""
        side = max(2, round(self.zoom * self.height))
        right, up = (self.axes[0, :2] @ torch.tensor(self.target)).tolist()
        left, top = round(side / 2 * (1 + right) - self.width / 2), round(side / 2 * (1 - up) - self.height / 2)
        return Window(side, top, left, self.height, self.width)

    def cameras(self, device: str = "cpu", approach: bool = False, supersample: int = 1) -> PixelViews:
        """Its camera, for rays of any pixels. `approach`: it moves to its target and, where it zooms, nearer."""
        side, top, left, height, width = self.window
        z = self.axes[0, 2]
        position, middle = z * self.distance, (side / 2 - left, side / 2 - top)
        if approach:
            position, middle = torch.tensor(self.target) + position / self.zoom, (width / 2, height / 2)
            side = height
        focal = side / 2 * self.distance
        pose = torch.cat([self.axes[0].T, position[:, None]], 1)[None]
        intrinsics = supersample * torch.tensor([[focal, focal, *middle]])
        sizes = supersample * torch.tensor([[height, width]])
        return pixel_views(*(tensor.to(device) for tensor in (pose, intrinsics, sizes)))


class Window(NamedTuple):
    """A part of a square image of `side` pixels, which may reach out of it."""

    side: int
    top: int
    left: int
    height: int
    width: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the square that are in the window."""
        rows, columns = (
            slice(min(max(begin, 0), self.side), min(max(begin + length, 0), self.side))
            for begin, length in ((self.top, self.height), (self.left, self.width))
        )
        return rows, columns

    def cut_from(self, square: Tensor, fill: float = 0.0) -> Tensor:
        """[C, height, width] of an image [C, side, side]; `fill` is what lies outside."""
        rows, columns = self.inside
        before, above = columns.start - self.left, rows.start - self.top
        part = square[:, rows, columns]
        if part.numel() == 0:
            return square.new_full((len(square), self.height, self.width), fill)
        edges = (before, self.width - before - part.shape[2], above, self.height - above - part.shape[1])
        return F.pad(part, edges, value=fill)


@dataclass(frozen=True)
class Style:
    """How a scene is drawn."""

    show: Show = "colour"
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    light: Lighting | None = None  # a headlight
    cut: tuple[int, float] | None = None  # a slice across axis 0, 1 or 2 at a height; what lies before it is cut away
    fine: bool = True  # whether the image is one to stay


class Seen(NamedTuple):
    """What an image is made of, [C, H, W] on the CPU."""

    rgb: Tensor  # premultiplied, on black
    alpha: Tensor
    depth: Tensor  # along unit rays; infinite where nothing is
    normals: Tensor  # unit, world; 0 where nothing is
