"""Looking at a generator's shapes: from which sides, any number of images, and videos along camera paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdfgan import conditions
from sdfgan.cameras import PoseDistribution, Range, camera_distance, orbit_path, rotate_axes
from sdfgan.fields import Field, PiGanField
from sdfgan.images import Show, VideoWriter, colour_depth, colour_normals, image_grid
from sdfgan.raycast import Rendering, render
from sdfgan.training.progress import progress
from sdfgan.volume.render_images import render_images

_RAYS_AT_ONCE = 2**17
_WHITE = (1.0, 1.0, 1.0)
_FULL_TURN = math.radians(300)  # the poses of a data set go round with gaps
_SLANT, _SWING = math.radians(30), math.radians(15)

Map = Callable[..., Iterable[Rendering]]


@dataclass(frozen=True)
class ViewRange:
    """From where a run's shapes are looked at: all round, or from no other azimuths than it learned from. Radians."""

    elevation: float
    azimuths: Range
    swing: float = _SWING  # of the elevation in an orbit

    @classmethod
    def of(cls, poses: PoseDistribution) -> ViewRange:
        """The middle elevation of the poses that a run learned from, and the range of their azimuths."""
        low, high = poses.elevation
        view_range = cls((low + high) / 2, poses.azimuth)
        return (
            view_range
            if view_range.all_round
            else cls(view_range.elevation, view_range.azimuths, min(_SWING, (high - low) / 2))
        )

    @property
    def all_round(self) -> bool:
        """Whether the azimuths are those of a full turn."""
        return self.azimuths[1] - self.azimuths[0] >= _FULL_TURN

    @property
    def front(self) -> float:
        """The azimuth in the middle; 0 all round."""
        return 0.0 if self.all_round else sum(self.azimuths) / 2

    @property
    def reach(self) -> float:
        """How far a camera goes to both sides of the front; 30 degrees all round."""
        return _SLANT if self.all_round else (self.azimuths[1] - self.azimuths[0]) / 2

    @property
    def slant(self) -> float:
        """The azimuth that one image shows most from."""
        return _SLANT if self.all_round else self.front

    def spread(self, count: int) -> tuple[Tensor, Tensor]:
        """Elevations and azimuths [count] each: all round from azimuth 0, or from end to end of the range."""
        azimuth = 2 * math.pi * torch.arange(count) / count
        if not self.all_round:
            low, high = self.azimuths if count > 1 else (self.front, self.front)
            azimuth = torch.linspace(low, high, count)
        return torch.full_like(azimuth, self.elevation), azimuth

    def turntable(self, frames: int, start: float | None = None, swing: float = 0.0) -> tuple[Tensor, Tensor]:
        """A path [frames] of cameras that loops: once round, or to both ends of the range, which takes in `start`."""
        if self.all_round:
            return orbit_path(frames, self.elevation, start=start or 0.0, swing=swing)
        start = self.front if start is None else self.front + math.remainder(start - self.front, 2 * math.pi)
        low, high = min(self.azimuths[0], start), max(self.azimuths[1], start)
        middle, reach = (low + high) / 2, (high - low) / 2
        phase = 2 * math.pi * torch.arange(frames) / frames
        first = math.asin(min(max((start - middle) / reach, -1.0), 1.0)) if reach else 0.0
        elevation = (self.elevation + swing * phase.cos()).clamp(-math.pi / 2, math.pi / 2)
        return elevation, middle + reach * (phase + first).sin()


def look(generator: Field, condition: Any, axes: Tensor, **options: Any) -> Rendering:
    """Images for people: `raycast.render`, or of volumes `volume.render_images`, with its options."""
    if isinstance(generator, PiGanField):
        return render_images(generator, axes, condition, near_far=generator.near_far, **options)
    return render(sdf=generator, axes=axes, condition=condition, **options)


class ImageRenderer:
    """Renders shapes of a generator on white, with any options of `look`.

    `map_` may work on several batches at a time.
    """

    def __init__(self, generator: Field, fov: float, map_: Map = map, **options: Any) -> None:
        self._generator, self._fov, self._map, self._options = generator, fov, map_, options
        distance = camera_distance(fov)
        self.span = (distance - 1, distance + 1)  # of depths that are to be comparable, as frames of a video

    def look(
        self, condition: Any, axes: Tensor, resolution: int, on_progress: Callable[[int], None] | None = None
    ) -> list[Rendering]:
        """One image per row of a condition and of axes [N, 3, 3], in batches; `on_progress` gets their sizes."""
        return list(self.batches(condition, axes, resolution, on_progress))

    def batches(
        self, condition: Any, axes: Tensor, resolution: int, on_progress: Callable[[int], None] | None = None
    ) -> Iterable[Rendering]:
        """The same, each batch when it is asked for, as far as `map_` waits."""
        device = next(self._generator.parameters()).device

        def some(rows: Tensor) -> Rendering:
            with torch.no_grad():  # the mode does not reach other threads by itself
                rendering = look(
                    self._generator,
                    conditions.rows(condition, rows.to(device)),
                    axes[rows].to(device),
                    resolution=resolution,
                    fov=self._fov,
                    background=_WHITE,
                    **self._options,
                )
            if on_progress is not None:
                on_progress(len(rows))
            return rendering

        at_once = max(1, _RAYS_AT_ONCE // resolution**2)
        return self._map(some, torch.arange(len(axes)).split(at_once))

    def views(self, condition: Any, count: int, view_range: ViewRange) -> tuple[Any, Tensor]:
        """What `look` needs to see each row from `count` sides, one row after the other."""
        axes = rotate_axes(view_range.spread(count))
        shapes = conditions.count(condition)
        repeated = torch.arange(shapes).repeat_interleave(count)
        return conditions.rows(condition, repeated), axes.repeat(shapes, 1, 1)

    def grid(self, condition: Any, count: int, view_range: ViewRange, resolution: int, columns: int) -> Tensor:
        """Each shape from `count` sides, as one image [3, H, W]."""
        return sheet(shown(self.look(*self.views(condition, count, view_range), resolution)), columns)

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
        with VideoWriter(path, fps) as video, progress(len(all_axes), "frames") as bar:
            for index, axes in enumerate(all_axes):
                condition = condition_at(index)
                shapes = conditions.count(condition)
                images = self.look(condition, axes.expand(shapes, 3, 3), resolution)
                video.add(sheet(shown(images, show, self.span), math.ceil(math.sqrt(shapes)), show))
                bar.advance()


def shown(renderings: Iterable[Rendering], show: Show = "colour", span: tuple[float, float] | None = None) -> Tensor:
    """All images [N, 3, H, W] of some renderings, on the CPU; `span` of depths as in `colour_depth`."""
    renderings = list(renderings)
    if show == "depth":
        return colour_depth(torch.cat([rendering.depth.cpu() for rendering in renderings]), span)
    if show == "normals":
        return torch.cat([colour_normals(rendering.normals, rendering.alpha).cpu() for rendering in renderings])
    return torch.cat([rendering.rgb.cpu() for rendering in renderings])


def sheet(images: Tensor, columns: int, show: Show = "colour") -> Tensor:
    """What `shown` gave as one image [3, H, W], with empty places as what is behind shapes: white, else black."""
    return image_grid(images, columns, fill=1.0 if show == "colour" else 0.0)


def alphas(renderings: Iterable[Rendering]) -> Tensor:
    """The silhouettes [N, 1, H, W] of the same."""
    return torch.cat([rendering.alpha.cpu() for rendering in renderings])
