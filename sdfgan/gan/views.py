"""Looking at a generator's shapes: any number of pictures, a few at a time, and videos along camera paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sdfgan.cameras import camera_distance, rotate_axes
from sdfgan.fields import Field
from sdfgan.gan import codes, picture
from sdfgan.pictures import VideoWriter, colour_depth, colour_normals, image_grid
from sdfgan.raycast import Rendering
from sdfgan.training.progress import progress

_RAYS_AT_ONCE = 2**17
_WHITE = (1.0, 1.0, 1.0)

Map = Callable[..., Iterable[Rendering]]
Show = Literal["colour", "depth", "normals"]


class Viewer:
    """Renders shapes of a generator on white; `map_` may work on several batches at a time."""

    def __init__(self, generator: Field, fov: float, map_: Map = map) -> None:
        self._generator, self._fov, self._map = generator, fov, map_
        distance = camera_distance(fov)
        self._span = (distance - 1, distance + 1)  # of depths in a video, so that frames do not flicker

    def look(
        self, condition: Any, axes: Tensor, resolution: int, on_progress: Callable[[int], None] | None = None
    ) -> list[Rendering]:
        """One picture per row of a condition and of axes [N, 3, 3], in batches; `on_progress` gets their sizes."""
        device = next(self._generator.parameters()).device

        def some(rows: Tensor) -> Rendering:
            with torch.no_grad():  # the mode does not reach other threads by itself
                rendering = picture.look(
                    self._generator,
                    codes.rows(condition, rows.to(device)),
                    axes[rows].to(device),
                    resolution=resolution,
                    fov=self._fov,
                    background=_WHITE,
                )
            if on_progress is not None:
                on_progress(len(rows))
            return rendering

        at_once = max(1, _RAYS_AT_ONCE // resolution**2)
        return list(self._map(some, torch.arange(len(axes)).split(at_once)))

    def views(self, condition: Any, count: int, elevation: float) -> tuple[Any, Tensor]:
        """What `look` needs to see each row from `count` sides all round, one row after the other."""
        azimuth = 2 * math.pi * torch.arange(count) / count
        axes = rotate_axes((torch.full_like(azimuth, elevation), azimuth))
        shapes = len(next(iter(codes.tensors_of(condition).values())))
        repeated = torch.arange(shapes).repeat_interleave(count)
        return codes.rows(condition, repeated), axes.repeat(shapes, 1, 1)

    def grid(self, condition: Any, count: int, elevation: float, resolution: int, columns: int) -> Tensor:
        """Each shape from `count` sides, as one picture [3, H, W]."""
        return image_grid(shown(self.look(*self.views(condition, count, elevation), resolution)), columns)

    def video(
        self,
        path: Path,
        condition_at: Callable[[int], Any],
        angles: tuple[Tensor, Tensor],
        resolution: int,
        fps: int = 24,
        show: Show = "colour",
    ) -> None:
        """A video along a path of cameras, `angles` [F] each; `condition_at(i)` gives all shapes of frame i."""
        all_axes = rotate_axes(angles)
        with VideoWriter(path, fps) as video, progress(len(all_axes), path.stem) as bar:
            for index, axes in enumerate(all_axes):
                condition = condition_at(index)
                shapes = len(next(iter(codes.tensors_of(condition).values())))
                pictures = self.look(condition, axes.expand(shapes, 3, 3), resolution)
                video.add(image_grid(shown(pictures, show, self._span), math.ceil(math.sqrt(shapes))))
                bar.advance()


def shown(renderings: Iterable[Rendering], show: Show = "colour", span: tuple[float, float] | None = None) -> Tensor:
    """All pictures [N, 3, H, W] of some renderings, on the CPU; `span` of depths as in `colour_depth`."""
    renderings = list(renderings)
    if show == "depth":
        return colour_depth(torch.cat([rendering.depth.cpu() for rendering in renderings]), span)
    if show == "normals":
        return torch.cat([colour_normals(rendering.normals, rendering.alpha).cpu() for rendering in renderings])
    return torch.cat([rendering.rgb.cpu() for rendering in renderings])


def alphas(renderings: Iterable[Rendering]) -> Tensor:
    """The silhouettes [N, 1, H, W] of the same."""
    return torch.cat([rendering.alpha.cpu() for rendering in renderings])
