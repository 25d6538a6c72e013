"""Silhouettes: their area, its derivative, what is seen through them; and gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import gradients
from scenes import scenes, sphere_area
from sdfgan import cameras, fields
from sdfgan.fields.base import Field
from sdfgan.raycast import Lighting, multiscale, render
from sdfgan.raycast.coverage import half_plane_area
from sdfgan.raycast.layers import trace_layers
from sdfgan.raycast.multiscale import MarchOptions, Tracer

FRONT = cameras.rotate_axes((torch.zeros(1), torch.zeros(1)))


def some_axes(count: int) -> Tensor:
    random = torch.Generator().manual_seed(5)
    angles = torch.rand(2, count, generator=random)
    return cameras.rotate_axes((2 * (angles[0] - 0.5), 6 * angles[1]))


def true_area(solid: Field, axes: Tensor, resolution: int, rays: int = 12) -> float:
    with torch.no_grad():
        hit = multiscale(axes, (resolution * rays,), None, solid, 1e-6, refine=0).hit
    return hit.sum().item() / rays**2


def test_the_area_of_a_cut_pixel() -> None:
    """Against a count of 400^2 points of the square."""
    points = (torch.arange(400, dtype=torch.float64) + 0.5) / 400 - 0.5
    angle = torch.linspace(0, 6.28, 29, dtype=torch.float64)
    for distance in (-0.8, -0.6, -0.3, 0.0, 0.2, 0.55, 0.7, 2.0):
        across, up = angle.cos(), angle.sin()
        inside = across[:, None, None] * points[:, None] + up[:, None, None] * points + distance <= 0
        area = half_plane_area(torch.full_like(angle, distance), across, up)
        torch.testing.assert_close(area, inside.double().mean((1, 2)), atol=3e-3, rtol=0)
    d = torch.linspace(-0.7, 0.7, 40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: half_plane_area(x, torch.full_like(x, 0.6), torch.full_like(x, 0.8)), d)


SHAPES = {
    "sphere": lambda: fields.Sphere(0.45).translated((0.1, 0.05, 0.0)),
    "box": lambda: fields.Box((0.35, 0.25, 0.42)).rotated(axis=(1.0, 2.0, 3.0), angle=0.7),
    "rounded box": lambda: fields.RoundedBox((0.35, 0.25, 0.42), 0.06).rotated(axis=(1.0, 2.0, 3.0), angle=0.7),
    "torus": lambda: fields.Torus(0.5, 0.18).rotated(axis=(1.0, 0.0, 0.0), angle=0.6),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_silhouettes_are_neither_too_large_nor_too_small(shape: str) -> None:
    solid, errors = SHAPES[shape](), []
    for axes in some_axes(4).split(1):
        area = render(sdf=solid, axes=axes, resolution=64).alpha.sum().item()
        errors.append(area / true_area(solid, axes, 64) - 1)
    assert abs(sum(errors) / len(errors)) < 0.002 and max(map(abs, errors)) < 0.006


@pytest.mark.parametrize("edge", ["exact", "neighbour"])
@pytest.mark.parametrize("radius", [0.2, 0.5, 0.75])
def test_the_area_grows_with_the_radius_as_it_should(edge, radius: float) -> None:
    r = torch.tensor(radius, requires_grad=True)
    offset = (0.07, -0.04, 0.05)
    area = render(sdf=fields.Sphere(r).translated(offset), axes=FRONT, resolution=64, edge=edge).alpha.sum()
    area.backward()
    centre, axes, step = torch.tensor(offset).double(), FRONT[0].double(), 1e-5
    above, below = (sphere_area(radius + sign * step, centre, axes, 64) for sign in (1, -1))
    assert r.grad is not None
    assert r.grad.item() == pytest.approx((above - below) / (2 * step), rel=0.01 if edge == "exact" else 0.02)
    assert area.item() == pytest.approx(sphere_area(radius, centre, axes, 64), rel=0.005)


def test_the_silhouettes_of_dfr_are_too_large() -> None:
    area = render(sdf=fields.Sphere(0.45), axes=FRONT, resolution=64, edge="dfr").alpha.sum().item()
    former = render(sdf=fields.Sphere(0.45), axes=FRONT, resolution=64, edge="fuzz")  # type: ignore[arg-type]
    assert former.alpha.sum().item() == area
    assert 1.08 < area / sphere_area(0.45, torch.zeros(3).double(), FRONT[0].double(), 64) < 1.11


def test_thin_parts_are_supersampled() -> None:
    """A ring of half a pixel: an edge on each side of a pixel is more than one straight line."""
    ring = fields.Torus(0.6, 0.008).rotated(axis=(1.0, 0.0, 0.0), angle=1.2)
    truth = true_area(ring, FRONT, 64, rays=24)
    once, fine = (render(sdf=ring, axes=FRONT, resolution=64, supersample=n).alpha.sum().item() / truth for n in (1, 4))
    assert abs(fine - 1) < 0.03 < abs(once - 1)


def test_a_crease_between_two_faces_is_not_a_staircase_and_moves() -> None:
    """A cube seen along an edge, one face bright and one dark: the edge is in the middle of the picture."""
    light, side = Lighting(0.0, 0.0, 1.0, (1.0, 0.0, 0.0)), 0.4
    middle = (..., slice(24, 40), slice(24, 40))

    def picture(x: Tensor, supersample: int = 1) -> Tensor:
        cube = fields.Box((side,) * 3).rotated(axis=(0.0, 1.0, 0.03), angle=math.pi / 4)
        cube = cube.translated(torch.stack([x, 0 * x, 0 * x]))
        return render(sdf=cube, axes=FRONT, resolution=64, light=light, supersample=supersample).rgb[middle]

    x = torch.tensor(0.013, requires_grad=True)
    seen = picture(x)
    assert (seen - picture(x.detach(), supersample=8)).abs().max() < 0.01  # a staircase: 0.25
    (seen.sum() / 3).backward()
    bright, dark = (0.7 * (1 + sign * math.sqrt(0.5)) / 2 for sign in (1, -1))
    distance = cameras.camera_distance()
    pixel = 2 / 64 * (distance - math.sqrt(2) * side) / distance
    assert x.grad is not None and x.grad.item() == pytest.approx(16 * (dark - bright) / pixel, rel=0.03)


@pytest.mark.parametrize("angle", [0.3, 0.8])
def test_an_edge_has_the_colour_of_the_face_that_is_seen(angle: float) -> None:
    """Not of the sdf's gradient beside it, which turns from this face to the one behind."""
    cube = fields.Box((0.4, 0.4, 0.4)).rotated(axis=(0.0, 1.0, 0.0), angle=angle)
    seen = render(sdf=cube, axes=FRONT, resolution=64)
    row = seen.rgb[0, 0, 32] / seen.alpha[0, 0, 32]
    covered = (seen.alpha[0, 0, 32] > 0.02).nonzero()[:, 0]
    for edge, inside in ((covered[0], covered[0] + 2), (covered[-1], covered[-1] - 2)):
        assert row[edge].item() == pytest.approx(row[inside].item(), rel=0.01)


def test_a_surface_is_seen_through_the_edge_before_it() -> None:
    """A white ball before a red wall: where the ball covers a pixel in part, the rest is red, and nothing is empty."""
    ball = fields.Sphere(0.3).translated((0.0, 0.0, 0.5)).coloured((1.0, 1.0, 1.0))
    wall = fields.Box((2.0, 2.0, 0.05)).translated((0.0, 0.0, -0.5)).coloured((1.0, 0.0, 0.0))
    layered = render(sdf=ball | wall, axes=FRONT, resolution=64)
    assert layered.alpha.min() > 0.9999
    fine = render(sdf=ball | wall, axes=FRONT, resolution=64, supersample=8)
    one = render(sdf=ball | wall, axes=FRONT, resolution=64, layers=1)
    assert (layered.rgb - fine.rgb).abs().max() < 0.05
    assert one.alpha.min() < 0.5
    depth = layered.depth[0, 0]
    truth = cameras.camera_distance() + 0.45  # of the wall along the axis
    assert depth[0, 32].item() > truth > depth[32, 32].item()


def test_nothing_is_cut_out_of_the_picture() -> None:
    """A box that fills the frame to its corners."""
    picture = render(sdf=fields.Box((1.1, 1.1, 0.2)), axes=FRONT, resolution=32)
    assert picture.alpha.min() == 1 and picture.hit.all()
    above = cameras.rotate_axes((torch.tensor([0.5]), torch.zeros(1)))
    assert render(sdf=fields.Plane((0.0, 1.0, 0.0), -0.2), axes=above, resolution=32).alpha.min() > 0.999
    centre = torch.tensor([0.9, 0.9, 0.0])
    far = render(sdf=lambda points: (points - centre).norm(dim=-1) - 0.2, axes=FRONT, resolution=64)
    assert far.alpha[0, 0, 0, 63] == 1
    cut = render(sdf=fields.Box((1.1, 1.1, 0.2)), axes=FRONT, resolution=32, extent=1.0)
    assert cut.alpha[0, 0, 0, 0] == 0 and cut.alpha[0, 0, 16, 16] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_makes_no_layers(dtype: torch.dtype) -> None:
    """Ripples of a twentieth of a pixel, as networks have them, are not silhouettes."""
    ball = fields.Sphere(0.5)

    def rippled(points: Tensor) -> Tensor:
        return ball.sdf(points) + 0.0015 * torch.sin(60 * points).prod(-1)

    axes = some_axes(2).to(dtype)
    tracer = Tracer(ball, None, axes, cameras.DEFAULT_FOV, MarchOptions())
    smooth = trace_layers(tracer, 64, 4)
    picture = render(sdf=rippled, axes=axes, resolution=64, lipschitz=1.2)
    plain = render(sdf=ball, axes=axes, resolution=64)
    assert len(picture.field.sdf) < 1.02 * len(smooth)
    assert abs(picture.alpha.sum() / plain.alpha.sum() - 1) < 0.003


@pytest.mark.parametrize(("name", "least"), [("sphere", 0.99), ("smooth union", 0.99), ("box", 0.98)])
def test_gradients_are_those_of_the_true_picture(name: str, least: float) -> None:
    """By shape, pose, colour, camera and light; at 32^2, where a box is coarse. See benchmarks/gradients.py."""
    scene = next(scene for scene in scenes() if scene.name == name)
    schemes = {"exact": {}, "neighbour": {"edge": "neighbour"}}
    exact, neighbour = gradients.compare_scene(scene, 32, 12, torch.float32, schemes)
    assert exact["image_cosine"] > least and 0.94 < exact["image_norm"] < 1.06
    assert neighbour["image_cosine"] > 0.98 and 0.9 < neighbour["image_norm"] < 1.1


def test_a_network_is_layered_natively_as_by_any_march() -> None:
    torch.manual_seed(3)
    network = fields.FilmSirenSDF(width=32, latent_size=8)
    with torch.no_grad():
        network.sdf_head.mul_(5)
    latents, axes = torch.randn(2, 8), some_axes(2)
    condition = network.condition(latents).detach()

    class Foreign(Field):
        def sdf(self, points, condition=None, image=None):
            return network.sdf(points, condition, image)

        def rgb(self, points, condition=None, image=None):
            return network.rgb(points, condition, image)

    own = render(sdf=network, axes=axes, condition=condition, resolution=64, edge="exact")
    other = render(sdf=Foreign(), axes=axes, condition=condition, resolution=64, edge="exact")
    assert (own.alpha - other.alpha).abs().mean() < 5e-4 and (own.rgb - other.rgb).abs().mean() < 5e-4
    assert own.alpha.mean() > 0.1 and math.isclose(own.alpha.sum().item(), other.alpha.sum().item(), rel_tol=2e-3)
