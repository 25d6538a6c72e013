"""Looking at a generator's shapes: any number of pictures, a few at a time, and turntable videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from sdfgan.cameras import orbit_path, rotate_axes
from sdfgan.fields import Field
from sdfgan.pictures import VideoWriter, image_grid
from sdfgan.raycast import Rendering, render
from sdfgan.training.progress import progress

_RAYS_AT_ONCE = 2**17
_WHITE = (1.0, 1.0, 1.0)

Map = Callable[..., Iterable[Rendering]]


class Viewer:
    """Renders shapes of a generator on white; `map_` may work on several batches at a time."""

    def __init__(self, generator: Field, fov: float, map_: Map = map) -> None:
        self._generator, self._fov, self._map = generator, fov, map_

    def look(
        self, latents: Tensor, axes: Tensor, resolution: int, on_progress: Callable[[int], None] | None = None
    ) -> list[Rendering]:
        """One picture per row of latents [N, L] and axes [N, 3, 3], in batches; `on_progress` gets their sizes."""

        @torch.no_grad()
        def some(latents: Tensor, axes: Tensor) -> Rendering:
            rendering = render(
                sdf=self._generator,
                axes=axes,
                latents=latents,
                resolution=resolution,
                fov=self._fov,
                background=_WHITE,
            )
            if on_progress is not None:
                on_progress(len(latents))
            return rendering

        at_once = max(1, _RAYS_AT_ONCE // resolution**2)
        axes = axes.to(latents.device)
        return list(self._map(some, latents.split(at_once), axes.split(at_once)))

    def views(self, latents: Tensor, count: int, elevation: float) -> tuple[Tensor, Tensor]:
        """What `look` needs to see each latent from `count` sides all round, one latent after the other."""
        azimuth = 2 * math.pi * torch.arange(count) / count
        axes = rotate_axes((torch.full_like(azimuth, elevation), azimuth))
        return latents.repeat_interleave(count, 0), axes.repeat(len(latents), 1, 1)

    def grid(self, latents: Tensor, count: int, elevation: float, resolution: int, columns: int) -> Tensor:
        """Each of latents [S, L] from `count` sides, as one picture [3, H, W]."""
        return image_grid(colours(self.look(*self.views(latents, count, elevation), resolution)), columns)

    def turntable(
        self, path: Path, latents: Tensor, elevation: float, resolution: int, frames: int, fps: int = 24
    ) -> None:
        """A video in which all of latents [S, L] turn once."""
        all_axes = rotate_axes(orbit_path(frames, elevation))
        columns = math.ceil(math.sqrt(len(latents)))
        with VideoWriter(path, fps) as video, progress(frames, "turntable") as bar:
            for axes in all_axes:
                pictures = self.look(latents, axes.expand(len(latents), 3, 3), resolution)
                video.add(image_grid(colours(pictures), columns))
                bar.advance()


def colours(renderings: Iterable[Rendering]) -> Tensor:
    """All pictures [N, 3, H, W] of some renderings, on the CPU."""
    return torch.cat([rendering.rgb.cpu() for rendering in renderings])


def alphas(renderings: Iterable[Rendering]) -> Tensor:
    """The silhouettes [N, 1, H, W] of the same."""
    return torch.cat([rendering.alpha.cpu() for rendering in renderings])
