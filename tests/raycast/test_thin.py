"""Thin solids show their near side, whatever their thickness, and large bounds of the slope lose nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdfgan import cameras, fields, raycast


def first_hit(shape: str, half: float, origins: Tensor, directions: Tensor) -> Tensor:
    """Where rays enter a plate, disc or ball, by the formula; infinite if they do not. Faces are along z."""
    if shape == "shell":
        middle = -(origins * directions).sum(-1)
        inside = 0.25 - origins.square().sum(-1) + middle.square()
        return torch.where(inside > 0, middle - inside.clamp(min=0).sqrt(), torch.inf)
    low, high = torch.full_like(origins[..., 0], -torch.inf), torch.full_like(origins[..., 0], torch.inf)
    sizes = {0: 0.5, 1: 0.4, 2: half} if shape == "plate" else {2: half}
    for axis, size in sizes.items():
        ends = torch.stack([(side - origins[..., axis]) / directions[..., axis] for side in (-size, size)])
        low, high = torch.maximum(low, ends.amin(0)), torch.minimum(high, ends.amax(0))
    if shape == "disc":
        a, b = directions[..., :2].square().sum(-1), (origins * directions)[..., :2].sum(-1)
        root = b.square() - a * (origins[..., :2].square().sum(-1) - 0.25)
        low, high = (
            torch.maximum(low, (-b - root.clamp(min=0).sqrt()) / a),
            torch.minimum(high, (-b + root.clamp(min=0).sqrt()) / a),
        )
        low = torch.where(root > 0, low, torch.inf)
    return torch.where(low < high, low, torch.inf)


def field_of(shape: str, half: float) -> fields.AnalyticField:
    if shape == "shell":
        return fields.Sphere(0.5) - fields.Sphere(0.5 - 2 * half)
    solid = fields.Box((0.5, half, 0.4)) if shape == "plate" else fields.Cylinder(0.5, half)
    return solid.rotated(axis=(1.0, 0.0, 0.0), angle=math.pi / 2)


@pytest.mark.parametrize("shape", ["plate", "disc", "shell"])
@pytest.mark.parametrize("pixels", [0.2, 0.5, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("resolution", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_thin_solids_have_no_speck(shape: str, pixels: float, resolution: int) -> None:
    half = pixels / resolution
    turn = torch.tensor([0.0, 0.2, 0.6, 1.3])
    axes = cameras.rotate_axes((torch.full_like(turn, 0.3), turn))
    with torch.no_grad():
        shown = raycast.render(sdf=field_of(shape, half), axes=axes, resolution=resolution)
    origins, directions = cameras.ray_grid(axes.double(), 5 * resolution)
    t = first_hit(shape, half, origins, directions).view(len(turn), resolution, 5, resolution, 5)
    middle, covered = t[:, :, 2, :, 2], t.isfinite().all(4).all(2)
    inner = torch.nn.functional.max_pool2d((~covered)[:, None].double(), 5, 1, 2)[:, 0] == 0
    assert inner.sum() > 100
    assert shown.alpha[:, 0][inner].min() > 0.99
    assert (shown.depth[:, 0] - middle)[inner].abs().max() < 0.1 * 2 / resolution
    towards = (shown.normals.movedim(1, -1) * cameras.ray_grid(axes, resolution)[1]).sum(-1)
    assert towards[inner].max() < 0


VIEWS = [(0.3, 0.2), (0.1, 0.9), (0.7, -0.4)]


def ellipsoid_area(radius: Tensor, half: float, axes: Tensor) -> Tensor:
    """Pixels of 64^2 whose centres' rays meet an ellipsoid at the origin: those (x, y, 1) with v^T quadric v > 0."""
    distance = 1 / math.tan(math.radians(25) / 2)
    radii = torch.stack([radius, radius, torch.full_like(radius, half)])
    rays, origin = torch.stack([axes[0], axes[1], -distance * axes[2]]) / radii, distance * axes[2] / radii
    quadric = torch.outer(rays @ origin, rays @ origin) - rays @ rays.T * (origin.square().sum() - 1)
    block, side = quadric[:2, :2], quadric[:2, 2]
    level = quadric[2, 2] - side @ torch.linalg.solve(block, side)
    return math.pi * level.abs() / torch.linalg.det(block).sqrt() * 32**2


@pytest.mark.parametrize("half", [0.5, 0.05, 0.02, 0.01])
@pytest.mark.parametrize("view", VIEWS)
def test_rims_thinner_than_a_pixel_have_the_area_they_have(half: float, view: tuple[float, float]) -> None:
    """A pixel is .031 wide; the rim of an ellipsoid of half height h bends with a radius of 2 h^2."""
    axes = cameras.rotate_axes((torch.tensor(view[:1]), torch.tensor(view[1:])))
    radius, exact_radius = (torch.tensor(0.5, dtype=d, requires_grad=True) for d in (torch.float32, torch.float64))
    exact = ellipsoid_area(exact_radius, half, axes[0].double())
    exact.backward()
    solid = fields.Ellipsoid(torch.stack([radius, radius, torch.tensor(half)]))
    area = raycast.render(sdf=solid, axes=axes, resolution=64).alpha.sum()
    area.backward()
    assert area.item() == pytest.approx(exact.item(), rel=5e-4 if half == 0.5 else 2e-3)
    assert radius.grad is not None and exact_radius.grad is not None
    assert radius.grad.item() == pytest.approx(exact_radius.grad.item(), rel=0.03)


@pytest.mark.parametrize("shape", ["plate", "disc"])
@pytest.mark.parametrize("pixels", [0.2, 0.5])
def test_thin_solids_that_face_the_camera_have_edges(shape: str, pixels: float) -> None:
    """Inside, the sdf is that of the faces: edges are known from the misses beside them."""
    for view in VIEWS:
        axes = cameras.rotate_axes((torch.tensor(view[:1]), torch.tensor(view[1:])))
        t = first_hit(shape, pixels / 64, *cameras.ray_grid(axes.double(), 64 * 16))
        with torch.no_grad():
            whole = raycast.render(sdf=field_of(shape, pixels / 64), axes=axes, resolution=64)
            some = torch.zeros(1, 64, 64, dtype=torch.bool)
            some[:, 20:40, :34] = True
            part = raycast.render(sdf=field_of(shape, pixels / 64), axes=axes, resolution=64, pixels=some)
        assert whole.alpha.sum().item() == pytest.approx(t.isfinite().sum().item() / 16**2, rel=3e-3)
        assert torch.equal(part.alpha, whole.alpha * some[:, None])


@pytest.mark.parametrize("bound", [1, 10, 50])
@pytest.mark.parametrize("fov", [25, 90])
def test_a_larger_bound_of_the_slope_loses_nothing(bound: float, fov: float) -> None:
    axes, angle = cameras.rotate_axes((torch.tensor([0.3]), torch.tensor([0.2]))), math.radians(fov)
    distance = 1 / math.tan(angle / 2)
    exact = math.pi * (distance * math.tan(math.asin(0.5 / distance))) ** 2
    with torch.no_grad():
        shown = raycast.render(sdf=fields.Sphere(0.5), axes=axes, resolution=64, fov=angle, lipschitz=bound)
    assert shown.alpha.sum().item() * (2 / 64) ** 2 == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("bound", [1, 2.5, 10, 50])
def test_hits_are_where_the_surface_is(bound: float) -> None:
    """Also beside contours, and for large bounds: rays are then followed far behind the surface."""
    axes = cameras.rotate_axes((torch.tensor([0.3, -0.4]), torch.tensor([0.5, 2.0])))
    origins, directions = cameras.ray_grid(axes.double(), 64)
    middle = -(origins * directions).sum(-1)
    half = (0.36 - origins.square().sum(-1) + middle.square()).clamp(min=0).sqrt()
    network = fields.FilmSirenSDF(latent_size=4, width=16, prior_radius=math.sqrt(0.37))  # is 0 where |x| = 0.6
    with torch.no_grad():
        network.sdf_head.zero_()
        for solid, latents in ((fields.Sphere(0.6), None), (network, torch.zeros(2, 4))):
            shown = raycast.render(sdf=solid, axes=axes, latents=latents, resolution=64, lipschitz=bound)
            seen = half > 0.02
            assert (shown.depth[:, 0] - (middle - half))[seen].abs().max() < 0.01 * 2 / 64
            normals = (origins + (middle - half)[..., None] * directions)[seen] / 0.6
            assert (shown.normals.movedim(1, -1)[seen] - normals).norm(dim=-1).max() < 0.05


def test_hits_beside_creases_are_on_the_face_that_is_seen() -> None:
    """Of a turned box: against the formula, in almost all pixels to a twentieth of one."""
    turn = fields.rotation_matrix((1.0, 2.0, 3.0), 0.7)
    axes = cameras.rotate_axes((torch.tensor([0.4]), torch.tensor([0.7])))
    origins, directions = (values @ turn for values in cameras.ray_grid(axes.double(), 128))
    ends = torch.stack([(side * torch.tensor([0.45, 0.3, 0.35]) - origins) / directions for side in (-1, 1)])
    enter, leave = ends.amin(0).amax(-1), ends.amax(0).amin(-1)
    with torch.no_grad():
        shown = raycast.render(sdf=fields.Box((0.45, 0.3, 0.35)).rotated(turn), axes=axes, resolution=128)
    off = (shown.depth[:, 0] - enter).abs()[(leave - enter) > 0.05]
    assert off.quantile(0.998) < 0.05 * 2 / 128 and off.max() < 0.2 * 2 / 128


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solid", [fields.Box((0.5, 0.5, 0.5)), fields.Cylinder(0.5, 0.5)])
def test_flat_faces_have_a_gradient(solid: fields.AnalyticField, dtype: torch.dtype) -> None:
    offsets = torch.tensor([-1e-6, -1e-13, 0.0, 1e-16, 1e-14, 1e-12, 1e-6], dtype=dtype)
    points = torch.stack([torch.full_like(offsets, 0.1), 0.5 + offsets, torch.full_like(offsets, 0.2)], -1)
    _, gradient = solid.sdf_and_gradient(points)
    torch.testing.assert_close(gradient, points.new_tensor([0.0, 1.0, 0.0]).expand(len(points), 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("minor", [0.08, 0.2])
def test_gradients_of_shaded_contours_are_as_long_as_they_are(minor: float) -> None:
    """By the tube's radius, whose contours bend most: against differences of pictures of 16 rays a pixel."""
    axes = cameras.rotate_axes((torch.tensor([0.6]), torch.tensor([0.5])))
    ramp = torch.linspace(-1, 1, 64)
    weight = 1 + 0.5 * torch.sin(3 * ramp)[:, None] * torch.cos(2 * ramp + 0.4)

    def brightness(by: Tensor, supersample: int) -> Tensor:
        torus = fields.Torus(torch.tensor(0.5), minor + by)
        shown = raycast.render(sdf=torus, axes=axes, resolution=64, supersample=supersample)
        return (shown.rgb[0].mean(0) * weight).sum()

    by = torch.zeros((), requires_grad=True)
    brightness(by, 1).backward()
    with torch.no_grad():
        truth = (brightness(torch.tensor(0.004), 4) - brightness(torch.tensor(-0.004), 4)) / 0.008
    assert by.grad is not None and by.grad.item() == pytest.approx(truth.item(), rel=0.04)
