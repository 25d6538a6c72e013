"""A picture is the same in a batch as alone: what is beside it has no part in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sdfgan import cameras, fields, ops, raycast
from sdfgan.cameras import DEFAULT_FOV, orbit_camera
from sdfgan.ops import reference
from sdfgan.raycast.levels import march_levels

BATCH = 4
_random = torch.Generator().manual_seed(1)


def some(*shape: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(BATCH, *shape, generator=_random)


SIZE, BOX, OFFSET = some(low=0.2, high=0.7), some(3, low=0.1, high=0.5), some(3, low=-0.3, high=0.3)
WIDTH, ANGLE, COLOUR = some(low=0.05, high=0.3), some(low=0.0, high=3.0), some(3, low=0.1, high=1.0)
LATENTS = torch.randn(BATCH, 8, generator=_random)
AXES = cameras.rotate_axes((some(low=-0.8, high=0.8), some(low=0.0, high=6.0)))

SOLIDS: dict[str, Callable[[Callable[[Tensor], Tensor]], fields.AnalyticField]] = {
    "sphere": lambda of: fields.Sphere(of(SIZE)).translated(of(OFFSET)).coloured(of(COLOUR)),
    "cylinder": lambda of: fields.Cylinder(of(SIZE), of(WIDTH)).rotated(axis=(1.0, 2.0, 3.0), angle=of(ANGLE)),
    "cone": lambda of: fields.Cone(of(SIZE), of(WIDTH), of(WIDTH)).scaled(of(2 * SIZE)),
    "torus and plane": lambda of: fields.Torus(of(SIZE), of(WIDTH)) | fields.Plane((0.0, 1.0, 0.0), -0.4),
    "ellipsoid": lambda of: fields.Ellipsoid(of(BOX)).translated(of(OFFSET)),
    "blend": lambda of: fields.SmoothUnion(fields.Sphere(of(SIZE)), fields.Ellipsoid(of(BOX)), of(WIDTH)),
}


def assert_the_same_alone(draw: Callable[[Callable[[Tensor], Tensor]], raycast.Rendering], atol: float = 0.0) -> None:
    """draw(of): the pictures of images that `of` takes from what has a row for each."""
    together = draw(lambda values: values)
    assert together.hit.float().mean() > 0.05
    for image in range(BATCH):
        alone = draw(lambda values, one=image: values[one : one + 1])
        for name in ("rgb", "alpha", "depth", "normals"):
            ours, theirs = getattr(together, name)[image], getattr(alone, name)[0]
            torch.testing.assert_close(ours, theirs, atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


OPTIONS: list[dict] = [{}, {"edge": "neighbour"}, {"edge": "dfr"}, {"supersample": 2}, {"lipschitz": "estimate"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", SOLIDS)
def test_pictures_of_solids(name: str, options: dict) -> None:
    def draw(of: Callable[[Tensor], Tensor]) -> raycast.Rendering:
        torch.manual_seed(0)  # of the points of the estimate
        with torch.no_grad():
            return raycast.render(sdf=SOLIDS[name](of), axes=of(AXES), resolution=32, **options)

    assert_the_same_alone(draw)


@pytest.mark.parametrize("memory", ["unbounded", "bounded"])
def test_gradients_of_solids(memory: str) -> None:
    """By the sizes of all images at once and by each one's own, in graphs as they are and in pieces."""
    gradients = []
    for images in (slice(0, BATCH), *(slice(i, i + 1) for i in range(BATCH))):
        size, offset = (value[images].clone().requires_grad_() for value in (SIZE, OFFSET))
        solid = fields.Cylinder(size, WIDTH[images]).translated(offset)
        shown = raycast.render(sdf=solid, axes=AXES[images], resolution=32, memory=memory, budget=10**6)
        (shown.rgb.square().sum() + shown.normals.sum()).backward()
        gradients.append(torch.cat([size.grad[:, None], offset.grad], 1))
    torch.testing.assert_close(gradients[0], torch.cat(gradients[1:]), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("algorithm", ["march", "dfr"])
def test_samples_of_solids(algorithm: str) -> None:
    """With where their rays start and end."""
    for name in ("sphere", "ellipsoid"):
        together = raycast.multiscale(AXES, (8, 4), None, SOLIDS[name](lambda values: values), algorithm=algorithm)
        for image in range(BATCH):
            solid = SOLIDS[name](lambda values, one=image: values[one : one + 1])
            alone = raycast.multiscale(AXES[image : image + 1], (8, 4), None, solid, algorithm=algorithm)
            own = together.rays[(together.image == image).nonzero()[:, 0]]
            assert torch.equal(own.start, alone.rays.start) and torch.equal(own.far, alone.rays.far)
            assert torch.equal(together.distances[together.image == image], alone.distances)


def bumps(points: Tensor, latents: Tensor) -> Tensor:
    return points.norm(dim=-1) - 0.5 + 0.05 * (latents * torch.sin(5 * points[:, :1])).sum(-1)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(11, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))

    def forward(self, points: Tensor, latents: Tensor) -> Tensor:
        return points.norm(dim=-1) - 0.5 + 0.1 * self.layers(torch.cat([points, latents], -1))[:, 0]


def steep_network() -> fields.FilmSirenSDF:
    torch.manual_seed(0)
    network = fields.FilmSirenSDF(width=32, latent_size=8)
    with torch.no_grad():
        network.sdf_head.mul_(30)
    return network


FAMILIES = {"function": (bumps, 0.0), "module": (Network(), 1e-5), "film-siren": (steep_network(), 1e-6)}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_of_families(name: str, options: dict) -> None:
    """To rounding, where matrices multiply the points of all images at once."""
    family, atol = FAMILIES[name]

    def draw(of: Callable[[Tensor], Tensor]) -> raycast.Rendering:
        torch.manual_seed(0)
        with torch.no_grad():
            return raycast.render(sdf=family, axes=of(AXES), latents=of(LATENTS), resolution=32, **options)

    assert_the_same_alone(draw, atol)


def test_each_picture_of_a_level_has_its_ball() -> None:
    """Of the operator, against the reference and rays of each picture alone."""
    camera = orbit_camera(AXES, DEFAULT_FOV).contiguous()
    radii = SIZE.clone()
    level = march_levels(16, DEFAULT_FOV, threshold=1e-4, steps=9)[-1]._replace(radius=radii)
    made, expected = (start(camera, level, DEFAULT_FOV) for start in (ops.start_level, reference.start_level))
    torch.testing.assert_close(made.far, expected.far, atol=1e-3, rtol=0)
    for image in range(BATCH):
        own = slice(256 * image, 256 * image + 256)
        alone = ops.start_level(camera[image, None], level._replace(radius=radii[image].item()), DEFAULT_FOV)
        assert torch.equal(made.start[own], alone.start) and torch.equal(made.far[own], alone.far)
    with pytest.raises(ValueError, match=r"start_level: radius must be \[B\] float32, got \[3\] float32"):
        ops.start_level(camera, level._replace(radius=radii[:3].contiguous()), DEFAULT_FOV)
    with pytest.raises(ValueError, match=r"generate_rays: radius must be \[B\] float32, got \[4\] float64"):
        ops.generate_rays(camera, torch.arange(4), 16, 16, DEFAULT_FOV, radii.double())
