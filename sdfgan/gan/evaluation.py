"""How good a generator is: distances of its images to real ones, and of its shapes to true ones, from fixed seeds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdfgan.cameras import PoseDistribution, rotate_axes
from sdfgan.data.image_sets import Images
from sdfgan.data.shapes import SHAPE_FAMILIES, random_shapes
from sdfgan.errors import UserError
from sdfgan.fields import Field
from sdfgan.gan import drawing
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.inception import MIN_IMAGES, Inception
from sdfgan.meshes import marching_cubes
from sdfgan.metrics import (
    ShapeScores,
    frechet_distance,
    kernel_distance,
    precision_recall,
    shape_scores,
    sliced_wasserstein,
)
from sdfgan.training.progress import progress
from sdfgan.training.ranks import Ranks

SEED = 77  # of the latents and poses that images are compared with, and of true shapes
_AT_ONCE = 32  # images
_SHAPE_RESOLUTION, _SHAPE_POINTS = 40, 1024

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


# -------------------------------------------------------------------------------------------------------------- shapes


def set_scores(generator: Field, config: ResolvedGanConfig, count: int, seed: int = SEED) -> dict[str, float]:
    """MMD, coverage and 1-NNA by Chamfer distance of `count` generated shapes against the built-in set's.

    Shapes of the generator without a surface are left out, and their share is given. `floor_` is the same for a second
    set of true shapes in place of the generated ones.
    """
    true = true_clouds(count, seed, config.shapes)
    random = torch.Generator().manual_seed(seed)
    latents = config.latent_std * torch.randn(count, generator.latent_size, generator=random)
    device = next(generator.parameters()).device
    clouds = []
    with progress(count, "shapes") as bar, torch.no_grad():
        for index, latent in enumerate(latents.to(device).split(1)):
            cloud = surface_points(generator, generator.condition(latent), seed + index)
            if cloud is not None:
                clouds.append(cloud)
            bar.advance()
    floor = {f"floor_{name}": value for name, value in _floor(count, seed, config.shapes)._asdict().items()}
    if not clouds:
        return {"shapeless": 1.0, **floor}
    found = shape_scores(torch.stack(clouds), true)
    return {**found._asdict(), "shapeless": 1 - len(clouds) / count, **floor}


@functools.cache
def _floor(count: int, seed: int, family: str) -> ShapeScores:
    return shape_scores(true_clouds(count, seed + 1, family), true_clouds(count, seed, family))


@functools.cache
def true_clouds(count: int, seed: int, family: str = "solids") -> Tensor:
    """Points [count, P, 3] on random shapes of a built-in set, classes in turn."""
    classes = SHAPE_FAMILIES[family]
    random = torch.Generator().manual_seed(seed)
    clouds = []
    for index in range(count):
        name = classes[index % len(classes)]
        on_cylinder = index // len(classes) % 2 == 0
        field, _ = random_shapes(name, 1, random, on_cylinder=on_cylinder)
        cloud = surface_points(field, None, seed + index)
        assert cloud is not None  # every class has a surface
        clouds.append(cloud)
    return torch.stack(clouds)


def surface_points(field: Field, condition: Any, seed: int) -> Tensor | None:
    """Points [P, 3] spread by area over a field's surface, or None if it has none."""
    import trimesh

    try:
        mesh = marching_cubes(field, condition, _SHAPE_RESOLUTION)
    except UserError:
        return None
    points, _ = trimesh.sample.sample_surface(mesh, _SHAPE_POINTS, seed=np.random.default_rng(seed))
    return torch.from_numpy(np.asarray(points, np.float32))
