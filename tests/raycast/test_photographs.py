"""Rays of photographs see what images of the same cameras show, and move the surface as these do."""

from __future__ import annotations

import math

import pytest
import torch

from sdfgan import ops
from sdfgan.cameras import orbit_camera, rotate_axes
from sdfgan.fields import Sphere, Union
from sdfgan.raycast import Lighting, PhotographRays, render, render_rays

SIDE, FOV = 24, math.radians(30)
LIGHT = Lighting(ambient=1.0, headlight=0.0)


def _rays(axes: torch.Tensor) -> PhotographRays:
    """Those of all pixels of one pinhole camera."""
    cameras, focal = orbit_camera(axes, FOV), SIDE / 2 / math.tan(FOV / 2)
    intrinsics = torch.tensor([[focal, focal, SIDE / 2, SIDE / 2]])
    views = ops.pixel_views(cameras, intrinsics, torch.full((1, 2), SIDE))
    pixels = ops.sample_pixels(views, torch.arange(SIDE**2))
    near = torch.full((SIDE**2,), 0.1)
    return PhotographRays(
        pixels.origins, pixels.directions, near, near + 6, axes.expand(SIDE**2, 3, 3), torch.full_like(near, 1 / focal)
    )


@pytest.mark.parametrize("count", [1, 2])
def test_rays_see_what_images_show(count: int) -> None:
    """Values up to what an edge differs that an image takes from a neighbour's ray; areas and gradients closely."""
    axes = rotate_axes(([0.3], [0.5]))
    radius = torch.tensor(0.4, requires_grad=True)
    balls = (
        Sphere(radius=radius)
        if count == 1
        else Union(Sphere(radius=radius), Sphere(radius=0.3).translated((0.5, 0.0, 0.1)))
    )
    background = torch.tensor([0.2, 0.4, 0.6])
    image = render(sdf=balls, axes=axes, resolution=SIDE, fov=FOV, light=LIGHT, background=background)
    seen = render_rays(balls, _rays(axes), background.expand(SIDE**2, 3))
    assert len(seen.points) == len(seen.weights) == len(seen.field.sdf) and seen.counts[0] > SIDE**2
    alpha = image.alpha.flatten()
    assert (seen.alpha - alpha).abs().max() < 0.1
    assert seen.alpha.sum().item() == pytest.approx(alpha.sum().item(), rel=2e-3)
    assert (seen.rgb - image.rgb[0].flatten(1).T).abs().max() < 0.1
    (by_image,) = torch.autograd.grad(alpha.sum(), radius)
    (by_rays,) = torch.autograd.grad(seen.alpha.sum(), radius)
    assert by_rays.item() == pytest.approx(by_image.item(), rel=0.02)


def test_rays_that_begin_behind_the_surface_or_nowhere_see_the_background() -> None:
    rays = _rays(rotate_axes(([0.3], [0.5])))
    background = torch.rand(SIDE**2, 3, generator=torch.Generator().manual_seed(0))
    for nothing in (rays._replace(far=rays.near), rays._replace(near=rays.far - 0.5)):
        seen = render_rays(Sphere(radius=0.5), nothing, background)
        assert torch.equal(seen.rgb, background) and not seen.alpha.any() and len(seen.points) == 0
    none = PhotographRays(*(part[:0] for part in rays))
    assert render_rays(Sphere(radius=0.5), none, background[:0]).rgb.shape == (0, 3)
