"""The fused FiLM-SIREN evaluator and tracer: against the reference in float64, threads, instruction sets, bfloat16."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from networks import RandomNetwork
from sdfgan import _C, build_info, cameras
from sdfgan.ops import (
    FilmSirenNetwork,
    MarchRules,
    RayStatus,
    TraceLevel,
    film_siren,
    film_siren_sample,
    film_siren_trace,
    pack_matrices,
    reference,
)

SIMD = build_info()["simd_compiled"][: build_info()["simd_compiled"].index(build_info()["simd"]) + 1]


def network(images, width, layers=(2, 1, 1), dtype=torch.float32, seed=0, precision="fp32") -> FilmSirenNetwork:
    """Weights and FiLM of the size that an initialised FiLM-SIREN has; the sdf is near that of a ball."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return (2 * torch.rand(shape, dtype=torch.float64, generator=g) - 1).to(dtype)

    matrices = uniform(sum(layers) - 1, width, width) * (6 / width) ** 0.5 / 10
    return FilmSirenNetwork(
        uniform(width, 3) / 3,
        pack_matrices(matrices, precision),
        pack_matrices(matrices.transpose(1, 2).contiguous(), precision),
        uniform(width) * 0.1 / width**0.5,
        uniform(3, width) / width**0.5,
        torch.tensor([0.01, -0.5], dtype=dtype),
        10 + 3 * uniform(images, sum(layers), width),
        3 * uniform(images, sum(layers), width),
        layers,
    )


def double(net: FilmSirenNetwork) -> FilmSirenNetwork:
    return FilmSirenNetwork(*(tensor.double() for tensor in net.tensors), net.layers)


def some_points(counts, dtype=torch.float32, seed=0):
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
    points = torch.rand((len(image), 3), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (2 * points - 1).to(dtype), image


@pytest.fixture
def emulated(monkeypatch):
    """bfloat16 on any CPU."""
    monkeypatch.setenv("SDFGAN_EMULATE_BF16", "1")


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 70), min_size=1, max_size=5),
    width=st.sampled_from([16, 32, 48, 64, 80, 128]),
    layers=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_matches_reference(counts, width, layers, dtype, seed):
    net = network(len(counts), width, layers, dtype, seed)
    points, image = some_points(counts, dtype, seed)
    expected = reference.film_siren_sample(points.double(), image, double(net))
    actual = film_siren_sample(points, image, net)
    # A layer multiplies rounding errors by about two.
    tolerance = 5e-7 * 2 ** sum(layers) if dtype == torch.float32 else 1e-11
    for a, e in zip((film_siren(points, image, net), *actual), (expected[0], *expected), strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), e, atol=tolerance, rtol=0)


@pytest.mark.parametrize("width", [256, 512])
def test_wide_networks(width):
    net = network(2, width, (4, 3, 1))
    points, image = some_points([70, 30])
    expected = reference.film_siren_sample(points.double(), image, double(net))
    for a, e in zip(film_siren_sample(points, image, net), expected, strict=True):
        torch.testing.assert_close(a.double(), e, atol=2e-5, rtol=0)


def test_the_gradient_is_that_of_the_values():
    net = network(1, 32, (3, 2, 1), torch.float64)
    points, image = some_points([50], torch.float64)
    _, gradient, _ = film_siren_sample(points, image, net)
    h = 1e-6
    for axis in range(3):
        step = h * torch.eye(3, dtype=torch.float64)[axis]
        slope = (film_siren(points + step, image, net) - film_siren(points - step, image, net)) / (2 * h)
        torch.testing.assert_close(gradient[:, axis], slope, atol=1e-8, rtol=0)


def test_sine_is_exact_to_2e_7():
    phases = torch.linspace(-100, 100, 200_001)
    points = torch.stack([phases / 1024, torch.zeros_like(phases), torch.zeros_like(phases)], 1)
    zero = torch.zeros(1, 16, 16)
    first, head = torch.zeros(16, 3), torch.zeros(16)
    first[3, 0] = 1
    head[3] = 1
    # The layer after it takes 1/64 of that, where its own sine is nearly linear.
    identity = torch.eye(16)[None] / 64
    packed = pack_matrices(identity)
    scale = torch.ones(1, 2, 16)
    scale[:, 0] = 1024  # exact, and points so near the origin that |x| adds no rounding of its own
    net = FilmSirenNetwork(first, packed, packed, 64 * head, zero[0, :3], torch.zeros(2), scale, zero[:, :2], (1, 1, 0))
    sines = film_siren(points, torch.zeros(len(points), dtype=torch.int64), net)
    expected = 64 * (phases.double().sin() / 64).sin() + (phases.double() / 1024).abs()
    assert (sines - expected).abs().max() < 2e-7


def test_the_same_for_any_number_of_threads_and_any_order_of_images():
    net = network(3, 64)
    points, image = some_points([1000, 3, 500])
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(torch.column_stack(film_siren_sample(points, image, net)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    order = torch.randperm(len(points))
    shuffled = torch.column_stack(film_siren_sample(points[order], image[order], net))
    assert torch.equal(shuffled, results[0][order])


def test_every_instruction_set_agrees():
    net = network(2, 64)
    points, image = some_points([40, 60])
    best = film_siren_sample(points, image, net)
    try:
        for level in SIMD:
            _C.set_simd(level)
            for a, e in zip(film_siren_sample(points, image, net), best, strict=True):
                torch.testing.assert_close(a, e, atol=2e-5, rtol=0)
    finally:
        _C.set_simd("")


@pytest.mark.parametrize("width", [32, 128])
def test_bfloat16_is_that_of_rounded_operands(emulated, width):
    """Within the noise that rounding weights and activations to bfloat16 makes, and not worse."""
    layers = (3, 2, 1)
    exact, rounded = network(2, width, layers), network(2, width, layers, precision="bf16")
    points, image = some_points([100, 60])
    expected = reference.film_siren_sample(points.double(), image, double(exact))
    for a, e in zip(film_siren_sample(points, image, rounded), expected, strict=True):
        error = (a - e).abs() / e.abs().mean()
        assert 1e-5 < error.mean() < 0.03
    assert rounded.hidden.dtype == torch.bfloat16


def test_bfloat16_of_exact_numbers_is_exact(emulated):
    """Weights that bfloat16 holds, activations of 0 and ±1: both precisions give the same."""
    g = torch.Generator().manual_seed(0)
    matrices = torch.randint(-2, 3, (3, 32, 32), generator=g).float() * math.pi / 2
    exact = network(1, 32, (2, 1, 1))
    whole = {"first": torch.randint(-2, 3, (32, 3), generator=g).float(), "shift": torch.zeros(1, 4, 32)}
    powers = (matrices * 2 / math.pi).round()
    scale = torch.full((1, 4, 32), math.pi / 2)

    def build(precision):
        return exact._replace(
            hidden=pack_matrices(powers, precision),
            transposed=pack_matrices(powers.transpose(1, 2).contiguous(), precision),
            scale=scale,
            **whole,
        )

    points = torch.randint(-3, 4, (64, 3), generator=g).float()
    image = torch.zeros(64, dtype=torch.int64)
    full, half = film_siren(points, image, build("fp32")), film_siren(points, image, build("bf16"))
    torch.testing.assert_close(full, half, atol=2e-5, rtol=0)


def test_points_of_no_image_give_nan():
    net = network(2, 16)
    points, _ = some_points([3])
    out = film_siren(points, torch.tensor([-1, 0, 2]), net)
    assert out.isnan().tolist() == [True, False, True]


def test_no_points():
    net = network(2, 16)
    points, image = some_points([0, 0])
    assert film_siren(points, image, net).shape == (0,)
    assert film_siren_sample(points, image, net)[1].shape == (0, 3)


def levels(size: int) -> list[TraceLevel]:
    cone = 0.1
    return [
        TraceLevel(size // 4, 20, MarchRules(0.05, cone, 1 + cone, 0.88), radius=1.6),
        TraceLevel(size, 300, MarchRules(1e-4, 0.0, 1.0, 1.0, 0.005, 4)),
    ]


def some_cameras(count: int, dtype=torch.float32):
    angles = torch.linspace(-0.8, 0.9, count, dtype=dtype), torch.linspace(0, 5, count, dtype=dtype)
    return cameras.orbit_camera(cameras.rotate_axes(angles)).contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_traced_points_lie_on_the_surface(dtype):
    net = network(5, 32, dtype=dtype)
    camera, size = some_cameras(5, dtype), 32
    status, distance, nearest, counts, _ = film_siren_trace(camera, levels(size), net, 0.4)
    queries, lanes = counts.tolist()
    assert 0 < queries <= lanes and lanes % 16 == 0
    hit = status == RayStatus.HIT
    assert 0.1 < hit.double().mean() < 0.9 and (status == RayStatus.UNTRACED).any()
    directions = cameras.ray_grid(camera, size, size, 0.4)[1].reshape(5, size, size, 3)
    points = camera[:, None, None, :, 3] + distance[..., None] * directions
    image = hit.nonzero()[:, 0]
    assert film_siren(points[hit].contiguous(), image, net).abs().max() < 3e-4
    missed = status == RayStatus.LEFT
    there = film_siren(points[missed].contiguous(), missed.nonzero()[:, 0], net)
    torch.testing.assert_close(there, nearest[missed], atol=1e-5, rtol=0)


def test_the_trace_is_the_same_for_any_number_of_threads():
    net, camera = network(7, 32), some_cameras(7)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5, 16):
            torch.set_num_threads(threads)
            results.append(film_siren_trace(camera, levels(48), net, 0.4))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0][:3], other[:3], strict=True))
        assert results[0][3][0] == other[3][0]


def test_every_instruction_set_traces_the_same():
    net, camera = network(2, 32), some_cameras(2)
    try:
        results = []
        for level in SIMD:
            _C.set_simd(level)
            results.append(film_siren_trace(camera, levels(32), net, 0.4))
    finally:
        _C.set_simd("")
    for status, distance, *_ in results[1:]:
        assert (status != results[0][0]).float().mean() < 2e-3
        both = (status == RayStatus.HIT) & (results[0][0] == RayStatus.HIT)
        assert (distance - results[0][1])[both].abs().quantile(0.99) < 2e-4


def test_nan_ends_a_ray():
    net, camera = network(1, 16), some_cameras(1)
    status, *_ = film_siren_trace(camera, levels(16)[1:], net._replace(sdf_head=net.sdf_head * math.nan), 0.4)
    assert set(status.unique().tolist()) <= {int(RayStatus.INVALID), int(RayStatus.UNTRACED)}


def test_no_pictures():
    net = network(0, 16)
    status, *_, counts, _ = film_siren_trace(torch.zeros(0, 3, 4), levels(16), net, 0.4)
    assert status.shape == (0, 16, 16) and counts.tolist() == [0, 0]


def test_opcheck():
    net = network(2, 16)
    points, image = some_points([5, 4])
    weights, layers = net.tensors, list(net.layers)
    torch.library.opcheck(torch.ops.sdfgan.film_siren.default, (points, image, weights, layers))
    torch.library.opcheck(torch.ops.sdfgan.film_siren_sample.default, (points, image, weights, layers))
    flat = [16.0, 30.0, *MarchRules(1e-3), 1.0, 0.0, 0.0, 8.0]
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # or the count of lanes may differ between runs
    try:
        arguments = (some_cameras(2), weights, layers, [0.6, 0.8, 0.02], flat, 0.4, None, 2)
        torch.library.opcheck(torch.ops.sdfgan.film_siren_trace.default, arguments)
    finally:
        torch.set_num_threads(before)


def test_rejections():
    net = network(2, 16)
    points, image = some_points([5, 4])
    with pytest.raises(ValueError, match=r"film_siren: points must be \[N, 3\] float32 or float64, got \[9, 2\]"):
        film_siren(points[:, :2].contiguous(), image, net)
    with pytest.raises(ValueError, match=r"pack_matrices: the width must be a multiple of 16 on cpu, got 12"):
        pack_matrices(torch.zeros(2, 12, 12))
    with pytest.raises(ValueError, match=r"precision must be one of \('fp32', 'bf16'\) on cpu, got 'fp16'"):
        pack_matrices(torch.zeros(2, 16, 16), "fp16")
    with pytest.raises(ValueError, match=r"the width must be \(64, 128, 256\) on cuda, got 48"):
        pack_matrices(torch.zeros(2, 48, 48), "fp16", "cuda")
    with pytest.raises(ValueError, match=r"film_siren: layers must be \(trunk >= 1, sdf >= 1, texture >= 0\)"):
        film_siren(points, image, net._replace(layers=(3, 0, 1)))
    with pytest.raises(ValueError, match=r"film_siren: hidden must be \[4, 2, 16, 8\] float32, got \[3, 2, 16, 8\]"):
        film_siren(points, image, net._replace(layers=(3, 1, 1)))
    with pytest.raises(RuntimeError, match="film_siren_trace: not differentiable, but sdf_head requires grad"):
        film_siren_trace(some_cameras(2), levels(16), net._replace(sdf_head=net.sdf_head.clone().requires_grad_()), 0.4)
    with pytest.raises(ValueError, match=r"film_siren_trace: cameras must be \[B, 3, 4\]"):
        film_siren_trace(torch.zeros(2, 3, 3), levels(16), net, 0.4)
    with pytest.raises(ValueError, match=r"film_siren_trace: sizes must be multiples, got \[16, 24\]"):
        uneven = [levels(64)[0], levels(64)[1]._replace(size=24)]
        film_siren_trace(some_cameras(2), uneven, net, 0.4)


def test_bf16_needs_a_cpu_that_has_it(monkeypatch):
    monkeypatch.delenv("SDFGAN_EMULATE_BF16", raising=False)
    monkeypatch.setattr(_C, "has_bf16", lambda: False)
    with pytest.raises(RuntimeError, match=r"precision 'bf16' needs a CPU with AVX512_BF16"):
        pack_matrices(torch.zeros(2, 16, 16), "bf16")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensors_on_cuda_are_checked(precision):
    """With tensors that are there in name only, so on any machine."""
    net = RandomNetwork(2, 64, (2, 1, 1)).for_cuda(precision)
    with FakeTensorMode() as mode:
        fake = FilmSirenNetwork(
            *(torch.empty_like(mode.from_tensor(tensor), device="cuda") for tensor in net.tensors), net.layers
        )
        points, image = torch.rand(5, 3, device="cuda"), torch.zeros(5, dtype=torch.int64, device="cuda")
        assert film_siren(points, image, fake).shape == (5,)
        assert [t.shape for t in film_siren_sample(points, image, fake)] == [(5,), (5, 3), (5, 3)]
        cameras = torch.zeros(2, 3, 4, device="cuda")
        status, distance, *_ = film_siren_trace(cameras, levels(16), fake, 0.4)
        assert status.shape == (2, 16, 16) and distance.is_cuda
        with pytest.raises(ValueError, match=r"film_siren: points must be \[N, 3\] float32, got \[5, 3\] float64"):
            film_siren(torch.empty_like(points, dtype=torch.float64), image, fake)
        with pytest.raises(ValueError, match=r"film_siren: hidden must be \[3, "):
            film_siren(points, image, fake._replace(hidden=torch.empty(2, device="cuda")))
        with pytest.raises(ValueError, match=r"film_siren: on CUDA the width must be one of \(64, 128, 256\), got 32"):
            film_siren(points, image, fake._replace(first=torch.empty(32, 3, device="cuda")))
