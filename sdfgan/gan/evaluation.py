"""How good a generator's images are: distances to real ones, from fixed seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sdfgan.cameras import PoseDistribution, rotate_axes
from sdfgan.data.image_sets import Images
from sdfgan.errors import UserError
from sdfgan.fields import Field
from sdfgan.gan import drawing
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.inception import MIN_IMAGES, Inception
from sdfgan.metrics import frechet_distance, kernel_distance, precision_recall, sliced_wasserstein
from sdfgan.training.progress import progress
from sdfgan.training.ranks import Ranks

SEED = 77  # of the latents and poses that images are compared with
_AT_ONCE = 32  # images

Map = Callable[..., Iterable[Any]]


def random_images(
    generator: Field,
    config: ResolvedGanConfig,
    poses: PoseDistribution,
    count: int,
    *,
    seed: int = SEED,
    truncate: Callable[[Any], Any] = lambda condition: condition,
    map_: Map = map,
    ranks: Ranks | None = None,
) -> Tensor:
    """Images [count, C, R, R] of random shapes from random sides, on the CPU; the same for any number of ranks.

    `config` is that of the step whose images are wanted; `truncate` is applied to conditions.
    """
    ranks = ranks or Ranks()
    random = torch.Generator().manual_seed(seed)
    latents = config.latent_std * torch.randn(count, generator.latent_size, generator=random)
    axes = rotate_axes(poses.sample(count, random))
    lights = drawing.draw_lights(axes, config, random)
    missing = -count % ranks.count
    rows = torch.arange(count + missing).clamp(max=count - 1)
    mine = rows.chunk(ranks.count)[ranks.rank]
    device = next(generator.parameters()).device

    def some(rows: Tensor) -> Tensor:
        with torch.no_grad():  # the mode does not reach other threads by itself
            condition = truncate(generator.condition(latents[rows].to(device)))
            made = drawing.draw(generator, condition, axes[rows].to(device), config, lights[rows].to(device))
            return made.channels(config.channels)

    made: list[Tensor] = []
    with progress(len(mine), "evaluating", shown=ranks.first) as bar:
        for group in mine.split(8 * _AT_ONCE):
            made += map_(some, group.split(_AT_ONCE))
            bar.advance(len(group))
    return ranks.gather(torch.cat(made)).cpu()[:count]


def real_images(reals: Images, count: int, config: ResolvedGanConfig, start: int = 0) -> Tensor:
    """`count` images [count, C, R, R] in [0, 1] from the `start`-th on, as the discriminator sees them."""
    parts = torch.arange(start, start + count).split(1024)
    images = torch.cat([reals.batch(part, config.resolution).cpu() for part in parts])
    return images[:, : config.channels].float() / 255


def image_scores(fakes: Tensor, reals: Tensor, inception: Inception | None = None) -> dict[str, float]:
    """Sliced-Wasserstein distance of images [N, C, R, R]; with a feature network also FID, KID, precision, recall.

    Features are those of the colours on black.
    """
    scores = {"swd": sliced_wasserstein(fakes, reals)}
    if inception is not None:
        ours, theirs = features(inception, fakes), features(inception, reals)
        precision, recall = precision_recall(ours, theirs)
        scores |= {"fid": frechet_distance(ours, theirs), "kid": kernel_distance(ours, theirs)}
        scores |= {"precision": precision, "recall": recall}
    return scores


def features(inception: torch.nn.Module, images: Tensor) -> Tensor:
    """Features [N, F] of the colours of images [N, 3 or 4, R, R]."""
    if len(images) < MIN_IMAGES:
        raise UserError(f"FID needs at least {MIN_IMAGES} images on each side, got {len(images)}")
    found = []
    device = next(iter(inception.parameters()), images).device
    with progress(len(images), "features") as bar:
        for part in images[:, :3].split(_AT_ONCE):
            found.append(inception(part.to(device)).float().cpu())
            bar.advance(len(part))
    return torch.cat(found)
