"""The tracer against closed forms, against a dense trace of every pixel, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdfgan import cameras, fields
from sdfgan.raycast import multiscale


def some_axes(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    elevation = (torch.rand(count, generator=random) - 0.5) * 2.4
    azimuth = torch.rand(count, generator=random) * 2 * math.pi
    return cameras.rotate_axes((elevation.to(dtype), azimuth.to(dtype)))


def dense(sdf, axes: Tensor, resolution: int, threshold: float = 1e-4, steps: int = 300) -> Tensor:
    """[B, R, R] bool: what plain sphere tracing of every pixel, without any shortcut, hits."""
    camera = cameras.orbit_camera(axes)
    origins, directions = cameras.ray_grid(camera, resolution, resolution)
    origins, directions = (x.expand(*directions.shape).reshape(-1, 3) for x in (origins, directions))
    b = (origins * directions).sum(-1)
    root = (b * b - origins.square().sum(-1) + 1).clamp(min=0).sqrt()
    t, far = -b - root, -b + root
    hit = torch.zeros_like(t, dtype=torch.bool)
    for _ in range(steps):
        value = sdf(origins + t[:, None] * directions)
        hit |= (value <= threshold) & (t < far)
        t = torch.where(hit, t, t + value)
    return hit.view(len(axes), resolution, resolution)


def queries_of_a_dense_trace(sdf, axes: Tensor, resolution: int) -> int:
    seen = []
    dense(lambda points: seen.append(len(points)) or sdf(points), axes, resolution, steps=20)
    return sum(seen)


def sphere_depth(samples, radius: float) -> Tensor:
    o, d = samples.rays.origins.double(), samples.rays.directions.double()
    b = (o * d).sum(-1)
    return -b - (b * b - o.square().sum(-1) + radius**2).sqrt()


def box_depth(samples, half: Tensor) -> Tensor:
    o, d = samples.rays.origins.double(), samples.rays.directions.double()
    near = torch.minimum((half - o) / d, (-half - o) / d).amax(-1)
    far = torch.maximum((half - o) / d, (-half - o) / d).amin(-1)
    return torch.where(near < far, near, torch.nan)


def torus_depth(samples, major: float, minor: float) -> Tensor:
    """The first root of the torus quartic (axis y), by numpy in float64."""
    import numpy as np

    o, d = samples.rays.origins.double().numpy(), samples.rays.directions.double().numpy()
    depths = []
    for ray_o, ray_d in zip(o, d, strict=True):
        # (|p|^2 + R^2 - r^2)^2 = 4 R^2 (x^2 + z^2) along p = o + t d
        a = np.polynomial.Polynomial([ray_o @ ray_o + major**2 - minor**2, 2 * ray_o @ ray_d, ray_d @ ray_d])
        x, z = (np.polynomial.Polynomial([ray_o[i], ray_d[i]]) for i in (0, 2))
        roots = (a * a - 4 * major**2 * (x * x + z * z)).roots()
        real = roots[np.abs(roots.imag) < 1e-6].real
        depths.append(real.min() if len(real) else np.nan)
    return torch.tensor(depths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["sphere", "box", "torus"])
def test_depth_equals_the_closed_form(shape: str, dtype: torch.dtype) -> None:
    axes = some_axes(3, seed=1, dtype=dtype)
    if shape == "sphere":
        solid = fields.Sphere(radius=0.95)
        samples = multiscale(axes, (16, 4), None, solid)
        truth = sphere_depth(samples, 0.95)
    elif shape == "box":
        solid = fields.Box((0.5, 0.3, 0.4))
        samples = multiscale(axes, (16, 4), None, solid)
        truth = box_depth(samples, torch.tensor([0.5, 0.3, 0.4], dtype=torch.float64))
    else:
        solid = fields.Torus(0.5, 0.2)
        samples = multiscale(axes, (16, 4), None, solid)
        truth = torus_depth(samples, 0.5, 0.2)
    # A ray that passes within the threshold of the surface without meeting it is a hit, but has no true depth.
    both = samples.hit & ~truth.isnan()
    assert both.sum() > 1000
    assert (samples.hit & truth.isnan()).sum() <= 3
    error = (samples.distances - truth)[both].abs()
    if dtype == torch.float64:
        assert error.max() < 1e-4
    else:
        # Where a ray grazes, a rounding error of 5e-7 in the distance is divided by the slope along the ray.
        _, gradient = solid.sdf_and_gradient(samples.points)
        slope = (gradient * samples.rays.directions).sum(-1)[both].abs()
        assert error[slope > 0.02].max() < 1e-4 and (slope > 0.02).float().mean() > 0.995


def random_solid(seed: int) -> fields.AnalyticField:
    """A random tree of unions, intersections and subtractions of primitives."""
    random = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random)

    def primitive() -> fields.AnalyticField:
        kind = int(torch.randint(4, (), generator=random))
        made = (
            lambda: fields.Sphere(float(uniform(0.15, 0.45, 1))),
            lambda: fields.Box(tuple(uniform(0.1, 0.4, 3).tolist())),
            lambda: fields.Torus(float(uniform(0.25, 0.4, 1)), float(uniform(0.06, 0.15, 1))),
            lambda: fields.Cylinder(float(uniform(0.1, 0.3, 1)), float(uniform(0.1, 0.4, 1))),
        )[kind]()
        turned = made.rotated(axis=tuple(uniform(-1, 1, 3).tolist()), angle=float(uniform(0, 3, 1)))
        return turned.translated(tuple(uniform(-0.3, 0.3, 3).tolist()))

    return (primitive() | primitive() | primitive()) - primitive()


def test_hits_are_those_of_a_dense_trace() -> None:
    """Rays that leave less than a few tenths of a pixel of a sharp solid's edge unseen may miss it; few do."""
    both = either = 0
    for seed in range(8):
        solid, axes = random_solid(seed), some_axes(2, seed)
        samples = multiscale(axes, (16, 2, 2), None, solid)
        found = samples.mask.masked_scatter(samples.mask, samples.hit)
        truth = dense(solid.sdf, axes, 64)
        assert truth.any()
        assert (found & truth).sum() / (found | truth).sum() >= (0.999 if seed < 4 else 0.997)
        both, either = both + int((found & truth).sum()), either + int((found | truth).sum())
        assert samples.queries < 0.25 * queries_of_a_dense_trace(solid.sdf, axes, 64)
    assert both / either >= 0.999


@pytest.mark.parametrize("shape", [fields.Sphere(0.6), fields.Box((0.4, 0.4, 0.4)), fields.Torus(0.5, 0.2)])
def test_hit_mask_is_identical_to_a_dense_300_step_trace(shape: fields.AnalyticField) -> None:
    axes = some_axes(4, seed=2)
    samples = multiscale(axes, (16, 4), None, shape)
    found = samples.mask.masked_scatter(samples.mask, samples.hit)
    assert torch.equal(found, dense(shape.sdf, axes, 64))


def test_a_long_object_is_whole_from_every_side() -> None:
    """Nothing is cut off at the edge of the ball, as a disc in the picture would."""
    rod = fields.Capsule(0.09, 0.9)
    elevations = torch.linspace(-1.4, 1.4, 8)
    axes = cameras.rotate_axes((elevations, torch.linspace(0, 3, 8)))
    samples = multiscale(axes, (16, 4), None, rod)
    found = samples.mask.masked_scatter(samples.mask, samples.hit)
    assert torch.equal(found, dense(rod.sdf, axes, 64))


def test_functions_of_points_and_latents() -> None:
    axes = some_axes(3)
    radii = torch.tensor([[0.3], [0.5], [0.7]])
    seen = []

    def ball(points: Tensor, latents: Tensor) -> Tensor:
        seen.append(points.shape[0] == latents.shape[0])
        return points.norm(dim=-1, keepdim=True) - latents

    samples = multiscale(axes, (8, 4), radii, ball, extent=1)
    assert all(seen)
    reference = multiscale(axes, (8, 4), None, fields.Sphere(radius=radii[:, 0]), extent=1)
    assert torch.equal(samples.mask, reference.mask)
    torch.testing.assert_close(samples.distances, reference.distances, atol=1e-4, rtol=0)
    radius = samples.points[samples.hit].norm(dim=-1)
    torch.testing.assert_close(radius, samples.latents[samples.hit, 0], atol=1e-5, rtol=0)
    one = multiscale(axes, (8, 4), None, lambda points: points.norm(dim=-1) - 0.5)
    assert one.hit.any() and one.latents is None


def test_samples_are_in_the_order_of_the_mask() -> None:
    samples = multiscale(some_axes(3), (8, 4), None, fields.Sphere(0.5))
    assert torch.equal(samples.image, samples.mask.nonzero()[:, 0])
    assert samples.points.shape == (int(samples.mask.sum()), 3)


def test_margin_samples_every_near_miss() -> None:
    axes = some_axes(2)
    samples = multiscale(axes, (16, 4), None, fields.Sphere(0.5), margin=2.0)
    everything = multiscale(axes, (64,), None, fields.Sphere(0.5))
    footprint = 2 / (64 * cameras.camera_distance())
    close = everything.nearest < 2 * footprint * everything.distances
    wanted = everything.mask.masked_scatter(everything.mask, close)
    assert (wanted & ~samples.mask).sum() == 0


def test_start_jitter_is_random_and_bounded() -> None:
    axes, sphere = some_axes(1), fields.Sphere(0.3)
    plain = multiscale(axes, (32,), None, sphere)
    jittered = multiscale(axes, (32,), None, sphere, start_jitter=0.1, generator=torch.Generator().manual_seed(0))
    moved = jittered.rays.start - plain.rays.start
    assert moved.min() >= 0 and 0.09 < moved.max() <= 0.1
    assert torch.equal(plain.hit, jittered.hit)


def test_float64_is_more_exact() -> None:
    axes = some_axes(1, dtype=torch.float64)
    samples = multiscale(axes, (16, 2), None, fields.Sphere(0.5).double(), 1e-6, refine=4, extent=1)
    error = (samples.distances - sphere_depth(samples, 0.5))[samples.hit].abs()
    assert error.median() < 1e-12


def test_empty_scenes_and_batches() -> None:
    nothing = multiscale(some_axes(2), (8, 2), None, lambda points: torch.ones(len(points)) * 9)
    assert not nothing.hit.any()
    no_pictures = multiscale(torch.zeros(0, 3, 3), (8, 2), None, fields.Sphere(0.5))
    assert no_pictures.mask.shape == (0, 16, 16) and len(no_pictures.points) == 0


def test_nan_ends_a_ray_without_a_hit() -> None:
    samples = multiscale(some_axes(1), (16,), None, lambda points: torch.full((len(points),), math.nan))
    assert not samples.hit.any()


def test_bad_input_is_named() -> None:
    axes, sphere = some_axes(2), fields.Sphere(0.5)
    with pytest.raises(ValueError, match=r"axes must be \[B, 3, 3\], got \[2, 3\]"):
        multiscale(axes[:, 0], (8,), None, sphere)
    with pytest.raises(ValueError, match="scales must be positive whole numbers"):
        multiscale(axes, (8, 0), None, sphere)
    with pytest.raises(ValueError, match=r"latents must be \[2, L\], got \[3, 4\]"):
        multiscale(axes, (8,), torch.zeros(3, 4), sphere)
    with pytest.raises(ValueError, match="threshold must be positive"):
        multiscale(axes, (8,), None, sphere, 0.0)
    with pytest.raises(ValueError, match="algorithm must be 'march' or 'dfr', got 'fast'"):
        multiscale(axes, (8,), None, sphere, algorithm="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision 'bf16' is for a FilmSirenSDF on a CPU"):
        multiscale(axes, (8,), None, sphere, precision="bf16")
    with pytest.raises(ValueError, match="lipschitz must be positive, got -1"):
        multiscale(axes, (8,), None, sphere, lipschitz=-1)
    with pytest.raises(ValueError, match=r"sdf must return \[N\] or \[N, 1\] for N = \d+ points"):
        multiscale(axes, (8,), None, lambda points: points)
    with pytest.raises(TypeError, match="sdf must be a Field or a function"):
        multiscale(axes, (8,), None, 3.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes points and latents"):
        multiscale(axes, (8,), None, lambda points, latents: points[:, 0])


def some_network(width: int = 32) -> tuple[fields.FilmSirenSDF, Tensor]:
    """A network with shapes that are no balls."""
    torch.manual_seed(3)
    network = fields.FilmSirenSDF(width=width, latent_size=8)
    with torch.no_grad():
        network.sdf_head.mul_(4)
    return network, torch.randn(4, 8)


def test_the_former_name_of_dfrs_algorithm_works() -> None:
    now, former = (
        multiscale(some_axes(2), (8, 2), None, fields.Sphere(0.5), algorithm=name)  # type: ignore[arg-type]
        for name in ("dfr", "seed")
    )
    assert torch.equal(now.distances, former.distances) and now.queries == former.queries


@pytest.mark.parametrize("algorithm", ["march", "dfr"])
@pytest.mark.parametrize("scales", [(16, 4), (24, 2)])
def test_the_native_trace_of_a_network_is_that_of_any_field(algorithm, scales) -> None:
    network, latents = some_network()
    axes = some_axes(4)
    native = multiscale(axes, scales, latents, network, algorithm=algorithm)

    def function(points: Tensor, latents: Tensor) -> Tensor:
        unique, image = latents.unique(dim=0, return_inverse=True)
        return network.sdf(points, network.condition(unique), image)

    generic = multiscale(axes, scales, latents, function, algorithm=algorithm)
    found = [s.mask.masked_scatter(s.mask, s.hit) for s in (native, generic)]
    assert 0.05 < found[0].float().mean() < 0.9
    assert (found[0] & found[1]).sum() / (found[0] | found[1]).sum() >= 0.999
    depth = [torch.zeros(s.mask.shape).masked_scatter(s.mask, s.distances) for s in (native, generic)]
    error = (depth[0] - depth[1])[found[0] & found[1]].abs()
    if algorithm == "dfr":
        assert abs(native.queries - generic.queries) <= 1e-3 * generic.queries
        assert error.quantile(0.99) < 1e-5
    else:
        assert native.queries < generic.queries
        assert error.median() < 1e-5 and error.quantile(0.99) < 3e-4


def test_the_march_of_a_network_does_not_depend_on_threads() -> None:
    network, latents = some_network()
    condition = network.condition(latents).detach()
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(multiscale(some_axes(4), (64,), latents, network, condition=condition))
    finally:
        torch.set_num_threads(before)
    one, three = results
    assert torch.equal(one.mask, three.mask) and torch.equal(one.distances, three.distances)
    assert torch.equal(one.nearest, three.nearest) and one.queries == three.queries


@pytest.mark.parametrize("width", [20, 32])
def test_fields_that_are_steeper_than_one(width: int) -> None:
    """20 is no multiple of 16: the generic path."""

    torch.manual_seed(0)
    network = fields.FilmSirenSDF(width=width, latent_size=4, prior_radius=0.6)
    with torch.no_grad():
        network.sdf_head.mul_(60)
    axes, latents = some_axes(2), torch.randn(2, 4)
    estimated = multiscale(axes, (64,), latents, network, lipschitz="estimate")
    truth = multiscale(axes, (64,), latents, network, lipschitz=20.0, steps=5000)
    found, expected = (s.mask.masked_scatter(s.mask, s.hit) for s in (estimated, truth))
    assert (found & expected).sum() / (found | expected).sum() > 0.998


def test_bfloat16_traces_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFGAN_EMULATE_BF16", "1")
    network, latents = some_network(64)
    full = multiscale(some_axes(4), (64,), latents, network)
    half = multiscale(some_axes(4), (64,), latents, network, precision="bf16")
    found, expected = (s.mask.masked_scatter(s.mask, s.hit) for s in (half, full))
    assert (found & expected).sum() / (found | expected).sum() > 0.99
    assert not torch.equal(full.distances.sum(), half.distances.sum())
