"""A surface in a hash grid: its adjoint pass is autograd's, it begins as a sphere, and grows finer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sdfgan.fields.base import Field, eikonal_loss
from sdfgan.fields.surface_grid import SurfaceGrid
from sdfgan.volume import RaySamples, SdfVolume
from sdfgan.volume.field import Kind, surface_density


def learnt(layers: int = 2) -> SurfaceGrid:
    """One whose grid and networks say something."""
    torch.manual_seed(0)
    field = SurfaceGrid(16, layers, levels=4, log2_size=10, finest=32)
    with torch.no_grad():
        field.grid.table.normal_(0, 0.3)
        field.distance_net[-1].weight.mul_(30)
    return field


@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_are_those_of_autograd_also_of_a_loss_on_them(layers: int) -> None:
    field = learnt(layers)
    points = 2 * torch.rand(50, 3) - 1
    parameters = [field.grid.table, *field.distance_net.parameters()]
    found = []
    for ask in (SurfaceGrid.sdf_and_gradient, Field.sdf_and_gradient):
        value, gradient = ask(field, points)
        loss = value.square().mean() + eikonal_loss(gradient)
        found.append((value, gradient, *torch.autograd.grad(loss, parameters)))
    for ours, autograds in zip(*found, strict=True):
        torch.testing.assert_close(ours, autograds, rtol=1e-4, atol=1e-6)
    with torch.no_grad():  # by the fused kernel
        torch.testing.assert_close(field.sdf(points), found[0][0].detach(), rtol=1e-5, atol=1e-6)


def test_it_moves_with_the_points() -> None:
    field = learnt()
    points = (2 * torch.rand(20, 3) - 1).requires_grad_()
    value, gradient = field.sdf_and_gradient(points)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), points)[0], gradient, rtol=1e-4, atol=1e-6)


def test_untrained_it_is_a_sphere() -> None:
    field = SurfaceGrid(16, 1, levels=4, log2_size=10, finest=32, radius=0.4)
    points = 2 * torch.rand(200, 3) - 1
    points = points[points.norm(dim=1) > 0.3]
    true = points.norm(dim=1) - 0.4
    value, gradient = field.sdf_and_gradient(points)
    assert (value - true).abs().max() < 0.05
    cosine = torch.nn.functional.cosine_similarity(gradient, points)
    assert cosine.min() > 0.98


def test_finer_levels_are_left_out_until_they_are_used() -> None:
    field = learnt()
    points = 2 * torch.rand(30, 3) - 1
    whole = field.sdf_and_gradient(points)
    field.use(2)
    coarse = field.sdf_and_gradient(points)
    assert (coarse[0] - whole[0]).abs().max() > 1e-3
    begins = field.grid.begins
    (gradient,) = torch.autograd.grad(coarse[0].sum(), field.grid.table)
    assert gradient[: begins[2]].abs().sum() > 0 and not gradient[begins[2] :].any()
    with torch.no_grad():
        field.grid.table[begins[2] :] = 0
    other = learnt()
    other.load_state_dict(field.state_dict())  # which says how many levels are in use
    torch.testing.assert_close(other.sdf_and_gradient(points), coarse)
    field.use(100)  # all: those that are zero say nothing
    torch.testing.assert_close(field.sdf_and_gradient(points), coarse)


def test_colours_are_those_seen_from_where_the_condition_says() -> None:
    field, points = learnt(), torch.rand(6, 3)
    eyes, image = torch.tensor([[3.0, 0, 0], [0, 0, 4.0]]), torch.tensor([0, 0, 0, 1, 1, 1])
    directions = torch.nn.functional.normalize(points - eyes[image], dim=1)
    torch.testing.assert_close(field.rgb(points, eyes, image), field.seen(points, directions).rgb)
    _, gradient = field.sdf_and_gradient(points)
    along = -torch.nn.functional.normalize(gradient, dim=1)
    torch.testing.assert_close(field.rgb(points), field.seen(points, along).rgb)
    assert (field.rgb(points) - field.rgb(points, eyes, image)).abs().max() > 1e-4


def test_the_slope_bounds_nearly_all_gradients() -> None:
    field = learnt()
    field.measure_slope()
    _, gradient = field.sdf_and_gradient(2 * torch.rand(2000, 3) - 1)
    assert (gradient.norm(dim=1) <= field.lipschitz).float().mean() > 0.98 and field.lipschitz >= 1


@pytest.mark.parametrize("kind", ["laplace", "logistic"])
@pytest.mark.parametrize("enters", [1.0, 0.3, 0.0, -0.7])
def test_the_mean_density_of_a_piece(kind: Kind, enters: float) -> None:
    """Against a sum over many places of the piece, for surfaces thinner and thicker than it is long."""
    sdf, length = torch.linspace(-0.3, 0.3, 13, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    inside = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 - 0.5
    along = sdf[:, None] - enters * length * inside
    slope = torch.full_like(sdf, enters)
    for beta in (0.005, 0.05):
        mean = surface_density(kind, along, beta, slope[:, None], None).mean(1)
        found = surface_density(kind, sdf, beta, slope, length.expand(13))
        torch.testing.assert_close(found, mean, rtol=2e-3, atol=1e-6)


def test_the_opacity_of_a_piece_is_that_of_neus() -> None:
    """Eq. 13 of the paper: (Phi(before) - Phi(behind)) / Phi(before)."""
    sdf, enters, length, beta = torch.linspace(-0.1, 0.1, 11).double(), 0.6, 0.05, 0.01
    before, behind = (torch.sigmoid((sdf + side * enters * length / 2) / beta) for side in (1, -1))
    density = surface_density("logistic", sdf, beta, torch.full_like(sdf, enters), torch.full_like(sdf, length))
    torch.testing.assert_close(1 - (-density * length).exp(), (before - behind) / before)


class Plane(Field):
    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return points[:, 2]


@pytest.mark.parametrize("kind", ["laplace", "logistic"])
def test_a_volume_takes_the_lengths_of_pieces(kind: Kind) -> None:
    volume, points = SdfVolume(Plane(), 0.01, kind), torch.tensor([[0.0, 0, 0.02], [0.0, 0, -0.02]])
    directions, lengths = torch.tensor([[0.0, 0, -1], [0, 0.6, -0.8]]), torch.tensor([0.1, 0.05])
    places = RaySamples(points, directions, lengths=lengths)
    expected = surface_density(kind, points[:, 2], 0.01, -directions[:, 2], lengths)
    torch.testing.assert_close(volume.density(places), expected)
    torch.testing.assert_close(volume.radiance(places).density, expected)
    assert (volume.density(places._replace(lengths=None)) - expected).abs().max() > 1
