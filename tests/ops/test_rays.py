"""sdfgan.ops.generate_rays: against the reference, and the geometry of pixels and ball."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan.ops import generate_rays, reference

OP = torch.ops.sdfgan.generate_rays.default


def random_cameras(batch, dtype=torch.float32, device="cpu", distance=4.0):
    """Rotated cameras whose z axis points away from the origin, with the centre moved a little."""
    axes = torch.linalg.qr(torch.randn(batch, 3, 3, dtype=torch.float64)).Q
    centre = axes[:, :, 2] * distance + 0.3 * torch.randn(batch, 3, dtype=torch.float64)
    return torch.cat([axes, centre[:, :, None]], -1).to(device, dtype)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    count=st.integers(0, 40),
    fov=st.floats(0.2, 2.0),
    radius=st.floats(0.5, 5.0),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_matches_reference(device, batch, height, width, count, fov, radius, dtype):
    cameras = random_cameras(batch, dtype, device)
    pixels = torch.randint(-2, batch * height * width + 2, (count,), device=device)
    actual = generate_rays(cameras, pixels, height, width, fov, radius)
    expected = reference.generate_rays(cameras.double(), pixels, height, width, fov, radius)
    for name, a, e in zip(("origins", "directions", "near", "far"), actual, expected, strict=True):
        # At a tangent the chord grows like a square root, so an error of eps in the ray becomes sqrt(eps).
        atol = 20 * torch.finfo(dtype).eps ** (0.5 if name in ("near", "far") else 1.0)
        torch.testing.assert_close(a.double(), e, rtol=0, atol=atol, equal_nan=True)


def test_near_and_far_lie_on_the_ball(device, assert_close):
    cameras = random_cameras(3, torch.float64, device)
    pixels = torch.arange(3 * 16 * 24, device=device)
    origins, directions, near, far = generate_rays(cameras, pixels, 16, 24, 0.6, 0.9)
    assert_close(directions.norm(dim=-1), torch.ones_like(near))
    hits = far > near
    assert 0.1 < hits.double().mean() < 0.9
    for t in (near, far):
        radii = (origins + t[:, None] * directions).norm(dim=-1)
        assert_close(radii[hits], torch.full_like(radii[hits], 0.9))
        assert (radii[~hits] >= 0.9).all()
    step = (origins + (near + 1e-3)[:, None] * directions).norm(dim=-1)
    assert (step[~hits] >= (origins + near[:, None] * directions).norm(dim=-1)[~hits]).all()  # the closest


def test_each_picture_may_have_its_ball(device):
    cameras, pixels = random_cameras(3, torch.float64, device), torch.arange(-1, 3 * 16 * 24 + 1, device=device)
    radii = torch.tensor([0.9, 0.5, 2.0], dtype=torch.float64, device=device)
    made = generate_rays(cameras, pixels, 16, 24, 0.6, radii)
    for image, radius in enumerate(radii.tolist()):
        own = pixels // (16 * 24) == image
        alone = generate_rays(cameras, pixels[own], 16, 24, 0.6, radius)
        assert all(torch.equal(a[own], b) for a, b in zip(made, alone, strict=True))


def test_pixel_centres(device, assert_close):
    """Directions of a wide picture, in the camera's frame, by hand."""
    camera = torch.eye(4, dtype=torch.float64, device=device)[None, :3]
    fov = 2 * math.atan(0.5)  # the picture's plane is at distance 2
    _, directions, _, _ = generate_rays(camera, torch.arange(8, device=device), 2, 4, fov)
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5] * 2, dtype=torch.float64, device=device)
    y = torch.tensor([0.5] * 4 + [-0.5] * 4, dtype=torch.float64, device=device)
    assert_close(directions / -directions[:, 2:] * 2, torch.stack([x, y, torch.full_like(x, -2)], -1))


def test_camera_inside_and_ball_behind(device):
    camera = torch.eye(4, device=device)[:3].repeat(2, 1, 1)
    camera[1, 2, 3] = -4.0  # looks along -z, away from the ball
    _, _, near, far = generate_rays(camera, torch.arange(2, device=device), 1, 1, 0.5)
    assert near.tolist() == [0, 0]
    assert far.tolist() == pytest.approx([1, 0])


def test_pixels_outside_give_nan(device):
    camera = random_cameras(2, device=device)
    rays = generate_rays(camera, torch.tensor([-1, 2 * 6, 1 << 60], device=device), 2, 3, 0.5)
    assert all(tensor.isnan().all() for tensor in rays)


def test_no_cameras(device):
    nothing = torch.empty(0, 3, 4, device=device)
    rays = generate_rays(nothing, torch.empty(0, dtype=torch.int64, device=device), 2, 3, 0.5)
    assert [list(tensor.shape) for tensor in rays] == [[0, 3], [0, 3], [0], [0]]
    rays = generate_rays(nothing, torch.zeros(2, dtype=torch.int64, device=device), 2, 3, 0.5)
    assert all(tensor.isnan().all() for tensor in rays)


def test_opcheck(device):
    pixels = torch.arange(12, device=device)
    torch.library.opcheck(OP, (random_cameras(2, device=device), pixels, 2, 3, 0.5, 1.0, None))
    radii = torch.tensor([1.0, 0.7], device=device)
    torch.library.opcheck(OP, (random_cameras(2, device=device), pixels, 2, 3, 0.5, 1.0, radii))


def test_compiles(device, assert_close):
    cameras, pixels = random_cameras(2, device=device), torch.arange(12, device=device)
    compiled = torch.compile(generate_rays, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(
        compiled(cameras, pixels, 2, 3, 0.5), generate_rays(cameras, pixels, 2, 3, 0.5), strict=True
    ):
        assert_close(actual, expected)


def test_rejections():
    camera, pixels = random_cameras(2), torch.arange(12)
    with pytest.raises(
        ValueError,
        match=r"generate_rays: camera_to_world must be \[B, 3, 4\] float32 or float64, got \[2, 4, 4\]",
    ):
        generate_rays(torch.zeros(2, 4, 4), pixels, 2, 3, 0.5)
    with pytest.raises(ValueError, match=r"generate_rays: pixels must be \[N\] int64, got \[12\] int32 on cpu"):
        generate_rays(camera, pixels.int(), 2, 3, 0.5)
    with pytest.raises(ValueError, match="generate_rays: height and width must be >= 1, got 0 and 3"):
        generate_rays(camera, pixels, 0, 3, 0.5)
    with pytest.raises(ValueError, match=r"generate_rays: fov must be between 0 and pi radians, got 25\.0"):
        generate_rays(camera, pixels, 2, 3, 25.0)
    with pytest.raises(ValueError, match=r"generate_rays: radius must be > 0, got 0\.0"):
        generate_rays(camera, pixels, 2, 3, 0.5, 0.0)
    with pytest.raises(RuntimeError, match="generate_rays: not differentiable, but camera_to_world requires grad"):
        generate_rays(camera.requires_grad_(), pixels, 2, 3, 0.5)
