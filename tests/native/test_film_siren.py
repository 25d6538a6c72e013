"""FiLM-SIRENs by the CUDA kernels, run on the CPU by tests/native/emulated: values and traced images."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from torch import Tensor

from emulation import AMPERE, HOPPER, TURING, needs_emulation
from networks import RandomNetwork, some_cameras, some_points
from sdfgan import cameras, ops
from sdfgan.ops import FilmSirenNetwork, MarchRules, Mirror, RayStatus, TraceLevel
from sdfgan.ops.film_siren import native_network
from sdfgan.ops.film_siren_trace import native_level
from sdfgan.ops.trace import native_layers
from sdfgan.raycast.dfr import dfr_levels
from sdfgan.raycast.levels import march_levels

pytestmark = needs_emulation


def described(net: FilmSirenNetwork) -> dict:
    """`FilmSiren` of csrc/kernels/film_siren.h, of a network that is packed for CUDA."""
    return native_network(net.tensors, list(net.layers))


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
        mirror=(net.mirror or Mirror(1.0, 0.0, 0.0))._asdict(),
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


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_mirrored_traces_are_those_of_the_cpu(emulated, precision):
    net, levels, mirror = RandomNetwork(2, 64, (2, 1, 1)), LEVELS["march"], Mirror(0.6, -0.8, 0.05)
    status, distance, *_ = trace(emulated, HOPPER, net.for_cuda(precision)._replace(mirror=mirror), levels, None)
    expected = ops.film_siren_trace(some_cameras(2), levels, net.on_cpu()._replace(mirror=mirror), FOV)
    other = ops.film_siren_trace(some_cameras(2), levels, net.on_cpu(), FOV)
    hit = (status == RayStatus.HIT) & (expected[0] == RayStatus.HIT)
    assert hit.sum() > 100 and (status != expected[0]).sum() <= 2
    assert (distance - expected[1])[hit].abs().median() < 1e-4
    assert (distance - other[1])[hit].abs().median() > 1e-2


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
