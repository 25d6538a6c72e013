"""Encodings of Gaussians and of lobes: against the reference, against averages over samples, and their derivatives."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sdfgan.ops import (
    frustum_gaussians,
    integrated_directional_encoding,
    integrated_positional_encoding,
    positional_encoding,
    reference,
)

DTYPES = [torch.float32, torch.float64]


def some_cones(rays, samples, dtype=torch.float64, device="cpu"):
    origins = torch.randn(rays, 3, dtype=dtype, device=device)
    directions = F.normalize(torch.randn_like(origins), dim=1)
    edges = torch.rand(rays, samples + 1, dtype=dtype, device=device).cumsum(1)
    return origins, directions, edges, 0.1 * torch.rand(rays, dtype=dtype, device=device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cylinder", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_frustums_match_reference(device, assert_close, dtype, cylinder, full):
    for sizes in ((4, 7), (0, 3), (2, 0)):
        cones = some_cones(*sizes, dtype, device)
        expected = reference.frustum_gaussians(*cones, cylinder=cylinder, full=full)
        for actual, wanted in zip(frustum_gaussians(*cones, cylinder=cylinder, full=full), expected, strict=True):
            assert_close(actual, wanted)


@pytest.mark.parametrize("cylinder", [False, True])
def test_frustums_have_the_moments_of_points_in_them(cylinder):
    """Of 200,000 points drawn in a piece of a cone, to three standard errors."""
    n = 200_000
    random = torch.Generator().manual_seed(0)
    u, radius, angle = torch.rand(3, n, generator=random, dtype=torch.float64)
    near, far, slope = 1.0, 3.0, 0.2
    t = near + (far - near) * u if cylinder else (near**3 + (far**3 - near**3) * u) ** (1 / 3)
    across = radius.sqrt() * slope * (1 if cylinder else t)
    points = torch.stack([across * (2 * math.pi * angle).cos(), across * (2 * math.pi * angle).sin(), t], 1)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    along_z = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    edges, radii = torch.tensor([[near, far]], dtype=torch.float64), torch.tensor([slope], dtype=torch.float64)
    means, covariances = frustum_gaussians(zero, along_z, edges, radii, cylinder=cylinder, full=True)
    assert torch.allclose(means[0, 0], points.mean(0), atol=3 * points.std(0).max() / math.sqrt(n))
    assert torch.allclose(covariances[0, 0], points.T.cov(), atol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float16, *DTYPES])
def test_positional_matches_reference(device, assert_close, dtype):
    for shape in ((6, 5, 3), (0, 3), (70, 2)):
        means, variances = (torch.rand(shape, device=device).to(dtype) for _ in range(2))
        expected = reference.integrated_positional_encoding(means, variances, 5)
        assert_close(integrated_positional_encoding(means, variances, 5), expected)


def test_without_variance_it_is_the_positional_encoding(device, assert_close):
    means = torch.randn(33, 3, device=device)
    assert_close(integrated_positional_encoding(means, torch.zeros_like(means), 6), positional_encoding(means, 6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("levels", [1, 4, 5])
def test_directional_matches_reference(device, assert_close, dtype, levels):
    for count in (37, 0):
        directions = F.normalize(torch.randn(count, 3, dtype=dtype, device=device), dim=1)
        roughness = 0.1 * torch.rand(count, dtype=dtype, device=device)
        expected = reference.integrated_directional_encoding(directions, roughness, levels)
        assert_close(integrated_directional_encoding(directions, roughness, levels), expected)


def test_directional_satisfies_the_addition_theorem(device, assert_close):
    """The squares of a degree's harmonics sum to (2 l + 1) / 4 pi; roughness damps degree l by exp(-l(l+1)/2 rho)."""
    directions = F.normalize(torch.randn(9, 3, dtype=torch.float64, device=device), dim=1)
    for rho in (0.0, 0.03):
        encoding = integrated_directional_encoding(directions, torch.full_like(directions[:, 0], rho))
        assert encoding.shape == (9, 38)
        power, column = (encoding[:, :19] ** 2 + encoding[:, 19:] ** 2), 0
        for degree in (1, 2, 4, 8):
            own = power[:, column : column + degree + 1]
            column += degree + 1
            expected = (2 * degree + 1) / (4 * math.pi) * math.exp(-degree * (degree + 1) * rho)
            assert_close(own[:, 0] + 2 * own[:, 1:].sum(1), torch.full_like(own[:, 0], expected))


def test_gradients(device):
    means = torch.randn(2, 3, dtype=torch.float64, device=device, requires_grad=True)
    variances = torch.rand(2, 3, dtype=torch.float64, device=device, requires_grad=True)

    def positional(mean, variance):
        return integrated_positional_encoding(mean, variance, 3)

    assert torch.autograd.gradcheck(positional, (means, variances))
    assert torch.autograd.gradgradcheck(positional, (means, variances))
    roughness = torch.rand(2, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(integrated_directional_encoding, (means, roughness))
    (once,) = torch.autograd.grad(integrated_directional_encoding(means, roughness).sum(), means, create_graph=True)
    with pytest.raises(RuntimeError, match="integrated_directional_encoding: its gradient is not differentiable"):
        once.sum().backward()


def test_opcheck_and_compile(device, assert_close):
    ops = torch.ops.sdfgan
    x = torch.rand(4, 3, device=device, requires_grad=True)
    torch.library.opcheck(ops.frustum_gaussians.default, (*some_cones(2, 3, torch.float32, device), False, True))
    torch.library.opcheck(ops.integrated_positional_encoding.default, (x, x.detach() + 1, 3))
    torch.library.opcheck(ops.integrated_directional_encoding.default, (x, torch.rand(4, device=device), 2))

    def loss(x):
        return integrated_directional_encoding(x, x[:, 0]).sum() + integrated_positional_encoding(x, x, 2).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(*(torch.autograd.grad(f(x), x)[0] for f in (compiled, loss)))


def test_rejections():
    origins, directions, edges, radii = some_cones(2, 3)
    with pytest.raises(ValueError, match=r"frustum_gaussians: radii must be \[R\] float64, got \[1\] float64"):
        frustum_gaussians(origins, directions, edges, radii[:1])
    with pytest.raises(RuntimeError, match="frustum_gaussians: not differentiable, but edges requires grad"):
        frustum_gaussians(origins, directions, edges.requires_grad_(), radii)
    with pytest.raises(ValueError, match=r"variances must be like means, \[2, 3\] float64 on cpu, got \[2\] float64"):
        integrated_positional_encoding(origins, radii, 3)
    with pytest.raises(ValueError, match="integrated_directional_encoding: levels must be 1 to 5, got 6"):
        integrated_directional_encoding(origins, radii, 6)
    with pytest.raises(
        ValueError, match=r"directions must be \[\.\.\., 3\] and roughness \[\.\.\.\], got \[2\] and \[2\]"
    ):
        integrated_directional_encoding(radii, radii)
