"""The CUDA kernels, run on the CPU by tests/native/emulated, against the reference and the CPU kernels."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from networks import RandomNetwork, some_cameras, some_points
from sdfgan import cameras, ops
from sdfgan.ops import FilmSirenNetwork, MarchRules, RayStatus, TraceLevel
from sdfgan.ops.film_siren import pack_film
from sdfgan.raycast.levels import march_levels, seed_levels

ROOT = Path(__file__).parents[2]
HOPPER, AMPERE, TURING = 0, 1, 2  # the emulated devices: the second has less shared memory, the third no tensor cores

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.system() != "Linux", reason="emulation is tried on Linux"),
    pytest.mark.skipif(
        not (shutil.which("cmake") and shutil.which("ninja")), reason="needs pip install cmake ninja pybind11"
    ),
]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = Path(os.environ.get("SDFGAN_EMULATED", tmp_path_factory.mktemp("emulated")))
    pybind11 = run(sys.executable, "-m", "pybind11", "--cmakedir").strip()
    switches = ["-DSDFGAN_CUDA=EMULATED", "-DCMAKE_BUILD_TYPE=Release", f"-Dpybind11_DIR={pybind11}"]
    run("cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder), f"-DPython_EXECUTABLE={sys.executable}", *switches)
    run("cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1))
    (library,) = folder.glob("_C.*so")
    spec = importlib.util.spec_from_file_location("_C", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command: str) -> str:
    """The output; an AssertionError with all of it where the command fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def described(net: FilmSirenNetwork) -> tuple:
    """As the native module takes it, as long as `net` lives."""
    images, width = len(net.scale), len(net.first)
    tensors = list(net[:-1])
    half = net.hidden.dtype == torch.float16
    if half:
        net.hidden.film = pack_film(net.scale, net.shift)  # kept with it
        tensors.append(net.hidden.film)
    return [tensor.data_ptr() for tensor in tensors], images, width, list(net.layers), 2 if half else 0


def sample(
    emulated: ModuleType, device: int, net: FilmSirenNetwork, points: Tensor, image: Tensor, gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    sdf, slopes, texture = torch.full((len(points),), 9e9), torch.full_like(points, 9e9), torch.full_like(points, 9e9)
    outputs = [t.data_ptr() if gradient or t is sdf else 0 for t in (sdf, slopes, texture)]
    emulated.f32.film_siren((device, 0, 0), described(net), points.data_ptr(), image.data_ptr(), *outputs, len(points))
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
        emulated.f32.film_siren((HOPPER, 0, 0), (*net[:2], 96, *net[3:]), 0, 0, 0, 0, 0, 5)


def native_levels(levels: list[TraceLevel]) -> list[tuple]:
    return [(level.size, level.steps, tuple(level.rules), *level[3:]) for level in levels]


def trace(
    emulated: ModuleType,
    device: int,
    net: FilmSirenNetwork,
    levels: list[TraceLevel],
    jitter: Tensor | None,
    most_layers: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Status, distance, nearest, counts, layers, number of layers."""
    images, size = len(net.scale), levels[-1].size
    camera = some_cameras(images)
    status = torch.full((images, size, size), int(RayStatus.UNTRACED), dtype=torch.uint8)
    distance, nearest = torch.zeros(images, size, size), torch.zeros(images, size, size)
    counts = torch.zeros(2, dtype=torch.int64)
    layers, complete = torch.zeros(most_layers, 4, status.numel()), torch.zeros(status.numel(), dtype=torch.uint8)
    sizes = [level.size for level in levels]
    workspace = torch.full((emulated.film_siren_trace_workspace(images, sizes),), 77, dtype=torch.uint8)
    emulated.f32.film_siren_trace(
        (device, 0, 0),
        described(net),
        camera.data_ptr(),
        native_levels(levels),
        0 if jitter is None else jitter.data_ptr(),
        *(t.data_ptr() for t in (status, distance, nearest, counts, workspace)),
        (layers.data_ptr(), complete.data_ptr(), 0, most_layers) if most_layers else NO_LAYERS,
        1 / math.tan(cameras.DEFAULT_FOV / 2),
    )
    return status, distance, nearest, counts, layers, complete


FOV = cameras.DEFAULT_FOV
NO_LAYERS = (0, 0, 0, 0)
LEVELS = {
    "march": march_levels(24, FOV, threshold=1e-4, steps=60, native=None, lipschitz=1.5),
    "rendering": march_levels(16, FOV, threshold=1e-3, steps=40, margin=0.5, inset=0.5, native=None),
    "seed": seed_levels((4, 4), FOV),
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
    ("width", "device", "levels", "most_layers"),
    [(64, HOPPER, "march", 0), (64, AMPERE, "seed", 0), (128, HOPPER, "rendering", 3), (128, AMPERE, "one level", 0)],
)
def test_rays_that_warps_share_end_as_alone(emulated, monkeypatch, width, device, levels, most_layers):
    """To the last bit, whenever a block's warps begin to share its rays; the last case has no memory for that."""
    net = RandomNetwork(1, width, (2, 2, 1)).for_cuda("fp16")
    monkeypatch.setenv("SDFGAN_TRACE_TAIL", "0")
    *expected, counts, layers, complete = trace(emulated, device, net, LEVELS[levels], None, most_layers)
    rows = set()
    for rounds, schedule in (("1", "0"), ("2", "1"), ("8", "2")):
        monkeypatch.setenv("SDFGAN_TRACE_TAIL", rounds)
        monkeypatch.setenv("SDFGAN_EMULATED_SCHEDULE", schedule)
        *actual, counts_now, layers_now, complete_now = trace(emulated, device, net, LEVELS[levels], None, most_layers)
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
    emulated.f32.mesh_distance(
        (HOPPER, 0, 0),
        [tensor.data_ptr() for tensor in tree],
        points.data_ptr(),
        order.data_ptr() if ordered else 0,
        *(tensor.data_ptr() for tensor in out),
        200,
    )
    expected = ops.mesh_distance(tree, points)
    torch.testing.assert_close(out.distance.abs(), expected.distance.abs(), atol=1e-5, rtol=0, equal_nan=True)
    torch.testing.assert_close(out.winding, expected.winding, atol=0.05, rtol=0, equal_nan=True)
    assert (out.face != expected.face).sum() < 20 and out.face[7] == -1  # corners belong to several faces


def test_other_kernels_match_the_cpu(emulated):
    """Rays of a level, one step of a march, pixels' rays, encodings and samples: the same arrays on both."""
    here, there = (-1, 0, 1), (HOPPER, 0, 0)
    g = torch.Generator().manual_seed(3)
    coarse, fine = LEVELS["march"][0]._replace(size=6), LEVELS["march"][-1]._replace(size=12)
    camera, radii = some_cameras(2), torch.tensor([1.0, 0.7])

    def run(where: tuple) -> list[Tensor]:
        results = []
        parent = (0, 0)
        for level, coarser, reach in ((coarse, 1, 0.0), (fine, 6, coarse.reach)):
            rays = 2 * level.size**2
            made = [torch.zeros(rays, 3), torch.zeros(rays, 3), torch.zeros(rays), torch.zeros(rays)]
            state, status = torch.zeros(5, rays), torch.zeros(rays, dtype=torch.uint8)
            points, alive = torch.zeros(rays, 3), torch.zeros(rays, dtype=torch.int32)
            count, workspace = torch.zeros(1, dtype=torch.int32), torch.zeros(1 << 16, dtype=torch.uint8)
            level_rays = (*made, state, status, points, alive, count)
            emulated.f32.start_level(
                where, camera.data_ptr(), *parent, 0, *(t.data_ptr() for t in (*level_rays, workspace)),
                len(workspace), 2, level.size, coarser, 3.0, level.radius, level.start, reach,
                radii.data_ptr() if parent[0] else 0,
            )  # fmt: skip
            for _ in range(3):
                values = points.norm(dim=1) - 0.5
                after = torch.zeros(rays, 3), torch.zeros(rays, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
                step = (values, alive, count, made[0], made[1], made[3], state, status, *after, workspace)
                emulated.f32.trace_step(
                    where,
                    *(t.data_ptr() for t in step),
                    len(workspace),
                    rays,
                    rays,
                    tuple(level.rules),
                    NO_LAYERS,
                    False,
                )
                points, alive, count = after
                results += [state.clone(), status.clone(), points, alive, count]
            parent = state.data_ptr(), status.data_ptr()
            results += [*level_rays]
        x, encoded = torch.rand(33, 3, generator=g.manual_seed(1)), torch.zeros(33, 27)
        emulated.f32.positional_encoding(where, x.data_ptr(), encoded.data_ptr(), 33, 3, 4, True, True)
        edges = torch.rand(7, 9, generator=g).cumsum(1)
        weights, u, drawn = torch.rand(7, 8, generator=g), torch.linspace(0, 1, 5), torch.zeros(7, 5)
        emulated.f32.sample_pdf(where, *(t.data_ptr() for t in (edges, weights, u, drawn)), 7, 8, 5, 0)
        pixels = torch.tensor([0, 5, 71, 72, -1])
        rays = [torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5), torch.zeros(5)]
        pointers = [t.data_ptr() for t in (camera, pixels, *rays)]
        emulated.f32.generate_rays(where, *pointers, 5, 2, 6, 6, 3.0, 1.0, radii.data_ptr())
        return [*results, encoded, drawn, *rays]

    for actual, expected in zip(run(there), run(here), strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-6, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("channels", [3, 4, 5, 6])
def test_volume_kernels_match_the_cpu(emulated, channels):
    """Compositing and its gradient, pixels, Gaussians, encodings and histograms: the same arrays on both."""
    g = torch.Generator().manual_seed(4)
    densities, deltas, distances, edges = (torch.rand(6, n, generator=g) for n in (70, 70, 70, 71))
    colors, edges = torch.rand(6, 70, channels, generator=g), edges.cumsum(1)
    grads = [torch.rand(shape, generator=g) for shape in ((6, 70), (6,), (6, channels), (6,))]
    offsets = torch.tensor([0, 3, 3, 200, 420])
    camera, intrinsics = torch.randn(2, 3, 4, generator=g), torch.tensor([[9.0, 8, 4, 4], [7, 7, 3, 4]])
    lens = torch.tensor([[0.1, 0.01, 0.01, -0.02, 0.01, 0.02, 0, 0.01, 0], [-0.9, 0, 0, 0, 0, 0, 0, 0, 0.1]])
    fisheye, mask = torch.tensor([False, True]), torch.arange(112) % 5 != 2
    widths, starts, pixels = torch.tensor([8, 6]), torch.tensor([0, 64, 112]), torch.arange(-2, 115)
    photographs = torch.randint(0, 256, (112, 3), generator=g, dtype=torch.uint8)
    directions = torch.nn.functional.normalize(torch.randn(6, 3, generator=g), dim=1)
    table = ops.integrated._harmonics_table(4, torch.float32, torch.device("cpu"))
    encoded_grad = torch.rand(6, 38, generator=g)

    def run(where: tuple) -> list[Tensor]:
        k = emulated.f32
        results: list[Tensor] = []

        def new(*shape: int) -> Tensor:
            results.append(torch.zeros(shape))
            return results[-1]

        def call(kernel: str, *arguments: Any) -> None:
            getattr(k, kernel)(where, *(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))

        inputs = (densities, deltas, colors, distances)
        for at, rays in (((0, 6, 70), 6), ((offsets.data_ptr(), 4, 420), 4)):
            weights = new(6, 70)
            call("composite", at, *inputs, weights, new(rays), new(rays, channels), new(rays), channels)
            outputs = (new(6, 70), new(6, 70), new(6, 70, channels), new(6, 70))
            call("composite_backward", at, *inputs, weights, *grads, *outputs, channels)
            outputs = (new(6, 70), 0, new(6, 70, channels), 0)
            call("composite_backward", at, *inputs, weights, grads[0], 0, 0, 0, *outputs, channels)
        samples = (new(117, 3), new(117, 3), new(117), new(117, 3))
        views = (camera, intrinsics, lens, fisheye, widths, starts, pixels, photographs, mask)
        call("sample_pixels", *views, *samples, 117, 2, 3, 112, lens.shape[1], 112, True)
        for full in (False, True):
            covariances = new(6, 70, 9 if full else 3)
            rays = (directions, directions, edges, grads[1])
            call("frustum_gaussians", *rays, new(6, 70, 3), covariances, 6, 70, False, full)
        call("integrated_positional_encoding", densities, deltas, new(60, 56), 60, 7, 4)
        roughness = grads[1]
        call("integrated_directional_encoding", directions, roughness, table, new(6, 38), 0, 0, 0, 6, 38, 4)
        backward = (encoded_grad, new(6, 3), new(6))
        call("integrated_directional_encoding", directions, roughness, table, 0, *backward, 6, 38, 4)
        call("overlap_sums", edges, edges / 2, densities, new(6, 70), 6, 70, 70)
        call("distortion", edges, densities, new(6, 70), 6, 70)
        return results

    for actual, expected in zip(run((HOPPER, 0, 0)), run((-1, 0, 1)), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4, equal_nan=True)


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
    kernels = emulated.f32 if dtype == torch.float32 else emulated.f64

    def run(where: tuple) -> list[Tensor]:
        results: list[Tensor] = []

        def new(*shape: int) -> Tensor:
            results.append(torch.full(shape, 9.0, dtype=dtype))
            return results[-1]

        def call(kernel: str, *arguments: Any) -> None:
            getattr(kernels, kernel)(where, *(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))

        for at in ((0, rays, samples), (ends.data_ptr(), rays, rays * samples)):
            for lengths in (deltas, 0):
                inputs = (densities, lengths, colors, distances)
                weights = new(rays, samples)
                call("composite", at, *inputs, weights, new(rays), new(rays, channels), new(rays), channels)
                grads = (distances, colors[:, 0, :1], colors[:, 0], deltas[:, 0]) if channels else (distances, 0, 0, 0)
                grads = tuple(x.contiguous() if isinstance(x, Tensor) else x for x in grads)
                outputs = (new(rays, samples), new(rays, samples) if lengths is deltas else 0)
                outputs += (new(rays, samples, channels), new(rays, samples))
                call("composite_backward", at, *inputs, weights, *grads, *outputs, channels)
        return results

    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for actual, expected in zip(run((HOPPER, 0, 0)), run((-1, 0, 1)), strict=True):
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
    kernels = emulated.f32 if dtype == torch.float32 else emulated.f64
    shared = torch.linspace(-0.1, 1.1, samples, dtype=dtype)
    own = torch.rand(rays, samples, generator=g, dtype=dtype).sort().values
    own[:, 0], own[:, -1] = 0, 1
    for u in (shared, own):
        drawn = [torch.full((rays, samples), 9e9, dtype=dtype) for _ in range(2)]
        for where, out in zip(((HOPPER, 0, 0), (-1, 0, 1)), drawn, strict=True):
            pointers = [t.data_ptr() for t in (edges, weights, u, out)]
            kernels.sample_pdf(where, *pointers, rays, bins, samples, samples if u is own else 0)
        actual, expected = drawn
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
    kernels = emulated.f32 if dtype == torch.float32 else emulated.f64
    for octaves, include_input, times_pi in ((10, True, False), (3, False, True), (64, False, True), (0, True, True)):
        outs = [torch.full((points, (include_input + 2 * octaves) * dims), 9.0, dtype=dtype) for _ in range(2)]
        for where, out in zip(((HOPPER, 0, 0), (-1, 0, 1)), outs, strict=True):
            settings = (points, dims, octaves, include_input, times_pi)
            kernels.positional_encoding(where, x.data_ptr(), out.data_ptr(), *settings)
        torch.testing.assert_close(*outs, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("even", [0.65, math.inf])
def test_rays_through_a_grid(emulated: ModuleType, even: float) -> None:
    """Steps, samples and what light reaches of them: the same arrays on both."""
    g = torch.Generator().manual_seed(5)
    origins, jitter, near = torch.randn(50, 3, generator=g) / 2, torch.rand(50, generator=g), torch.rand(50)
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=g), dim=1)
    occupied, far = torch.rand(6**3, generator=g) < 0.4, near + 2
    rays = tuple(x.data_ptr() for x in (origins, directions, near, far, jitter, occupied))

    def run(where: tuple) -> list[Tensor]:
        counts, following = torch.zeros(51, dtype=torch.int64), torch.zeros(50, dtype=torch.int32)
        reached, depth, first, results = torch.zeros_like(counts), torch.zeros(50), 0, []
        for most in (7, 1000):
            march = (*rays, first, 50, 6, 0.03, even)
            emulated.f32.march_count(where, march, counts.data_ptr(), following.data_ptr(), most)
            offsets = counts.cumsum(0)
            total = int(offsets[-1])
            at = (offsets.data_ptr(), 50, total)
            samples = [torch.zeros(total, 3), torch.zeros(total, 3), torch.zeros(total), torch.zeros(total)]
            emulated.f32.march_samples(where, march, at, *(x.data_ptr() for x in samples))
            densities = 9 * samples[0].square().sum(1)
            updated = (densities, samples[3], depth, reached, following)
            emulated.f32.march_reached(where, at, *(x.data_ptr() for x in updated), 1.5)
            results += [offsets, *samples, depth.clone(), reached.clone(), following.clone()]
            kept = following.clone()
            first = kept.data_ptr()
        return results

    for actual, expected in zip(run((HOPPER, 0, 0)), run((-1, 0, 1)), strict=True):
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
    slopes = torch.zeros_like(table)
    table, by_table = ((x[:-1] if aligned else x[1:]).view(-1, features) for x in (table, slopes))
    direction = torch.randn_like(points) if along else None
    gradient = torch.randn(count, len(cells) * features)
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in (points, table, direction)]
    masks = [size - 1 if (n + 2) ** dims > size else 0 for n in cells]
    grid = (*addresses, count, dims, features, True, cells, masks, begins)
    settings = (cells, size, True)
    out, by_points = torch.empty_like(gradient), torch.empty_like(points)
    emulated.f32.hash_encoding((HOPPER, 0, 0), grid, out.data_ptr())
    emulated.f32.hash_points_gradient((HOPPER, 0, 0), grid, gradient.data_ptr(), by_points.data_ptr())
    emulated.f32.hash_table_gradient((HOPPER, 0, 0), grid, gradient.data_ptr(), by_table.data_ptr())
    op = torch.ops.sdfgan
    expected = (
        op.hash_encoding(points, table, direction, *settings),
        op.hash_encoding_points_gradient(points, table, direction, gradient, *settings),
        op.hash_encoding_table_gradient(points, direction, gradient, features, *settings),
    )
    for actual, wanted in zip((out, by_points, by_table), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-3)
