"""A FiLM-SIREN with a mirror: values, gradients, traces, and the plane found from shapes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdfgan import cameras, ops, raycast
from sdfgan.fields import FilmSirenSDF
from sdfgan.gan.symmetry import find_mirror
from sdfgan.ops import Mirror, reference

MIRROR = Mirror(0.6, -0.8, 0.05)


def lively(mirror: Mirror | None, width: int = 16) -> FilmSirenSDF:
    """Random shapes that are far from balls."""
    torch.manual_seed(3)
    field = FilmSirenSDF(width, latent_size=8, mapping_width=16, mirror=mirror)
    with torch.no_grad():
        field.sdf_head.mul_(30)
    return field


def some_points(count: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(count, 3, generator=generator) - 1, torch.arange(count) * 2 // count


def mirrored(points: Tensor) -> Tensor:
    """The points behind the plane."""
    normal = points.new_tensor((MIRROR.x, 0.0, MIRROR.z))
    return points - 2 * (points @ normal)[:, None] * normal


@pytest.mark.parametrize("native", [True, False])
def test_both_sides_are_alike(native: bool) -> None:
    field = lively(MIRROR).double()
    field.native_gradients = native
    condition = field.condition(torch.randn(2, 8, dtype=torch.float64))
    points, image = some_points()
    points = points.double()
    torch.testing.assert_close(field.sdf(points, condition, image), field.evaluate(points, condition, image).sdf)
    torch.testing.assert_close(field.rgb(points, condition, image), field.evaluate(points, condition, image).rgb)
    with torch.no_grad():
        gathered = field._sdf_without_counts(points, condition, image)
    torch.testing.assert_close(gathered, field.evaluate(points, condition, image).sdf.detach())
    value, gradient = field.sdf_and_gradient(points, condition, image)
    torch.testing.assert_close(value, field.evaluate(points, condition, image).sdf)
    torch.testing.assert_close(gradient, field.evaluate(points, condition, image).gradient)
    here, there = (field.evaluate(where, condition, image) for where in (points, mirrored(points)))
    torch.testing.assert_close(here.sdf, there.sdf, rtol=0, atol=1e-12)
    torch.testing.assert_close(here.rgb, there.rgb, rtol=0, atol=1e-12)
    torch.testing.assert_close(mirrored(here.gradient), there.gradient, rtol=0, atol=1e-12)
    plain = lively(None).double()
    far = (points @ points.new_tensor((0.6, 0.0, -0.8))) > 0.4  # where sqrt(d^2 + .05^2) is d + .003 at most
    as_without = plain.sdf(points, plain.condition(torch.zeros(2, 8, dtype=torch.float64)), image)
    with_mirror = field.sdf(points, field.condition(torch.zeros(2, 8, dtype=torch.float64)), image)
    assert (as_without - with_mirror)[far].abs().max() < 0.05 < (as_without - with_mirror)[~far].abs().max()


def test_gradients_are_those_of_autograd_through_the_reference() -> None:
    """Of value, gradient and texture, by the points and by all of the network; float64."""
    field = lively(MIRROR).double()
    points, image = some_points()
    points = points.double().requires_grad_()
    network = field._for_kernels(points, field.condition(torch.randn(2, 8, dtype=torch.float64)))
    assert network is not None and network.mirror == MIRROR
    by = [points, *(tensor for tensor in network.tensors if tensor.requires_grad)]
    assert len(by) == 8  # all but the transposed matrices
    found = ops.film_siren_sample(points, image, network)
    expected = reference.film_siren_sample(points, image, network)
    weights = [torch.randn_like(part) for part in expected]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    ours, theirs = (torch.autograd.grad(parts, by, weights, retain_graph=True) for parts in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
    value = ops.film_siren(points, image, network)
    moving = ops.film_siren_variation(points, image, network)
    assert not moving.any()
    (by_value,), (by_variation,) = (torch.autograd.grad(part.sum(), points) for part in (value, moving))
    torch.testing.assert_close(by_value, found[1], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(by_variation, found[1], rtol=1e-9, atol=1e-11)


def test_the_gradient_does_not_jump_in_the_plane() -> None:
    field = lively(MIRROR).double()
    condition = field.condition(torch.zeros(1, 8, dtype=torch.float64))
    along = torch.tensor([0.8, 0.0, 0.6], dtype=torch.float64)
    normal = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    steps = torch.linspace(-0.01, 0.01, 21, dtype=torch.float64)[:, None]
    _, gradient = field.sdf_and_gradient(0.3 * along + steps * normal, condition)
    across = gradient @ normal
    assert across[10].abs() < 1e-12 and across.diff().abs().max() < 0.1


def test_traces_are_those_of_the_field_as_a_function() -> None:
    """The kernel that traces images, against the march of points that asks the field in Python."""
    field = lively(MIRROR).requires_grad_(False)
    latents, axes = torch.randn(1, 8), cameras.rotate_axes((torch.tensor([0.4]), torch.tensor([0.7])))
    condition = field.condition(latents)
    native = raycast.render(sdf=field, axes=axes, resolution=48, latents=latents)
    asked = raycast.render(sdf=lambda points: field.sdf(points, condition), axes=axes, resolution=48)
    assert 0.05 < native.alpha.mean() < 0.9
    assert (native.alpha - asked.alpha).abs().mean() < 1e-3
    front = raycast.render(sdf=field, axes=_behind(axes), resolution=48, latents=latents)
    assert (native.alpha - front.alpha.flip(-1)).abs().mean() < 1e-3, (
        "seen from behind the mirror it is the mirror image"
    )


def _behind(axes: Tensor) -> Tensor:
    """The axes of a camera behind the plane, whose image is the mirror image."""
    towards = axes[0, 2]
    elevation, azimuth = towards[1].asin(), torch.atan2(towards[0], towards[2])
    normal = math.atan2(MIRROR.x, MIRROR.z)
    return cameras.rotate_axes((elevation[None], (2 * normal + math.pi - azimuth)[None]))


@pytest.mark.parametrize(
    "mirror",
    [Mirror(3.0, 4.0, 0.1), Mirror(1.0, 0.0, 0.0), Mirror(1.0, 0.0, -1.0), Mirror(math.nan, 0, 1), (1.0, 0.0, 0.1)],
)
def test_what_is_no_mirror_is_refused(mirror: Mirror) -> None:
    with pytest.raises(ValueError, match="mirror must be"):
        FilmSirenSDF(16, mirror=mirror)


@pytest.mark.parametrize(("points", "error"), [(torch.zeros(4, 2), ValueError), (torch.zeros(4, 3).long(), Exception)])
def test_points_are_checked_as_without_a_mirror(points: Tensor, error: type[Exception]) -> None:
    network = lively(MIRROR).requires_grad_(False).network(lively(MIRROR).condition(torch.zeros(1, 8)))
    assert network is not None
    for function in (ops.film_siren, ops.film_siren_variation, ops.film_siren_sample):
        with pytest.raises(error, match="points must be"):
            function(points, torch.zeros(4).long(), network)


@pytest.mark.parametrize("degrees", [0, 37, 90, 151])
def test_the_plane_is_found(degrees: int) -> None:
    angle = math.radians(degrees)
    field = lively(Mirror(math.cos(angle), math.sin(angle), 0.05), width=32)
    found = find_mirror(field, 1.0)
    assert found is not None
    apart = (math.degrees(math.atan2(found.z, found.x)) - degrees + 90) % 180 - 90
    assert abs(apart) <= 1 and found.softness > 0


def test_no_plane_is_taken_where_none_is_clear() -> None:
    assert find_mirror(lively(None, width=32), 1.0) is None


def test_no_surface_is_no_reason_to_fail() -> None:
    field = lively(None)
    with torch.no_grad():
        field.sdf_bias.fill_(5.0)
    assert find_mirror(field, 1.0) is None
