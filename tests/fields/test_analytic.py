"""Analytic fields: exactness, Lipschitz bounds, set algebra, per-image parameters, finite gradients."""

import math

import pytest
import torch

from sdfgan.fields import (
    Box,
    Capsule,
    Cone,
    Cylinder,
    Ellipsoid,
    Plane,
    RoundedBox,
    SmoothIntersection,
    SmoothSubtraction,
    SmoothUnion,
    Sphere,
    Torus,
    rotation_matrix,
)

SQUARE = 1 / math.sqrt(2)
EXACT = {
    "sphere": Sphere(0.6),
    "box": Box((0.3, 0.5, 0.4)),
    "rounded_box": RoundedBox((0.3, 0.5, 0.4), 0.1),
    "torus": Torus(0.5, 0.2),
    "capsule": Capsule(0.2, 0.4),
    "cylinder": Cylinder(0.4, 0.5),
    "cone": Cone(0.5, 0.2, 0.4),
    "pointed_cone": Cone(0.5, 0.0, 0.4),
    "plane": Plane((1.0, 2.0, -0.5), 0.2),
    "moved": Box((0.3, 0.2, 0.4)).scaled(1.5).rotated(axis=(1, 2, 3), angle=0.7).translated((0.1, -0.2, 0.3)),
    "round_ellipsoid": Ellipsoid((0.5, 0.5, 0.5)),
    "flat_ellipsoid": Ellipsoid((0.7, 0.1, 0.5)),
}
OTHER = {
    "ellipsoid": Ellipsoid((0.3, 0.5, 0.7)),
    "union": Sphere(0.4) | Box((0.5, 0.2, 0.2)),
    "intersection": Sphere(0.4) & Box((0.5, 0.2, 0.2)),
    "subtraction": Sphere(0.4) - Box((0.5, 0.2, 0.2)),
    "smooth_union": SmoothUnion(Sphere(0.4), Box((0.5, 0.2, 0.2)).translated((0.0, 0.3, 0.0)), 0.1),
    "smooth_intersection": SmoothIntersection(Sphere(0.4), Box((0.5, 0.2, 0.2)), 0.1),
    "smooth_subtraction": SmoothSubtraction(Sphere(0.4), Box((0.5, 0.2, 0.2)), 0.1),
}
ALL = EXACT | OTHER


def cloud(n, seed=0, scale=0.8):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, 3, generator=generator, dtype=torch.float64)


def surface_by_rays(field, n):
    """Points where rays from an inner point leave a star-shaped solid, by bisection."""
    low, high = torch.zeros(n, 1).double(), torch.full((n, 1), 3.0).double()
    directions = torch.nn.functional.normalize(cloud(n, seed=7), dim=-1)
    for _ in range(50):
        middle = (low + high) / 2
        outside = field.sdf(middle * directions)[:, None] > 0
        low, high = torch.where(outside, low, middle), torch.where(outside, middle, high)
    return high * directions


@pytest.mark.parametrize("name", [n for n in EXACT if n not in ("torus", "plane")])
def test_exact_fields_agree_with_the_closest_of_many_surface_points(name):
    field = EXACT[name]
    points, surface = cloud(300), surface_by_rays(field, 40000)
    distance = torch.cdist(points, surface).amin(-1)
    assert (field.sdf(points).abs() - distance).max() < 1e-9  # never above the distance to a surface point
    assert (distance - field.sdf(points).abs()).max() < 0.03  # and as close as the sampling is dense
    assert (distance - field.sdf(points).abs()).mean() < 0.002


def test_torus_and_plane_agree_with_their_surfaces():
    u, v = torch.meshgrid(*2 * [torch.linspace(0, 2 * math.pi, 401).double()], indexing="ij")
    ring = 0.5 + 0.2 * v.cos()
    surface = torch.stack((ring * u.cos(), 0.2 * v.sin(), ring * u.sin()), -1).view(-1, 3)
    points = cloud(100)
    torch.testing.assert_close(
        torch.cdist(points, surface).amin(-1), EXACT["torus"].sdf(points).abs(), atol=5e-3, rtol=0
    )
    normal = torch.tensor([1.0, 2.0, -0.5]).double() / math.sqrt(5.25)
    torch.testing.assert_close(EXACT["plane"].sdf(points), points @ normal - 0.2)


@pytest.mark.parametrize("name", EXACT)
def test_exact_fields_have_gradients_of_length_one(name):
    points = cloud(2000)
    points = points[(points.abs() > 1e-3).all(-1)]
    gradient = EXACT[name].evaluate(points).gradient
    torch.testing.assert_close(gradient.norm(dim=-1), torch.ones(len(points)).double())


@pytest.mark.parametrize("name", ALL)
def test_lipschitz_bounds_random_pairs(name):
    field, points = ALL[name], cloud(20000)
    for step in (1e-3, 0.1, 1.0):
        others = points + step * cloud(20000, seed=1)
        change = (field.sdf(points) - field.sdf(others)).abs()
        assert (change <= field.lipschitz * (points - others).norm(dim=-1) + 1e-12).all()


@pytest.mark.parametrize("ratio", [1.1, 1.5, 2.0, 3.0, 6.0])
def test_ellipsoid_bounds(ratio):
    for middle in (1.0, (1 + ratio) / 2, ratio):
        radii = torch.tensor([1.0, middle, ratio]).double() / ratio
        field, points = Ellipsoid(radii), cloud(20000)
        assert field.evaluate(points).gradient.norm(dim=-1).max() <= field.lipschitz + 1e-12
        on_surface = torch.nn.functional.normalize(points, dim=-1) * radii
        normal = torch.nn.functional.normalize(on_surface / radii**2, dim=-1)
        gradient = field.evaluate(on_surface * (1 + 1e-9)).gradient
        torch.testing.assert_close(gradient, normal, atol=1e-6, rtol=0)
        for distance in (0.01, 0.3, 3.0):  # convex: so far along the normal is so far from the surface
            assert (field.sdf(on_surface + distance * normal) <= distance + 1e-12).all()


@pytest.mark.parametrize("radii", [(0.5, 0.5, 0.01), (0.5, 0.3, 0.01), (0.8, 0.005, 0.1), (0.5, 0.1, 0.1)])
def test_flat_ellipsoids_are_exact(radii):
    """Outside, so far along a normal is so far from the surface; inside too, up to the surface's centre of curvature.
    In the plane of the longer axes all that is near is the distance of the faces."""
    size, seeds = torch.tensor(radii, dtype=torch.float64), cloud(20000)
    surface = torch.nn.functional.normalize(seeds, dim=-1) * size
    normal = torch.nn.functional.normalize(surface / size**2, dim=-1)
    field = Ellipsoid(radii)
    depth = size.min() ** 2 / size.max()  # the smallest radius of curvature
    for distance in (1.0, 0.1, 1e-3, 1e-9, 0.0, -0.1 * depth, -0.5 * depth):
        value = field.sdf(surface + distance * normal)
        torch.testing.assert_close(value, torch.full_like(value, distance), atol=1e-9, rtol=0)
    middle = (seeds / 4).clamp(-1, 1) * size * (size > size.min())
    middle = middle[((middle / size).square().sum(-1) < 1)]
    value, gradient = field.sdf_and_gradient(middle)
    assert (gradient.norm(dim=-1) > 0.9999).all()
    foot = middle - value[:, None] * gradient
    torch.testing.assert_close((foot / size).square().sum(-1), torch.ones_like(value), atol=1e-4, rtol=0)


def test_a_batch_of_flat_and_round_ellipsoids():
    radii, points = torch.tensor([[0.5, 0.4, 0.3], [0.5, 0.4, 0.02]]), cloud(100).float()
    together = Ellipsoid(radii)
    assert together.lipschitz[1] == 1 < together.lipschitz[0]
    for image, row in enumerate(radii):
        alone = Ellipsoid(row).sdf(points)
        assert torch.equal(together.sdf(points, None, torch.full((100,), image)), alone)


def test_known_distances():
    at = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(Box((0.5, 0.5, 0.5)).sdf(at), torch.tensor([0.5, SQUARE, -0.5]))
    torch.testing.assert_close(Cylinder(0.5, 0.5).sdf(at), torch.tensor([0.5, SQUARE, -0.5]))
    torch.testing.assert_close(Capsule(0.25, 0.5).sdf(at), torch.tensor([0.75, 1.25**0.5 - 0.25, -0.25]))
    torch.testing.assert_close(Cone(0.5, 0.5, 0.5).sdf(at), torch.tensor([0.5, SQUARE, -0.5]))
    torch.testing.assert_close(Torus(0.5, 0.1).sdf(at), torch.tensor([0.4, 1.25**0.5 - 0.1, 0.4]))


def test_set_algebra():
    a, b, points = Sphere(0.5), Box((0.6, 0.3, 0.4)).translated((0.2, 0.0, 0.1)), cloud(500)
    value_a, value_b = a.sdf(points), b.sdf(points)
    union, intersection, difference = ((f).sdf(points) for f in (a | b, a & b, a - b))
    assert torch.equal(union < 0, (value_a < 0) | (value_b < 0))
    assert torch.equal(intersection < 0, (value_a < 0) & (value_b < 0))
    assert torch.equal(difference < 0, (value_a < 0) & ~(value_b < 0))
    for smooth, sharp, sign in (
        (SmoothUnion(a, b, 0.2), union, 1),
        (SmoothIntersection(a, b, 0.2), intersection, -1),
        (SmoothSubtraction(a, b, 0.2), difference, -1),
    ):
        thicker = sign * (sharp - smooth.sdf(points))
        assert (thicker >= -1e-12).all() and (thicker <= 0.05 + 1e-12).all()
    apart = (value_a - value_b).abs() > 0.2
    torch.testing.assert_close(SmoothUnion(a, b, 0.2).sdf(points)[apart], union[apart])


def test_transforms_move_the_solid():
    field = Box((0.3, 0.2, 0.1)).rotated(axis=(0, 0, 2), angle=math.pi / 2).translated((1.0, 2.0, 3.0))
    corner = torch.tensor([[1.2, 2.3, 3.1]])  # (x, y) became (-y, x)
    assert field.sdf(corner).abs() < 1e-6
    matrix = rotation_matrix((1.0, -2.0, 0.5), torch.tensor([0.3, 1.0]))
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(2))
    points = cloud(50)
    torch.testing.assert_close(Sphere(0.3).scaled(2.0).sdf(points), Sphere(0.6).sdf(points))


def test_colours_follow_the_nearest_or_blended_part():
    red, blue = Sphere(0.3).translated((-0.5, 0, 0)).coloured((1, 0, 0)), Sphere(0.3).coloured((0, 0, 1))
    points = torch.tensor([[-0.5, 0.3, 0.0], [0.0, 0.3, 0.0], [-0.25, 0.0, 0.0]])
    rgb = (red | blue).rgb(points)
    assert rgb[0].tolist() == [1, 0, 0] and rgb[1].tolist() == [0, 0, 1]
    rgb = SmoothUnion(red, blue, 0.1).rgb(points)
    assert rgb[0].tolist() == [1, 0, 0] and rgb[1].tolist() == [0, 0, 1]
    torch.testing.assert_close(rgb[2], torch.tensor([0.5, 0.0, 0.5]))
    assert (blue - red).rgb(points)[1].tolist() == [0, 0, 1]


def solid(radius, size, shift, angle, colour):
    """A field with parameters of every kind, for one image (floats) or several (rows)."""
    box = RoundedBox(size, 0.05).rotated(axis=(0.0, 1.0, 0.0), angle=angle).translated(shift).coloured(colour)
    parts = SmoothUnion(Cylinder(radius, 0.4), Ellipsoid(size), 0.1) | Cone(radius, 0.1, 0.5)
    return (parts | Torus(0.6, 0.1) | box) - Capsule(0.1, 0.2).scaled(radius)


def test_parameters_per_image_equal_one_field_per_image():
    generator = torch.Generator().manual_seed(0)
    radius, angle = torch.rand(2, 3, generator=generator, dtype=torch.float64) + 0.2
    size, shift, colour = torch.rand(3, 3, 3, generator=generator, dtype=torch.float64) * 0.5 + 0.2
    field, points = solid(radius, size, shift, angle, colour), cloud(300)
    image = torch.arange(3).repeat_interleave(100)
    sample = field.evaluate(points, image=image)
    for row in range(3):
        field = solid(radius[row], size[row], shift[row], angle[row], colour[row])
        one = field.evaluate(points[image == row])
        for got, expected in zip(sample, one, strict=True):
            torch.testing.assert_close(got[image == row], expected)
    with pytest.raises(ValueError, match="image must be given"):
        Sphere(radius).sdf(points)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_at_degenerate_points(name, dtype):
    values = torch.tensor([-0.5, -0.4, -0.3, 0.0, 0.2, 0.3, 0.4, 0.5], dtype=dtype)
    points = torch.cartesian_prod(values, values, values).requires_grad_()  # centre, axes, edges, corners
    value, gradient = ALL[name].sdf_and_gradient(points)
    assert value.dtype == dtype and value.isfinite().all() and gradient.isfinite().all()
    if gradient.requires_grad:
        (second,) = torch.autograd.grad(gradient.square().sum(), points)
        assert second.isfinite().all()


@pytest.mark.parametrize("field", [Box((0.5, 0.5, 0.5)), Cylinder(0.5, 0.5), Cone(0.5, 0.25, 0.5)])
def test_there_is_a_gradient_on_the_surface_itself(field):
    points = torch.tensor([[0.1, -0.5, 0.2], [0.2, 0.5, 0.1]])
    assert (field.sdf(points).abs() < 1e-11).all()
    torch.testing.assert_close(field.evaluate(points).gradient[:, 1], torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("name", [n for n in EXACT if n not in ("torus", "plane", "moved")])
def test_normals_are_clean_at_the_surface_in_single_precision(name):
    """A traced ray ends within rounding of the surface, where a root of squares has no direction left."""
    field, surface = EXACT[name], surface_by_rays(EXACT[name], 5000)
    expected = field.evaluate(surface * 1.001).gradient
    for shift in (0.0, 3e-8, 1e-7, 1e-6):
        gradient = field.evaluate((surface * (1 + shift)).float()).gradient
        assert ((gradient - expected).norm(dim=-1) > 0.05).double().mean() < 0.01  # except for edges


def test_gradients_reach_the_parameters():
    parameters = [torch.rand(2, dtype=torch.float64) + 0.3, torch.rand(2, 3, dtype=torch.float64) + 0.3]
    image, points = torch.tensor([0, 0, 0, 1, 1]), cloud(5)

    def value(radius, size):
        field = (Sphere(radius) | Box(size)).scaled(radius) & Ellipsoid(size)
        return SmoothUnion(field, Cone(radius, 0.1, radius), 0.1).sdf(points, image=image)

    assert torch.autograd.gradcheck(value, [p.requires_grad_() for p in parameters])
    sphere = Sphere(torch.nn.Parameter(torch.tensor(0.5)))
    assert [name for name, _ in sphere.named_parameters()] == ["radius"]
    assert Sphere(0.5).float().radius.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sphere(-0.1), "Sphere: radius must be at least"),
        (lambda: Box((0.1, 0.2)), r"Box: half_size must be \[3\] or \[B, 3\]"),
        (lambda: Sphere(torch.zeros(2, 3)), r"Sphere: radius must be \[\] or \[B\]"),
        (lambda: Plane((0.0, 0.0, 0.0)), "Plane: normal must not be zero"),
        (lambda: Sphere(1.0).rotated(torch.ones(3, 3)), "rotation must be orthonormal"),
        (lambda: Sphere(1.0).rotated(), "either matrix, or axis and angle"),
        (lambda: SmoothUnion(Sphere(1.0), Sphere(1.0), 0.0), "SmoothUnion: k must be positive"),
    ],
)
def test_bad_parameters_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_reprs_show_values() -> None:
    ball = Sphere(0.5)
    assert repr(ball) == "Sphere(radius=0.5)"
    assert "(a): Sphere(radius=0.5)" in repr(ball | Box((0.1, 0.2, 0.3)))
    assert "half_size=[0.1, 0.2, 0.3]" in repr(ball | Box((0.1, 0.2, 0.3)))
    assert repr(Sphere(torch.rand(40))) == "Sphere(radius=float32[40])"
