"""The CUDA kernels, run on the CPU by tests/native/emulated, against the reference and the CPU kernels."""

from __future__ import annotations

import functools
import math
import platform
import shutil
from types import ModuleType

import pytest
import torch
from torch import Tensor

from emulation import AMPERE, HOPPER, TURING, on_both
from networks import RandomNetwork, some_cameras, some_points
from random_layers import random_layers
from sdfgan import cameras, ops
from sdfgan.compat.dfr import dfr_levels
from sdfgan.ops import FilmSirenNetwork, MarchRules, RayStatus, TraceLevel
from sdfgan.ops.film_siren import native_level, native_network
from sdfgan.ops.trace import native_layers
from sdfgan.raycast.levels import march_levels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.system() != "Linux", reason="emulation is tried on Linux"),
    pytest.mark.skipif(
        not (shutil.which("cmake") and shutil.which("ninja")), reason="needs pip install cmake ninja pybind11"
    ),
]


def described(net: FilmSirenNetwork) -> dict:
    """`FilmSiren` of csrc/kernels/film_siren.h, of a network that is packed for CUDA."""
    return native_network(list(net[:-1]), list(net.layers))


def sample(
    emulated: ModuleType, device: int, net: FilmSirenNetwork, points: Tensor, image: Tensor, gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    sdf, slopes, texture = torch.full((len(points),), 9e9), torch.full_like(points, 9e9), torch.full_like(points, 9e9)
    emulated.f32.film_siren(
        (device, 0, 0),
        network=described(net),
        points=points,
        image=image,
        sdf=sdf,
        gradient=slopes if gradient else None,
        texture=texture if gradient else None,
        count=len(points),
    )
    return sdf, slopes, texture


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("width", "layers", "device", "counts"),
    [
        (64, (3, 1, 1), HOPPER, [70, 3, 210]),
        (64, (1, 1, 0), HOPPER, [1]),
        (128, (2, 2, 1), HOPPER, [40, 0, 30]),
        (128, (3, 2, 1), AMPERE, [290]),
        (256, (2, 1, 2), AMPERE, [9, 30]),
    ],
)
def test_samples_match_the_reference(emulated, precision, width, layers, device, counts):
    net = RandomNetwork(len(counts), width, layers)
    points, image = some_points(counts)
    expected = net.exact(points, image)
    packed = net.for_cuda(precision)
    actual = sample(emulated, device, packed, points, image, gradient=True)
    alone, *untouched = sample(emulated, device, packed, points, image, gradient=False)
    assert all((values == 9e9).all() for values in untouched)
    for a, e in zip((*actual, alone), (*expected, expected[0]), strict=True):
        assert (a.double() - e).abs().max() < (2e-6 if precision == "fp32" else 1e-3) * e.abs().max()


def test_points_of_no_image_give_nan(emulated):
    net = RandomNetwork(2, 64, (2, 1, 1))
    points, image = torch.rand(40, 3), torch.randint(0, 2, (40,))
    image[::7], image[1::7] = -1, 2
    strange = (image < 0) | (image > 1)
    for precision in ("fp32", "fp16"):
        for values in sample(emulated, HOPPER, net.for_cuda(precision), points, image, gradient=True):
            assert (values.isnan().view(40, -1).all(1) == strange).all()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_without_images_all_is_nan(emulated, precision):
    net = RandomNetwork(0, 64, (2, 1, 1)).for_cuda(precision)
    for values in sample(emulated, HOPPER, net, torch.rand(40, 3), torch.zeros(40, dtype=torch.int64), gradient=True):
        assert values.isnan().all()


def test_tensor_cores_are_asked_for_in_vain(emulated):
    with pytest.raises(RuntimeError, match=r"film_siren: fp16 needs compute capability 8\.0"):
        net = RandomNetwork(1, 64, (1, 1, 1)).for_cuda("fp16")
        sample(emulated, TURING, net, torch.rand(1, 3), torch.zeros(1).long(), False)


def test_an_unknown_width_is_refused(emulated):
    net = described(RandomNetwork(1, 64, (1, 1, 1)).for_cuda("fp32"))
    with pytest.raises(RuntimeError, match=r"the width must be 64, 128 or 256"):
        emulated.f32.film_siren(
            (HOPPER, 0, 0),
            network={**net, "width": 96},
            points=None,
            image=None,
            sdf=None,
            gradient=None,
            texture=None,
            count=5,
        )


def trace(
    emulated: ModuleType,
    device: int,
    net: FilmSirenNetwork,
    levels: list[TraceLevel],
    jitter: Tensor | None,
    max_layers: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Status, distance, nearest, counts, layers, number of layers."""
    images, size = len(net.scale), levels[-1].size
    camera = some_cameras(images)
    status = torch.full((images, size, size), int(RayStatus.UNTRACED), dtype=torch.uint8)
    distance, nearest = torch.zeros(images, size, size), torch.zeros(images, size, size)
    counts = torch.zeros(2, dtype=torch.int64)
    layers, complete = torch.zeros(max_layers, 4, status.numel()), torch.zeros(status.numel(), dtype=torch.uint8)
    flat = [float(x) for level in levels for x in (level.size, level.steps, *level.rules, *level[3:])]
    numbers = len(flat) // len(levels)
    sizes = [level.size for level in levels]
    emulated.f32.film_siren_trace(
        (device, 0, 0),
        network=described(net),
        cameras=camera,
        levels=[native_level(flat[i : i + numbers]) for i in range(0, len(flat), numbers)],
        jitter=jitter,
        status=status,
        distance=distance,
        nearest=nearest,
        counts=counts,
        layers=native_layers(layers, complete, None) if max_layers else native_layers(None, None, None),
        workspace=torch.full((emulated.film_siren_trace_workspace(device, images, sizes),), 77, dtype=torch.uint8),
        plane_distance=1 / math.tan(cameras.DEFAULT_FOV / 2),
    )
    return status, distance, nearest, counts, layers, complete


FOV = cameras.DEFAULT_FOV
LEVELS = {
    "march": march_levels(24, FOV, threshold=1e-4, steps=60, native=None, lipschitz=1.5),
    "rendering": march_levels(16, FOV, threshold=1e-3, steps=40, margin=0.5, inset=0.5, native=None),
    "dfr": dfr_levels((4, 4), FOV),
    "one level": [TraceLevel(10, 7, MarchRules(1e-3, refine=2), patience=3.0)],
}


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS.keys())
@pytest.mark.parametrize(
    ("width", "layers", "device", "images"), [(64, (2, 1, 1), HOPPER, 3), (128, (3, 1, 1), AMPERE, 1)]
)
def test_fp32_traces_like_the_cpu(emulated, levels, width, layers, device, images):
    net = RandomNetwork(images, width, layers)
    size = levels[-1].size
    jitter = 0.02 * torch.rand(images, size, size, generator=torch.Generator().manual_seed(2))
    status, distance, nearest, counts, *_ = trace(emulated, device, net.for_cuda("fp32"), levels, jitter)
    expected = ops.film_siren_trace(some_cameras(images), levels, net.on_cpu(), FOV, jitter)
    # A ray that grazes may end otherwise where one rounding differs.
    differ = int((status != expected[0]).sum())
    assert (status == RayStatus.HIT).any() and differ <= 1
    same = status == expected[0]
    for a, e in ((distance, expected[1]), (nearest, expected[2])):
        torch.testing.assert_close(a[same], e[same], atol=2e-5, rtol=0)
    assert abs(int(counts[0]) - int(expected[3][0])) <= 20
    assert counts[0] <= counts[1]


def test_layers_are_those_of_the_cpu(emulated):
    net, levels = RandomNetwork(2, 64, (2, 1, 1)), LEVELS["rendering"]
    status, distance, _, _, layers, complete = trace(emulated, HOPPER, net.for_cuda("fp32"), levels, None, 3)
    expected = ops.film_siren_trace(some_cameras(2), levels, net.on_cpu(), FOV, None, 3)
    assert torch.equal(status, expected[0]) and complete.sum() > 20
    torch.testing.assert_close(distance, expected[1], atol=2e-5, rtol=0)
    assert torch.equal(complete, expected[4].complete.flatten())
    for number in range(3):
        has = complete > number
        ours, theirs = layers[number][:, has], expected[4].layers[number].view(4, -1)[:, has]
        # Parabolas through three samples enlarge their rounding.
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0, equal_nan=True)


@pytest.mark.parametrize(("width", "device"), [(64, HOPPER), (128, HOPPER), (256, AMPERE)])
def test_fp16_traces_nearly_like_fp32(emulated, width, device):
    images = 2
    net, levels = RandomNetwork(images, width, (2, 1, 1)), LEVELS["march"]
    status, distance, *_ = trace(emulated, device, net.for_cuda("fp16"), levels, None)
    expected = ops.film_siren_trace(some_cameras(images), levels, net.on_cpu(), FOV)
    hit, wanted = status == RayStatus.HIT, expected[0] == RayStatus.HIT
    assert wanted.sum() > 100 and (hit != wanted).sum() <= 2
    error = (distance - expected[1])[hit & wanted].abs()
    assert error.median() < 1e-4 and error.max() < 5e-3


@pytest.mark.parametrize(
    ("width", "device", "levels", "max_layers"),
    [(64, HOPPER, "march", 0), (64, AMPERE, "dfr", 0), (128, HOPPER, "rendering", 3), (128, AMPERE, "one level", 0)],
)
def test_rays_that_warps_share_end_as_alone(emulated, monkeypatch, width, device, levels, max_layers):
    """To the last bit, whenever a block's warps begin to share its rays; the last case has no memory for that."""
    net = RandomNetwork(1, width, (2, 2, 1)).for_cuda("fp16")
    monkeypatch.setenv("SDFGAN_TRACE_TAIL", "0")
    *expected, counts, layers, complete = trace(emulated, device, net, LEVELS[levels], None, max_layers)
    rows = set()
    for rounds, schedule in (("1", "0"), ("2", "1"), ("8", "2")):
        monkeypatch.setenv("SDFGAN_TRACE_TAIL", rounds)
        monkeypatch.setenv("SDFGAN_EMULATED_SCHEDULE", schedule)
        *actual, counts_now, layers_now, complete_now = trace(emulated, device, net, LEVELS[levels], None, max_layers)
        assert all(map(torch.equal, (*actual, complete_now), (*expected, complete)))
        torch.testing.assert_close(layers_now, layers, atol=0, rtol=0, equal_nan=True)
        assert counts_now[0] == counts[0]
        rows.add(int(counts_now[1]))
    assert (rows != {int(counts[1])}) == ((width, device) != (128, AMPERE))


@pytest.mark.parametrize(("width", "device", "layers"), [(128, AMPERE, (3, 2, 1)), (256, HOPPER, (2, 1, 1))])
def test_warps_that_drift_in_the_ring_find_the_same(emulated, monkeypatch, width, device, layers):
    """Of matrices that do not all fit into shared memory."""
    net = RandomNetwork(1, width, layers).for_cuda("fp16")
    monkeypatch.setenv("SDFGAN_TRACE_RING", "0")
    *expected, _, _, _ = trace(emulated, device, net, LEVELS["one level"], None)
    monkeypatch.setenv("SDFGAN_TRACE_RING", "1")
    for schedule in ("0", "1"):
        monkeypatch.setenv("SDFGAN_EMULATED_SCHEDULE", schedule)
        *actual, _, _, _ = trace(emulated, device, net, LEVELS["one level"], None)
        assert all(map(torch.equal, actual, expected))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_results_do_not_depend_on_how_rays_are_spread(emulated, monkeypatch, precision):
    net = RandomNetwork(1, 64, (2, 1, 1)).for_cuda(precision)
    expected = trace(emulated, HOPPER, net, LEVELS["rendering"], None)
    monkeypatch.setenv("SDFGAN_TRACE_WARPS", "1")
    actual = trace(emulated, HOPPER, net, LEVELS["rendering"], None)
    assert all(map(torch.equal, actual[:3], expected[:3])) and actual[3][0] == expected[3][0]
    assert actual[3][1] != expected[3][1]  # idle lanes


@pytest.mark.parametrize("warps", ["0", "9", "two"])
def test_a_number_of_warps_that_no_block_has_is_refused(emulated, monkeypatch, warps):
    monkeypatch.setenv("SDFGAN_TRACE_WARPS", warps)
    with pytest.raises(RuntimeError, match=f"SDFGAN_TRACE_WARPS must be 1 to 8, got '{warps}'"):
        trace(emulated, HOPPER, RandomNetwork(1, 64, (2, 1, 1)).for_cuda("fp32"), LEVELS["one level"], None)


def test_no_images_are_no_work(emulated):
    net = RandomNetwork(0, 64, (2, 1, 1))
    assert trace(emulated, HOPPER, net.for_cuda("fp32"), LEVELS["march"], None)[3].tolist() == [0, 0]


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
    coarse, fine = LEVELS["march"][0]._replace(size=6), LEVELS["march"][-1]._replace(size=12)
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
