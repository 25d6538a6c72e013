"""sdfgan.ops.sample_pixels: against the reference, the package's cameras, and the lens it inverts."""

from __future__ import annotations

import math

import numpy as np
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


def opencv(points: np.ndarray, k: np.ndarray, fisheye: bool) -> np.ndarray:
    """What OpenCV's projectPoints makes of points [N, 3] in camera coordinates (y down, z forward), before fx and cx.

    The formulas of its documentation, of cv and cv::fisheye; k is k1, k2, p1, p2, k3, k4, k5, k6, or k1, k2, k3, k4.
    """
    a, b = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    if fisheye:
        r = np.hypot(points[:, 0], points[:, 1])
        t = np.arctan2(r, points[:, 2])
        bent = t * (1 + k[0] * t**2 + k[1] * t**4 + k[2] * t**6 + k[3] * t**8)
        return points[:, :2] * (bent / r)[:, None]
    k1, k2, p1, p2, k3, k4, k5, k6 = k
    r = np.sqrt(a**2 + b**2)
    radial = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
    x = a * radial + 2 * p1 * a * b + p2 * (r**2 + 2 * a**2)
    y = b * radial + p1 * (r**2 + 2 * b**2) + 2 * p2 * a * b
    return np.stack((x, y), 1)


# k1, k2, p1, p2, k3, k4, k5, k6, r^8 of lenses as calibrations give them (the third of an Azure Kinect, a rational one
# whose factors nearly cancel), and the field of view in radians over which they hold; the last three are fisheyes.
LENSES = [
    ((-0.28, 0.09, 1e-3, -5e-4, -0.01, 0, 0, 0, 0), 1.6, False),
    ((0.12, -0.25, 4e-4, 2e-4, 0.16, 0, 0, 0, 0), 1.3, False),
    ((0.52, -2.63, 6e-4, -2e-4, 1.50, 0.40, -2.45, 1.43, 0), 1.2, False),
    ((8.1, 4.2, 1e-4, 1e-4, 0.2, 8.4, 6.3, 1.0, 0), 2.0, False),
    ((0, 0, 0, 0, 0, 0, 0, 0, 0), 3.1, True),
    ((-0.012, 0.004, 0, 0, -0.003, 0, 0, 0, 4e-4), 3.1, True),
    ((0.03, -0.01, 0, 0, 0.002, 0, 0, 0, -1e-4), 3.9, True),
]


@pytest.mark.parametrize(("row", "field_of_view", "fisheye"), LENSES)
def test_rays_are_where_opencv_projects_from(device, row, field_of_view, fisheye):
    """A camera that looks along a pixel's ray by OpenCV's formula sees it in that pixel."""
    order = (0, 1, 4, 8) if fisheye else range(8)
    k = np.array([row[i] for i in order])
    side, angle = 40, field_of_view / 2
    edge = opencv(np.array([[math.sin(angle), 0.0, math.cos(angle)]]), k, fisheye)[0, 0]
    focal = side / 2 / edge  # the middle of a side is at the edge of the field of view
    f64 = {"dtype": torch.float64, "device": device}
    camera = torch.eye(3, 4, **f64)[None]
    intrinsics = torch.tensor([[focal, 1.1 * focal, side / 2 + 0.3, side / 2 - 0.2]], **f64)
    views = pixel_views(
        camera, intrinsics, torch.tensor([[side, side]], device=device), torch.tensor([row], **f64),
        torch.tensor([fisheye], device=device),
    )  # fmt: skip
    pixels = torch.arange(side**2, device=device)
    rays = sample_pixels(views, pixels)
    middle = (pixels % side + 0.5 - side / 2) ** 2 + (pixels // side + 0.5 - side / 2) ** 2 < (0.95 * side / 2) ** 2
    assert rays.radii[middle].isfinite().all()
    good = rays.radii.isfinite()
    seen = opencv((rays.directions[good].cpu() * torch.tensor([1, -1, -1])).numpy(), k, fisheye)
    expected = np.stack(((pixels[good] % side).cpu() + 0.5, (pixels[good] // side).cpu() + 0.5), 1)
    f, c = intrinsics[0, :2].cpu().numpy(), intrinsics[0, 2:].cpu().numpy()
    np.testing.assert_allclose(seen * f + c, expected, atol=1e-6)
    if field_of_view > math.pi:
        assert (rays.directions[good, 2] > 0).any()  # behind the camera's plane, beyond 180 degrees
    # Cones as wide as the distance to the next ray, by the middle of the picture, where a pixel is a square.
    across = rays.directions.view(side, side, 3)[20, 20] - rays.directions.view(side, side, 3)[20, 19]
    assert torch.allclose(rays.radii.view(side, side)[20, 20], across.norm() / math.sqrt(3 * 1.1), rtol=0.03)


def test_lenses_match_the_reference(device, assert_close):
    """Mixed in one call, with masks, and over the edges of what the lenses show."""
    rows = torch.tensor([row for row, _, _ in LENSES], dtype=torch.float64, device=device)
    count = len(LENSES)
    sizes = torch.tensor([[9, 11]] * count, device=device)
    intrinsics = torch.tensor([[4.0, 4.2, 5.1, 4.4]] * count, dtype=torch.float64, device=device)
    camera = torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(device)
    fisheye = torch.tensor([fisheye for _, _, fisheye in LENSES], device=device)
    pixels = torch.arange(-2, count * 99 + 2, device=device)
    mask = torch.arange(count * 99, device=device) % 7 != 3
    for terms in (4, 5, 8, 9):
        lens = rows[:, :terms].contiguous()
        views = pixel_views(camera, intrinsics, sizes, lens, fisheye, mask)
        actual, expected = sample_pixels(views, pixels), reference.sample_pixels(views, pixels)
        for a, e in zip(actual[:3], expected[:3], strict=True):
            assert_close(a, e)
        assert actual.radii.isfinite().sum() > 0.5 * len(pixels)
        assert torch.equal(valid_pixels(views), pixels[actual.radii.isfinite()])
        assert not torch.isin(valid_pixels(views), torch.arange(3, count * 99, 7, device=device)).any()
    whole = views._replace(mask=None)
    assert torch.equal(valid_pixels(whole, mask), valid_pixels(views))


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
    mask = torch.arange(127, device=device) != 59
    views = views._replace(fisheye=torch.tensor([True, False, False], device=device), mask=mask)
    arguments = (*views, pixels, images)
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
    with pytest.raises(ValueError, match=r"sample_pixels: views.distortion must be \[B, D\], D = 4, 5, 8, 9, got 6"):
        sample_pixels(views._replace(distortion=torch.zeros(3, 6)), pixels)
    with pytest.raises(RuntimeError, match="sample_pixels: not differentiable, but camera_to_world requires grad"):
        sample_pixels(views._replace(camera_to_world=views.camera_to_world.clone().requires_grad_()), pixels)
