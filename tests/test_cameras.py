"""Cameras: axes, pixel centres, pose distributions, conversions."""

import math

import pytest
import torch

from sdfgan import cameras
from sdfgan.errors import UserError

ELEVATION, AZIMUTH = (0.1, 0.5), (-1.0, 2.0)


def random_axes(n, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    angles = (torch.rand(2, n, generator=generator, dtype=dtype) - 0.5) * 3
    return cameras.rotate_axes((angles[0], angles[1]))


def test_axes_are_right_handed_rows_and_z_points_to_the_camera():
    axes = random_axes(16)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).double().expand(16, 3, 3))
    torch.testing.assert_close(torch.linalg.cross(axes[:, 0], axes[:, 1]), axes[:, 2])
    assert (axes[:, 1, 1] > 0).all() and (axes[:, 0, 1] == 0).all()  # upright, without roll
    zero, quarter = torch.zeros(1), torch.full((1,), math.pi / 2)
    torch.testing.assert_close(cameras.rotate_axes((zero, zero)), torch.eye(3)[None])
    torch.testing.assert_close(cameras.rotate_axes((zero, quarter))[0, 2], torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(cameras.rotate_axes((quarter, zero))[0, 2], torch.tensor([0, 1.0, 0]))


def test_orbit_camera_looks_at_the_origin_from_the_distance_of_its_fov():
    axes = random_axes(8)
    camera = cameras.orbit_camera(axes, fov=0.7)
    torch.testing.assert_close(camera[..., 3].norm(dim=-1), torch.full((8,), 1 / math.tan(0.35)).double())
    torch.testing.assert_close(cameras.look_at(camera[..., 3]), camera)
    assert cameras.camera_distance() == pytest.approx(4.5107, abs=1e-4)


def test_ray_grid_meets_the_image_plane_at_pixel_centres_with_row_0_on_top():
    height, width, fov = 4, 6, 0.9
    axes = random_axes(2)
    origins, directions = cameras.ray_grid(axes, height, width, fov)
    assert origins.shape == directions.shape == (2, height, width, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, height, width).double())
    # intersect with the plane through the origin, and express in camera axes
    z = axes[:, None, None, 2]
    t = -(origins * z).sum(-1, keepdim=True) / (directions * z).sum(-1, keepdim=True)
    x, y, depth = torch.einsum("bij,bhwj->ibhw", axes, origins + t * directions)
    assert depth.abs().max() < 1e-12
    expected_x = (torch.arange(width).double() + 0.5) / width * 2 - 1
    expected_y = 1 - (torch.arange(height).double() + 0.5) / height * 2
    torch.testing.assert_close(x, (expected_x * width / height).expand_as(x))
    torch.testing.assert_close(y, expected_y[:, None].expand_as(y))


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (7, 4)])
def test_finer_grids_nest_in_coarser(shape):
    axes, (height, width) = random_axes(1), shape
    plane = []
    for n in (1, 2):
        _, directions = cameras.ray_grid(axes, n * height, n * width)
        plane.append(directions / -(directions * axes[:, None, None, 2]).sum(-1, keepdim=True))
    pooled = torch.nn.functional.avg_pool2d(plane[1].permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(pooled, plane[0])


def test_ray_grid_is_differentiable_in_the_camera():
    camera = cameras.orbit_camera(random_axes(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: cameras.ray_grid(c, 2, 3, 0.6), camera)


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 5), (1, 4, 4)])
def test_ray_grid_rejects_what_is_no_camera(shape):
    with pytest.raises(ValueError, match="ray_grid: camera must be"):
        cameras.ray_grid(torch.zeros(shape), 4)


def test_look_at_from_any_distance() -> None:
    near = cameras.look_at(torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64))
    for distance in (1e-250, 1e250):  # whose squares are no numbers
        far = cameras.look_at(distance * torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64))
        torch.testing.assert_close(far[:, :3], near[:, :3])
    for bad in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="look_at: position must be finite, got"):
            cameras.look_at((0.0, 0.0, bad))
    with pytest.raises(ValueError, match="look_at: up must be finite, got"):
        cameras.look_at((0.0, 0.0, 1.0), up=(0.0, float("inf"), 0.0))


def test_look_at_centres_its_target_upright():
    generator = torch.Generator().manual_seed(1)
    position, target = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    camera = cameras.look_at(position, target, torch.tensor([0.0, 0.0, 2.0]).double())
    _, directions = cameras.ray_grid(camera, 1)
    torch.testing.assert_close(directions[:, 0, 0], torch.nn.functional.normalize(target - position, dim=-1))
    assert (camera[:, 2, 1] > 0).all() and (camera[:, 2, 0].abs() < 1e-12).all()
    with pytest.raises(ValueError, match="parallel"):
        cameras.look_at(torch.tensor([0.0, 2.0, 0.0]))
    with pytest.raises(ValueError, match="differ from target"):
        cameras.look_at(torch.zeros(3))


@pytest.mark.parametrize("name", cameras.POSE_DISTRIBUTIONS)
def test_pose_distributions_are_centred_reproducible_and_in_range(name):
    poses = cameras.pose_distribution(name, ELEVATION, AZIMUTH)
    elevation, azimuth = poses.sample(20000, torch.Generator().manual_seed(0))
    again = poses.sample(20000, torch.Generator().manual_seed(0))
    assert torch.equal(elevation, again[0]) and torch.equal(azimuth, again[1])
    assert elevation.shape == azimuth.shape == (20000,) and elevation.abs().max() <= math.pi / 2
    assert azimuth.mean() == pytest.approx(0.5, abs=0.05)
    half = 1.5  # half-width of the range of azimuths
    uniform_std = half / math.sqrt(3)
    std, reach = {
        "uniform": (uniform_std, half),
        "spherical_uniform": (uniform_std, half),
        "gaussian": (half, math.inf),
        "truncated_gaussian": (0.8796 * half, 2 * half),
        "hybrid": (math.sqrt((half**2 + (2 * uniform_std) ** 2) / 2), math.inf),
        "fixed": (0.0, 0.0),
    }[name]
    assert azimuth.std() == pytest.approx(std, rel=0.02, abs=1e-6)
    assert (azimuth - 0.5).abs().max() <= reach + 1e-6


def test_spherical_uniform_is_uniform_by_area():
    poses = cameras.SphericalUniform((-math.pi / 2, math.pi / 2), (0.0, 2 * math.pi))
    z = cameras.rotate_axes(poses.sample(40000, torch.Generator().manual_seed(0)))[:, 2]
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(3) / 3, atol=0.02, rtol=0)


def test_unknown_distributions_and_bad_ranges_are_user_errors():
    with pytest.raises(UserError, match="must be one of uniform"):
        cameras.pose_distribution("round", ELEVATION, AZIMUTH)
    with pytest.raises(UserError, match="elevation range"):
        cameras.pose_distribution("uniform", (1.0, 0.0), AZIMUTH)


def test_orbit_path_loops():
    elevation, azimuth = cameras.orbit_path(8, 0.3, start=0.1, turns=-1, swing=0.2)
    step = torch.full((7,), -2 * math.pi / 8)
    torch.testing.assert_close(azimuth.diff(), step)
    torch.testing.assert_close(azimuth[-1] + step[0], azimuth[0] - 2 * math.pi)
    assert elevation.mean() == pytest.approx(0.3) and elevation.max() == pytest.approx(0.5)
    assert cameras.orbit_path(0)[0].shape == (0,)


def test_blender_conversion_turns_z_up_into_y_up_and_back_exactly():
    camera = cameras.orbit_camera(random_axes(4, torch.float32))
    blender = cameras.to_blender(camera)
    assert blender.shape == (4, 4, 4)
    assert torch.equal(cameras.from_blender(blender), camera)
    assert torch.equal(cameras.to_blender(cameras.from_blender(blender)), blender)
    # Blender's default camera above its ground plane: up in its world is +z, in ours +y.
    above = torch.eye(4)
    above[2, 3] = 5.0
    ours = cameras.from_blender(above)
    assert torch.equal(ours[:, 3], torch.tensor([0.0, 5.0, 0.0]))
    assert torch.linalg.det(ours[:, :3]) == 1


def test_fov_conversion():
    # the Lego scene of NeRF: 800 pixels wide, focal length 1111 pixels
    assert 400 / math.tan(0.6911112070083618 / 2) == pytest.approx(1111.1, abs=0.1)
    assert cameras.vertical_fov(0.7, 1.0) == pytest.approx(0.7)
    assert cameras.horizontal_fov(cameras.vertical_fov(1.2, 16 / 9), 16 / 9) == pytest.approx(1.2)
    assert cameras.vertical_fov(1.2, 16 / 9) < 1.2
