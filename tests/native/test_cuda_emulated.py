"""The CUDA kernels, run on the CPU by tests/native/emulated, against those of the CPU."""

from __future__ import annotations

import functools
import math
from types import ModuleType

import pytest
import torch
from torch import Tensor

from emulation import HOPPER, needs_emulation, on_both
from networks import some_cameras
from random_layers import random_layers
from sdfgan import cameras, ops
from sdfgan.raycast.levels import march_levels

pytestmark = needs_emulation
FOV = cameras.DEFAULT_FOV


@pytest.mark.parametrize("ordered", [False, True])
def test_distances_to_a_mesh_are_those_of_the_cpu(emulated, ordered):
    g = torch.Generator().manual_seed(4)
    vertices, faces = torch.randn(90, 3, generator=g), torch.randint(0, 90, (300, 3), generator=g, dtype=torch.int32)
    tree, points = ops.mesh_tree(vertices, faces), torch.randn(200, 3, generator=g)
    points[7] = math.nan
    order = torch.randperm(200, generator=g).to(torch.int32)
    out = ops.MeshDistance(torch.zeros(200), torch.zeros(200, dtype=torch.int32), torch.zeros(200, 3), torch.zeros(200))
    given = {"tree": tree._asdict(), "points": points, "order": order if ordered else None, "count": 200}
    emulated.f32.mesh_distance((HOPPER, 0, 0), **given, **out._asdict())
    expected = ops.mesh_distance(tree, points)
    torch.testing.assert_close(out.distance.abs(), expected.distance.abs(), atol=1e-5, rtol=0, equal_nan=True)
    torch.testing.assert_close(out.winding, expected.winding, atol=0.05, rtol=0, equal_nan=True)
    assert (out.face != expected.face).sum() < 20 and out.face[7] == -1  # corners belong to several faces


def test_rays_that_meet_a_mesh_are_those_of_the_cpu(emulated):
    g = torch.Generator().manual_seed(5)
    vertices, faces = torch.randn(90, 3, generator=g), torch.randint(0, 90, (300, 3), generator=g, dtype=torch.int32)
    tree, origins, directions = ops.mesh_tree(vertices, faces), torch.randn(200, 3, generator=g), -vertices[:1]
    directions = directions + torch.randn(200, 3, generator=g)
    origins[7] = math.nan
    out = ops.MeshHits(torch.zeros(200), torch.zeros(200, dtype=torch.int32), torch.zeros(200, 3))
    given = {"tree": tree._asdict(), "origins": origins, "directions": directions, "count": 200}
    emulated.f32.mesh_raycast((HOPPER, 0, 0), **given, **out._asdict())
    for found, expected in zip(out, ops.mesh_raycast(tree, origins, directions), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6, equal_nan=True)


def test_the_march_and_rays_match_the_cpu(emulated):
    """Rays of two levels, the second within the first, each with some steps of a march."""
    levels = march_levels(24, FOV, threshold=1e-4, steps=60, native=None, lipschitz=1.5)
    coarse, fine = levels[0]._replace(size=6), levels[-1]._replace(size=12)
    camera, radii, pixels = some_cameras(2), torch.tensor([1.0, 0.7]), torch.tensor([0, 5, 71, 72, -1])

    def run() -> list[Tensor]:
        results, parent = [], None
        for level in (coarse, fine._replace(radius=radii)):
            rays = ops.start_level(camera, level, FOV, parent)
            results += rays
            state, status = rays.state.clone(), rays.status.clone()
            points, alive, count = rays.points, rays.alive, rays.alive_count
            for _ in range(3):
                march = (alive, count, rays.origins, rays.directions, rays.far, state, status, level.rules)
                points, alive, count = ops.trace_step(points.norm(dim=1) - 0.5, *march)
                results += [state.clone(), status.clone(), points, alive, count]
            parent = (level, state, status)
        return [*results, *ops.generate_rays(camera, pixels, 6, 6, FOV, radii)]

    for actual, expected in on_both(emulated, run):
        torch.testing.assert_close(actual, expected, atol=2e-6, rtol=1e-5, equal_nan=True)


def test_the_search_for_layers_matches_the_cpu(emulated):
    """Of a sphere's rim, seen from the front: all steps, with a launch that is larger than the count."""
    g = torch.Generator().manual_seed(6)
    count, directions = 300, torch.tensor([0.0, 0.0, -1.0]).repeat(300, 1)
    origins = torch.stack(
        [0.47 + 0.04 * torch.rand(count, generator=g), torch.zeros(count), torch.full((count,), 3.0)], 1
    )
    guess, reach = 2.9 + 0.2 * torch.rand(count, generator=g), torch.full((count,), 0.2)

    def run() -> list[Tensor]:
        search = ops.start_layers(guess, reach, torch.full_like(guess, math.nan), torch.full_like(guess, 0.02))
        alive, number = torch.arange(count, dtype=torch.int32), torch.tensor([count - 10], dtype=torch.int32)
        points, results = origins + guess[:, None] * directions, []
        for _ in range(ops.LAYER_STEPS):
            length = points.norm(dim=1)
            field = (length - 0.5, points / length.clamp_min(1e-6)[:, None])
            points, alive, number = ops.layer_step(*field, alive, number, origins, directions, search)
            results += [points, alive, number, search.stage.clone()]
        return [*results, search.state]

    for actual, expected in on_both(emulated, run):
        torch.testing.assert_close(actual, expected, atol=2e-6, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("all_hits", [False, True])
def test_edges_of_layers_match_the_cpu(emulated, all_hits):
    given = random_layers(2, 9, dtype=torch.float32)
    for actual, expected in on_both(emulated, lambda: list(ops.layer_edges(**given, all_hits=all_hits))):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("channels", [3, 4, 5, 6])
def test_volume_kernels_match_the_cpu(emulated, channels):
    """Compositing and its gradient, pixels, Gaussians, encodings and histograms."""
    g = torch.Generator().manual_seed(4)
    densities, deltas, distances, edges = (torch.rand(6, n, generator=g) for n in (70, 70, 70, 71))
    colors, edges = torch.rand(6, 70, channels, generator=g), edges.cumsum(1)
    offsets = torch.tensor([0, 3, 3, 200, 420])
    lens = torch.tensor([[0.1, 0.01, 0.01, -0.02, 0.01, 0.02, 0, 0.01, 0], [-0.9, 0, 0, 0, 0, 0, 0, 0, 0.1]])
    views = ops.PixelViews(
        camera_to_world=torch.randn(2, 3, 4, generator=g),
        intrinsics=torch.tensor([[9.0, 8, 4, 4], [7, 7, 3, 4]]),
        widths=torch.tensor([8, 6]),
        starts=torch.tensor([0, 64, 112]),
        distortion=lens,
        fisheye=torch.tensor([False, True]),
        mask=torch.arange(112) % 5 != 2,
    )
    photographs = torch.randint(0, 256, (112, 3), generator=g, dtype=torch.uint8)
    directions = torch.nn.functional.normalize(torch.randn(6, 3, generator=g), dim=1)
    roughness, encoded_grad = torch.rand(6, generator=g), torch.rand(6, 38, generator=g)
    flat = [x.flatten(0, 1) for x in (densities, deltas, colors, distances)]

    def run() -> list[Tensor]:
        results = [
            *composited(densities, deltas, colors, distances, None),
            *composited(*flat, offsets),
            *composited(densities, None, colors, None, None),
            *ops.sample_pixels(views, torch.arange(-2, 115), photographs),
            *torch.ops.sdfgan.integrated_directional_encoding_backward(directions, roughness, encoded_grad, 4),
        ]
        for full in (False, True):
            results += ops.frustum_gaussians(directions, directions, edges, roughness, full=full)
        return [
            *results,
            ops.integrated_positional_encoding(densities, deltas, 4),
            ops.integrated_directional_encoding(directions, roughness),
            torch.ops.sdfgan.overlap_sums(edges, edges / 2, densities),
            torch.ops.sdfgan.distortion(edges, densities),
        ]

    for actual, expected in on_both(emulated, run):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4, equal_nan=True)


def composited(
    densities: Tensor, deltas: Tensor | None, colors: Tensor, distances: Tensor | None, offsets: Tensor | None
) -> list[Tensor]:
    """What compositing gives, and its gradients: by all results, then by the weights alone."""
    inputs = (densities, deltas, colors, distances, offsets)
    results = list(torch.ops.sdfgan.composite(*inputs))
    g = torch.Generator().manual_seed(1)
    given = [torch.rand(x.shape, generator=g, dtype=x.dtype) for x in results]
    wanted = [deltas is not None, True, distances is not None]
    for grads in (given, [given[0], None, None, None]):
        results += torch.ops.sdfgan.composite_backward(*inputs, results[0], *grads, wanted)
    return results


@pytest.mark.parametrize("channels", [0, 3, 4, 5, 6])
@pytest.mark.parametrize("samples", [1, 7, 33, 128, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compositing_matches_the_cpu(emulated, dtype, samples, channels):
    """Rays of one block of samples and of more, by each number of lanes; opaque, empty and infinite pieces."""
    g = torch.Generator().manual_seed(samples)
    rays = 11
    rand = functools.partial(torch.rand, generator=g, dtype=dtype)
    densities, deltas, distances = rand(rays, samples), rand(rays, samples), rand(rays, samples)
    densities = densities * (rand(rays, samples) > 0.2) / (1 + samples / 8)
    densities[0, -1] = densities[1, samples // 2] = 1
    deltas[:2, -1] = math.inf
    colors = rand(rays, samples, channels)
    ends = torch.randint(0, rays * samples + 1, (rays + 1,), generator=g).sort().values
    ends[0], ends[-1] = 0, rays * samples
    flat = [x.flatten(0, 1) for x in (densities, deltas, colors, distances)]

    def run() -> list[Tensor]:
        return [
            *composited(densities, deltas, colors, distances, None),
            *composited(densities, None, colors, distances, None),
            *composited(*flat, ends),
            *composited(flat[0], None, *flat[2:], ends),
        ]

    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for actual, expected in on_both(emulated, run):
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=10 * tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [1, 5, 32, 33, 64, 200, 700])
def test_samples_of_densities_match_the_cpu(emulated, dtype, bins):
    g = torch.Generator().manual_seed(bins)
    rays, samples = 13, 40
    weights = torch.rand(rays, bins, generator=g, dtype=dtype) * (torch.rand(rays, bins, generator=g) > 0.3)
    weights *= 10.0 ** torch.randint(-3, 1, weights.shape, generator=g)
    weights[0], weights[1, ::2], weights[2, ::2], weights[3, : bins // 2] = 0, math.nan, -1, math.inf
    if dtype == torch.float64:  # sums that overflow, and products that vanish
        weights[4], weights[5] = 1.7e308 * weights[4] / weights[4].max().clamp(min=1e-9), 1e-290 * weights[5]
    edges = torch.rand(rays, bins + 1, generator=g, dtype=dtype).cumsum(1)
    shared = torch.linspace(-0.1, 1.1, samples, dtype=dtype)
    own = torch.rand(rays, samples, generator=g, dtype=dtype).sort().values
    own[:, 0], own[:, -1] = 0, 1
    for u in (shared, own):
        ((actual, expected),) = on_both(emulated, lambda u=u: [ops.sample_pdf(edges, weights, samples, u=u)])
        torch.testing.assert_close(actual, expected, rtol=1e-5 if dtype == torch.float32 else 1e-9, atol=0)
        assert (actual.diff(dim=1) >= 0).all()
        usable = (weights > 0) & weights.isfinite()
        for ray in range(rays):
            bin_of_ray = usable[ray].nonzero().flatten().tolist() or [0, bins - 1]
            first, last = edges[ray][bin_of_ray[0]], edges[ray][bin_of_ray[-1] :]
            assert actual[ray, 0] == first and last[0] < actual[ray, -1] <= last[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dims", [1, 3, 7, 40])
@pytest.mark.parametrize("points", [1, 45, 333])
def test_positional_encoding_matches_the_cpu(emulated, dtype, dims, points):
    x = 3 * torch.randn(points, dims, generator=torch.Generator().manual_seed(dims), dtype=dtype)
    for octaves, include_input, times_pi in ((10, True, False), (3, False, True), (64, False, True), (0, True, True)):
        encode = functools.partial(ops.positional_encoding, x, octaves, include_input=include_input, times_pi=times_pi)
        ((actual, expected),) = on_both(emulated, lambda encode=encode: [encode()])
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("even", [0.65, math.inf])
def test_rays_through_a_grid(emulated: ModuleType, even: float) -> None:
    """Steps, samples and what light reaches of them: the same arrays on both."""
    g = torch.Generator().manual_seed(5)
    origins, jitter, near = torch.randn(50, 3, generator=g) / 2, torch.rand(50, generator=g), torch.rand(50)
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=g), dim=1)
    occupied, far = torch.rand(6**3, generator=g) < 0.4, near + 2
    march = ops.GridMarch(origins, directions, near, far, jitter, occupied, 6, 0.03, even)

    def run() -> list[Tensor]:
        reached, depth, first, results = torch.zeros(51, dtype=torch.int64), torch.zeros(50), None, []
        for most in (7, 1000):
            offsets, following = ops.march_count(march, most, first)
            samples = ops.march_samples(march, offsets, int(offsets[-1]), first)
            densities = 9 * samples.points.square().sum(1)
            ops.march_reached(densities, samples.deltas, offsets, depth, reached, following, 1.5)
            results += [offsets, *samples, depth.clone(), reached.clone(), following.clone()]
            first = following
        return results

    for actual, expected in on_both(emulated, run):
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lazy_adam(emulated: ModuleType, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    given = (torch.randn(3, 1001) * (torch.rand(3, 1001) < 0.3)).to(dtype)
    given[1, 0] = torch.nan  # in the step that is left out
    begin = torch.randn(1001, dtype=dtype)

    def run() -> list[Tensor]:
        parameter, mean, square = begin.clone(), torch.zeros_like(begin), torch.zeros_like(begin)
        gradients = given.clone()
        for step, gradient in enumerate(gradients):
            skip = torch.full((), float(step == 1))
            ops.lazy_adam(parameter, gradient, mean, square, torch.full((), step + 1.0), rate=0.1, skip=skip)
        return [parameter, mean, square, gradients]

    for actual, expected in on_both(emulated, run):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("features", [1, 2, 4, 8])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("along", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
def test_hash_grid(emulated: ModuleType, features: int, dims: int, along: bool, aligned: bool) -> None:
    torch.manual_seed(dims)
    cells, size, count = [2, 5, 11], 64, 150
    begins = ops.hash_table_begins(dims, cells, size)
    points, table = 1.2 * torch.rand(count, dims) - 0.1, torch.randn(begins[-1] * features + 1)
    table = (table[:-1] if aligned else table[1:]).view(-1, features)
    direction = torch.randn_like(points) if along else None
    gradient = torch.randn(count * len(cells) * features + 1)
    gradient = (gradient[:-1] if aligned else gradient[1:]).view(count, -1)
    settings = (cells, size, True)
    op = torch.ops.sdfgan

    def run() -> list[Tensor]:
        return [
            op.hash_encoding(points, table, direction, *settings),
            op.hash_encoding_points_gradient(points, table, direction, gradient, *settings),
            op.hash_encoding_table_gradient(points, direction, gradient, features, *settings),
        ]

    for actual, expected in on_both(emulated, run):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)
