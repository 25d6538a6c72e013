"""sdfgan.ops.sample_pixels: against the reference, the package's cameras, and the lens it inverts."""

from __future__ import annotations

import math

import pytest
import torch

from sdfgan import cameras
from sdfgan.ops import pixel_views, reference, sample_pixels, valid_pixels

LENS = (0.1, 0.02, 0.01, -0.02)


def some_views(dtype=torch.float32, device="cpu", lens=True):
    """Three photographs of different sizes."""
    random = torch.Generator().manual_seed(0)
    camera = torch.randn(3, 3, 4, generator=random).to(device, dtype)
    intrinsics = torch.tensor([[10.0, 11, 4, 4], [8, 8, 4, 3], [5, 5, 2, 2]], dtype=dtype, device=device)
    distortion = torch.tensor([LENS, (-0.9, 0, 0, 0), (0, 0, 0, 0)], dtype=dtype, device=device) if lens else None
    return pixel_views(camera, intrinsics, torch.tensor([[8, 8], [6, 8], [3, 5]], device=device), distortion)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lens", [False, True])
def test_matches_reference(device, assert_close, dtype, lens):
    views = some_views(dtype, device, lens)
    count = int(views.starts[-1])
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 4), generator=random, dtype=torch.uint8).to(device)
    pixels = torch.randint(-3, count + 4, (300,), generator=random).to(device)
    for given in (images, images.to(dtype), None):
        expected = reference.sample_pixels(views, pixels, given)
        actual = sample_pixels(views, pixels, given)
        assert (actual.colors is None) == (given is None)
        for a, e in zip(actual, expected, strict=True):
            if e is not None:
                assert_close(a, e)
    assert len(sample_pixels(views, pixels[:0], images).colors) == 0


def test_a_pinhole_is_the_packages_camera(device, assert_close):
    axes = cameras.rotate_axes((torch.tensor([0.3, -0.2]), torch.tensor([1.0, 2.0]))).to(device)
    height, width, fov = 6, 8, 0.7
    origins, directions = cameras.ray_grid(axes, height, width, fov)
    focal = height / 2 / math.tan(fov / 2)
    intrinsics = torch.tensor([[focal, focal, width / 2, height / 2]] * 2, device=device)
    views = pixel_views(cameras.orbit_camera(axes, fov), intrinsics, torch.tensor([[height, width]] * 2, device=device))
    rays = sample_pixels(views, torch.arange(2 * height * width, device=device))
    assert_close(rays.origins, origins.reshape(-1, 3))
    assert_close(rays.directions, directions.reshape(-1, 3))
    centre = rays.radii.view(2, height, width)[:, 2:4, 3:5]
    assert torch.allclose(centre, torch.full_like(centre, 2 / math.sqrt(12) / focal), rtol=0.02)


def test_the_lens_moves_the_ray_back_to_its_pixel(device):
    views = some_views(torch.float64, device)
    camera = torch.eye(3, 4, dtype=torch.float64, device=device).expand(3, 3, 4).contiguous()
    pixels = torch.arange(64, device=device)
    directions = sample_pixels(views._replace(camera_to_world=camera), pixels).directions
    x, y = -directions[:, 0] / directions[:, 2], directions[:, 1] / directions[:, 2]
    k1, k2, p1, p2 = LENS
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2 * r2
    seen_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    seen_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    assert torch.allclose(seen_x * 10 + 4, pixels.double() % 8 + 0.5, atol=1e-7)
    assert torch.allclose(seen_y * 11 + 4, (pixels // 8).double() + 0.5, atol=1e-7)


def test_pixels_that_no_ray_reaches_are_left_out(device):
    """The lens with k1 = -0.9 folds at radius 0.61, where it shows 0.41: farther out it shows nothing."""
    views = some_views(device=device)
    valid = valid_pixels(views)
    inside = torch.arange(int(views.starts[-1]), device=device)
    offset = inside - 64
    radius = ((offset % 8 + 0.5 - 4) ** 2 + (offset // 8 + 0.5 - 3) ** 2).sqrt() / 8
    second = (inside >= 64) & (inside < 112)
    fold = math.sqrt(1 / 2.7)
    assert torch.equal(valid, inside[~second | (radius < fold * (1 - 0.9 * fold**2))])
    assert sample_pixels(views, inside[~torch.isin(inside, valid)]).directions.isnan().all()
    mask = inside % 2 == 0
    assert torch.equal(valid_pixels(views, mask), valid[valid % 2 == 0])


def test_widths_that_do_not_fit_give_no_ray(device):
    views = some_views(device=device)
    broken = views._replace(widths=torch.tensor([8, 0, 3], device=device))
    rays = sample_pixels(broken, torch.tensor([0, 64, 112], device=device))
    assert rays.directions.isnan().any(1).tolist() == [False, True, False]


def test_opcheck_and_compile(device, assert_close):
    views = some_views(device=device)
    pixels = torch.tensor([0, 60, 120], device=device)
    images = torch.rand(127, 3, device=device)
    arguments = (*views[:4], views.distortion, pixels, images)
    torch.library.opcheck(torch.ops.sdfgan.sample_pixels.default, arguments)
    compiled = torch.compile(lambda p: sample_pixels(views, p, images), fullgraph=True, backend="aot_eager")
    for actual, expected in zip(compiled(pixels), sample_pixels(views, pixels, images), strict=True):
        assert_close(actual, expected)


def test_rejections():
    views, pixels = some_views(), torch.arange(4)
    with pytest.raises(
        ValueError, match=r"sample_pixels: views.intrinsics must be \[B, 4\] float32, got \[3, 4\] float64"
    ):
        sample_pixels(views._replace(intrinsics=views.intrinsics.double()), pixels)
    with pytest.raises(ValueError, match=r"sample_pixels: images must be \[P, C\] uint8 or float32, got \[3\] int64"):
        sample_pixels(views, pixels, torch.arange(3))
    with pytest.raises(RuntimeError, match="sample_pixels: not differentiable, but camera_to_world requires grad"):
        sample_pixels(views._replace(camera_to_world=views.camera_to_world.clone().requires_grad_()), pixels)
