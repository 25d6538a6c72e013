"""What a learnt scene looks like: images from given cameras, scores, videos along paths of cameras."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan.cameras import look_at
from sdfgan.data.scenes import Scene, Views
from sdfgan.images import Show, VideoWriter, colour_depth, colour_normals, image_grid, save_image, video_if_possible
from sdfgan.metrics import psnr, ssim
from sdfgan.nerf.config import ResolvedNerfConfig
from sdfgan.nerf.models import SceneModel
from sdfgan.ops.pixels import PixelSamples, PixelViews, pixel_views, sample_pixels
from sdfgan.training.progress import progress

_WIDE_ENOUGH = math.radians(240)  # cameras around more of the scene than this are orbited all the way
_DEPTHS_LOOKED_AT = 2**20
_NOT_KNOWN = 0.5  # grey of pixels without a ray
_CPU_VIDEO = 320  # pixels of the longer side of videos on a CPU
_FARTHEST = 4.0  # depth that is still told apart in an image, times that of the scene's middle


class Look(NamedTuple):
    """An image of the scene; a pixel without a ray (beyond a lens, or masked) is background."""

    rgb: Tensor  # [3, H, W]
    opacity: Tensor  # [1, H, W]
    depth: Tensor  # [1, H, W] infinite where nothing is, NaN without a ray
    normals: Tensor | None  # [3, H, W]

    @property
    def known(self) -> Tensor:
        """The pixels [H, W] that have a ray."""
        return ~self.depth[0].isnan()


class SceneRenderer:
    """Renders a model in pieces of bounded memory."""

    def __init__(
        self,
        model: SceneModel,
        background: Tensor,
        rays: int,
        map_: Callable[..., list] | None = None,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        """`rays` are rendered at a time; `map_` may do so in parallel."""
        self.model, self.background, self.rays, self.autocast = model, background, rays, autocast
        self.map = map_ or (lambda function, items: [function(item) for item in items])

    @torch.no_grad()
    def look(self, cameras: PixelViews, index: int, normals: bool = False) -> Look:
        """What camera `index` sees."""
        start, end = cameras.starts[index : index + 2].tolist()
        width = int(cameras.widths[index])
        pixels = torch.arange(start, end, device=cameras.starts.device)
        parts: list[tuple[Tensor | None, ...]] = self.map(
            lambda part: self._piece(cameras, part, normals), pixels.split(self.rays)
        )
        whole = [None if parts[0][i] is None else torch.cat([part[i] for part in parts]) for i in range(4)]  # type: ignore[misc]
        rgb, opacity, depth, normal = (
            None if x is None else x.float().view(-1, width, x.shape[1]).permute(2, 0, 1) for x in whole
        )
        assert rgb is not None and opacity is not None and depth is not None
        return Look(rgb, opacity, depth, normal)

    def _piece(self, cameras: PixelViews, pixels: Tensor, normals: bool) -> tuple[Tensor | None, ...]:
        seen = sample_pixels(cameras, pixels)
        good = seen.radii.isfinite().nonzero()[:, 0]
        at = PixelSamples(seen.origins[good], seen.directions[good], seen.radii[good], None)
        with torch.no_grad(), self.autocast():  # here, for each thread has its own modes
            found = self.model.look(self.model.rays(at), self.background, normals)
        count = len(pixels)
        rgb = self.background.expand(count, 3).index_put((good,), found.rgb.float())
        opacity = rgb.new_zeros(count).index_put((good,), found.opacity.float())
        depth = rgb.new_full((count,), math.nan).index_put((good,), found.depth.float().nan_to_num(math.inf, math.inf))
        normal = None
        if normals and found.normals is not None:
            normal = rgb.new_zeros(count, 3).index_put((good,), found.normals.float())
        return rgb, opacity[:, None], depth[:, None], normal

    def scores(
        self, views: Views, indices: Sequence[int], lpips: Any = None, on_each: Callable[[], Any] | None = None
    ) -> dict[str, float]:
        """Mean PSNR and SSIM (and LPIPS, given its network) of the known pixels of some views, and how many views.

        Views without a known pixel are left out; where all are, there are no scores.
        """
        found: list[dict[str, float]] = []
        for index in indices:
            seen = self.look(views.cameras, index)
            if seen.known.any():
                pair = seen.rgb.clamp(0, 1), views.image(index, self.background)
                known = None if seen.known.all() else seen.known
                scores = {"psnr": psnr(*pair, known), "ssim": ssim(*pair, known)}
                found.append(scores if lpips is None else {**scores, "lpips": lpips(*pair, known)})
            if on_each is not None:
                on_each()
        means = {name: sum(scores[name] for scores in found) / len(found) for name in (found[0] if found else ())}
        return {**means, "views": len(found)}

    def sheet(self, views: Views, indices: Sequence[int]) -> Tensor:
        """For each view a row: the truth, the rendered image, its depth; grey where the view has no ray."""
        rows = []
        for index in indices:
            seen = self.look(views.cameras, index)
            true = views.image(index, self.background)
            row = (true, seen.rgb.clamp(0, 1), shown(seen, "depth", depth_span(seen)))
            rows += [neutral(image, seen.known) for image in row]
        height, width = (max(row.shape[i] for row in rows) for i in (1, 2))
        padded = [torch.nn.functional.pad(row, (0, width - row.shape[2], 0, height - row.shape[1])) for row in rows]
        return image_grid(torch.stack(padded).cpu(), 3)

    def video(self, path: Path, cameras: PixelViews, show: Show, fps: int) -> None:
        """A video along cameras of one size."""
        span = None
        with VideoWriter(path, fps) as video, progress(len(cameras.widths), path.stem) as bar:
            for index in range(len(cameras.widths)):
                seen = self.look(cameras, index, normals=show == "normals")
                if span is None:  # of the first frame, so that it does not flicker
                    span = depth_span(seen)
                video.add(shown(seen, show, span))
                bar.advance()


def depth_span(seen: Look) -> tuple[float, float]:
    """The depths that an image tells apart."""
    solid = seen.depth[(seen.opacity > 0.5) & seen.depth.isfinite()]
    if len(solid) == 0:
        return 0.0, 1.0
    solid = solid[:: len(solid) // _DEPTHS_LOOKED_AT + 1]  # quantile takes no more than 2^24
    low, middle, high = solid.quantile(solid.new_tensor([0.01, 0.5, 0.99])).tolist()
    return low, max(min(high, _FARTHEST * middle), low + 1e-3)


def shown(seen: Look, show: Show, span: tuple[float, float]) -> Tensor:
    """An image [3, H, W] of colours, depth or normals."""
    if show == "depth":
        depth = torch.where(seen.opacity > 0.5, seen.depth, torch.inf)
        return colour_depth(depth[None], span)[0]
    if show == "normals":
        assert seen.normals is not None
        return colour_normals(seen.normals[None], seen.opacity[None])[0]
    return seen.rgb


def neutral(image: Tensor, known: Tensor) -> Tensor:
    """An image [3, H, W] whose pixels that are not known [H, W] are grey."""
    return torch.where(known, image, _NOT_KNOWN)


# ------------------------------------------------------------------------------------------------ at the end of a run


def score_views(
    renderer: SceneRenderer, config: ResolvedNerfConfig, scene: Scene, path: Path, lpips: Any
) -> dict[str, dict[str, float]]:
    """Scores of the views held out, by the name of their part; writes views.png into `path`."""
    scores = {}
    for name, views in (("val", scene.val), ("test", scene.test)):
        if views is None:
            continue
        views = views.to(renderer.background.device)
        scored = spread(len(views), config.evaluate_views or len(views))
        with progress(len(scored), f"{name} views") as bar:
            scores[name] = renderer.scores(views, scored, lpips, bar.advance)
        if (left_out := len(scored) - int(scores[name]["views"])) > 0:
            print(f"{name}: {left_out} of {len(scored)} views have no pixel with a ray and no score")
        if name == "val" or scene.val is None:
            save_image(path / "views.png", renderer.sheet(views, range(min(4, len(views)))))
    return scores


def write_videos(renderer: SceneRenderer, config: ResolvedNerfConfig, scene: Scene, path: Path) -> list[Path]:
    """An orbit, and what else is asked for; the files in `path` that were written."""
    views = scene.train.to(renderer.background.device)
    scale = config.video_scale
    if scale is None:
        scale = min(1.0, _CPU_VIDEO / int(views.sizes.max())) if views.sizes.device.type == "cpu" else 1.0
    paths = {"orbit": orbit(views, config.video_frames, scale)}
    held_out = scene.test or scene.val
    if config.render_test and held_out is not None:
        paths["test"] = path_cameras(held_out.cameras.camera_to_world.to(views.sizes.device), views, scale)
    shows: list[Show] = ["colour"]
    shows += ["depth"] if config.render_depth else []
    shows += ["normals"] if config.render_normal else []
    made: list[Path] = []
    for name, cameras in paths.items():
        for show in shows:
            stem = name if show == "colour" else f"{name}-{show}"
            file = path / f"{stem}.{config.video_format}"
            if video_if_possible(file, partial(renderer.video, cameras=cameras, show=show, fps=config.fps)) is None:
                return made
            made.append(file)
    return made


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly from the first to the last."""
    return torch.linspace(0, count - 1, min(count, most)).long().tolist()


# -------------------------------------------------------------------------------------------------------------- paths


def orbit(views: Views, frames: int, scale: float) -> PixelViews:
    """Cameras that go round what the views' cameras look at, at their typical distance, height and size.

    All the way where theirs do; else they swing to and fro over the arc that the views cover.
    """
    position = views.cameras.camera_to_world[:, :, 3]
    target = torch.zeros_like(position[0])  # loaders put there what the cameras look at
    apart = position - target
    radius = apart.norm(dim=1).median()
    elevation = (apart[:, 1] / apart.norm(dim=1).clamp(min=1e-6)).clamp(-1, 1).asin()
    azimuth = torch.atan2(apart[:, 0], apart[:, 2])
    middle, arc = _arc(azimuth)
    phase = 2 * math.pi * torch.arange(frames) / max(frames, 1)
    height = elevation.median().clamp(-1.3, 1.3).cpu()
    if arc > _WIDE_ENOUGH:
        around, up = phase, height.expand(frames)
    else:
        spread = (elevation.quantile(0.9) - elevation.quantile(0.1)).cpu() / 2
        around, up = middle + 0.4 * arc * phase.sin(), height + 0.5 * spread * phase.cos()
    direction = torch.stack((up.cos() * around.sin(), up.sin(), up.cos() * around.cos()), 1).to(position)
    return path_cameras(look_at(target + radius * direction, target), views, scale)


def path_cameras(poses: Tensor, views: Views, scale: float) -> PixelViews:
    """Cameras [F, 3, 4] with the size and focal length of the first view, without its lens."""
    height, width = (max(2, round(side * scale / 2) * 2) for side in views.sizes[0].tolist())
    fx, fy = views.cameras.intrinsics[0, :2].tolist()
    ratio = width / int(views.sizes[0, 1])
    intrinsics = poses.new_tensor([fx * ratio, fy * ratio, width / 2, height / 2]).expand(len(poses), 4).contiguous()
    sizes = torch.tensor([height, width], device=poses.device).expand(len(poses), 2)
    return pixel_views(poses.contiguous(), intrinsics, sizes)


def _arc(azimuth: Tensor) -> tuple[float, float]:
    """The middle and the width of the smallest arc that holds all azimuths [N]."""
    ordered = azimuth.sort().values.double()
    gaps = torch.cat((ordered[1:], ordered[:1] + 2 * math.pi)) - ordered
    widest = int(gaps.argmax())
    arc = 2 * math.pi - gaps[widest].item()
    first = ordered[(widest + 1) % len(ordered)].item()
    return first + arc / 2, arc
