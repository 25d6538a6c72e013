"""Pictures: unbiased silhouettes, right normals and depth, gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sdfgan import cameras, fields, ops
from sdfgan.ops import reference
from sdfgan.raycast import render

FRONT = cameras.rotate_axes((torch.zeros(1), torch.zeros(1)))


def bumpy_image_and_gradients() -> list[torch.Tensor]:
    """In float64: what a step of training makes of four bumpy shapes."""
    torch.manual_seed(0)
    field = fields.FilmSirenSDF(width=32, latent_size=8).double()
    with torch.no_grad():
        field.sdf_head.mul_(30)
    latents, turn = torch.randn(4, 8, dtype=torch.float64), torch.linspace(0, 1, 4, dtype=torch.float64)
    axes = cameras.rotate_axes((2 * turn - 0.8, 5 * turn)).requires_grad_()
    made = render(sdf=field, axes=axes, latents=latents.requires_grad_(), resolution=24)
    weights = torch.linspace(0.5, 1.5, made.normals.numel(), dtype=torch.float64).view_as(made.normals)
    seen = made.depth.masked_fill(~made.hit, 0.0)
    (made.rgba.square().mean() + (weights * made.normals).mean() + seen.mean()).backward()
    gradients = [leaf.grad for leaf in (axes, latents, *field.parameters()) if leaf.grad is not None]
    assert made.hit.any() and len(gradients) > 10
    return [made.rgba.detach(), made.normals.detach(), seen.detach(), *gradients]


def test_layers_found_in_plain_torch_give_the_same_image_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bumpy_image_and_gradients()
    monkeypatch.setattr(ops, "layer_step", reference.layer_step)
    for actual, expected in zip(found, bumpy_image_and_gradients(), strict=True):
        assert (actual - expected).abs().max() < 1e-9 * expected.abs().max().clamp(min=1e-6)


def disc_area(radius: float, resolution: int) -> float:
    """Pixels that a ball of this radius covers: its silhouette is a disc of radius r D / sqrt(D^2 - r^2)."""
    distance = cameras.camera_distance()
    return math.pi * (radius * distance) ** 2 / (distance**2 - radius**2) * (resolution / 2) ** 2


@pytest.mark.parametrize("resolution", [32, 64, 128])
@pytest.mark.parametrize("radius", [0.3, 0.6, 0.8])
def test_silhouettes_have_the_right_area(radius: float, resolution: int) -> None:
    """The edge is where it belongs to a twentieth of a pixel."""
    area = render(sdf=fields.Sphere(radius), axes=FRONT, resolution=resolution).alpha.sum().item()
    truth = disc_area(radius, resolution)
    perimeter = 2 * math.sqrt(math.pi * truth)
    assert abs(area - truth) < 0.05 * perimeter


def test_area_grows_with_the_radius_as_it_should() -> None:
    radius = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    render(sdf=fields.Sphere(radius), axes=FRONT.double(), resolution=64).alpha.sum().backward()
    step = 1e-4
    truth = (disc_area(0.5 + step, 64) - disc_area(0.5 - step, 64)) / (2 * step)
    assert radius.grad is not None
    assert radius.grad.item() == pytest.approx(truth, rel=0.05)


def test_what_a_sphere_looks_like() -> None:
    ball = fields.Sphere(0.5).coloured((1.0, 0.5, 0.25))
    picture = render(sdf=ball, axes=FRONT, resolution=64, background=(0.0, 0.0, 1.0))
    assert picture.rgb.shape == (1, 3, 64, 64) and picture.alpha.shape == (1, 1, 64, 64)
    middle = picture.rgb[0, :, 32, 32]
    torch.testing.assert_close(middle, torch.tensor([1.0, 0.5, 0.25]), atol=2e-3, rtol=0)
    torch.testing.assert_close(picture.rgb[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(picture.normals[0, :, 32, 32], torch.tensor([0.0, 0.0, 1.0]), atol=0.05, rtol=0)
    assert picture.depth[0, 0, 32, 32].item() == pytest.approx(cameras.camera_distance() - 0.5, abs=1e-3)
    assert picture.depth[0, 0, 0, 0] == math.inf
    assert picture.hit[0, 0, 32, 32] and not picture.hit[0, 0, 0, 0]
    up = picture.normals[0, 1]  # row 0 is the top: normals there point up
    assert up[20, 32] > 0.3 > -0.3 > up[44, 32]


def test_a_fixed_light_shades_the_far_side() -> None:
    axes = cameras.rotate_axes((torch.zeros(2), torch.tensor([0.0, math.pi])))
    picture = render(sdf=fields.Sphere(0.5).coloured((1.0, 1.0, 1.0)), axes=axes, resolution=33, light=(0, 0, 3))
    assert picture.rgb[0, 0, 16, 16] > 0.99
    assert picture.rgb[1, 0, 16, 16] < 0.01
    with pytest.raises(ValueError, match="light must be"):
        render(sdf=fields.Sphere(0.5), axes=axes, resolution=8, light=(0, 1))


def test_depth_moves_with_the_surface() -> None:
    radius = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    depth = render(sdf=fields.Sphere(radius), axes=FRONT.double(), resolution=33).depth
    depth[0, 0, 16, 16].backward()
    assert radius.grad is not None
    assert radius.grad.item() == pytest.approx(-1.0, abs=1e-6)


def test_network_gradients_equal_finite_differences() -> None:
    """Of a loss on the evaluation at fixed samples, which is what the graph holds."""
    torch.manual_seed(0)
    field = fields.FilmSirenSDF(width=16, latent_size=4, mapping_width=8).double()
    latents = torch.randn(2, 4, dtype=torch.float64)
    axes = cameras.rotate_axes((torch.rand(2).double(), torch.rand(2).double() * 6))
    target = torch.rand(2, 4, 16, 16, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (render(sdf=field, axes=axes, latents=latents, resolution=16).rgba - target).square().sum()

    loss().backward()
    weight = field.texture_head
    assert weight.grad is not None
    with torch.no_grad():
        for index in ((0, 3), (2, 7)):
            weight[index] += 1e-6
            above = loss()
            weight[index] -= 2e-6
            below = loss()
            weight[index] += 1e-6
            assert weight.grad[index].item() == pytest.approx(((above - below) / 2e-6).item(), rel=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    field = fields.FilmSirenSDF(width=16, latent_size=4, mapping_width=8)
    picture = render(sdf=field, axes=FRONT, latents=torch.randn(1, 4), resolution=32)
    picture.rgba.square().sum().backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_there_is_no_graph_where_nothing_needs_one() -> None:
    """Pictures of solids without parameters can be shown as they are; what needs a gradient still has it."""
    solid = fields.SmoothUnion(fields.Sphere(0.4), fields.Box((0.5, 0.1, 0.2)), 0.1)
    shown = render(sdf=solid, axes=FRONT, resolution=16)
    assert np.asarray(shown.rgb[0]).max() > 0.3
    assert not any(value.requires_grad for value in (shown.alpha, shown.depth, shown.normals, *shown.field))
    size = torch.tensor(0.4, requires_grad=True)
    network, axes = torch.nn.Linear(3, 1), FRONT.clone().requires_grad_()
    needed = [
        render(sdf=fields.Sphere(size) | solid, axes=FRONT, resolution=16),
        render(sdf=lambda points: points.norm(dim=-1) - size, axes=FRONT, resolution=16),
        render(sdf=lambda points: points.norm(dim=-1) - 0.4 + 0.01 * network(points)[:, 0], axes=FRONT, resolution=16),
        render(sdf=solid, axes=axes, resolution=16),
    ]
    for made in needed:
        assert made.alpha.requires_grad and made.normals.requires_grad and made.rgb.requires_grad
    needed[3].rgb.sum().backward()
    assert axes.grad is not None and axes.grad.abs().max() > 0
    _, gradient = solid.sdf_and_gradient(torch.rand(5, 3).requires_grad_())
    assert gradient.requires_grad


def test_a_rendering_shows_shapes() -> None:
    image = render(sdf=fields.Sphere(0.5), axes=cameras.rotate_axes((0.3, 0.5)), resolution=16)
    assert repr(image).startswith("Rendering(rgb=float32[1, 3, 16, 16], alpha=float32[1, 1, 16, 16], ")
