"""Fused FiLM-SIRENs on a GPU: against the reference, the CPU's tracer, and what a GPU's user does with streams."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from networks import OPERANDS, RandomNetwork, some_cameras, some_grads, some_points, worst_error
from sdfgan import build_info, ops
from sdfgan.cameras import DEFAULT_FOV, rotate_axes
from sdfgan.fields import FilmSirenSDF
from sdfgan.ops import CUDA_WIDTHS, FilmSirenNetwork, RayStatus, TraceLevel
from sdfgan.raycast import multiscale
from sdfgan.raycast.dfr import dfr_levels
from sdfgan.raycast.levels import march_levels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() and build_info()["cuda"]), reason="needs a GPU"),
]

TENSOR_CORES = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
PRECISIONS = ["fp32", pytest.param("fp16", marks=pytest.mark.skipif(not TENSOR_CORES, reason="needs sm_80"))]


def levels(size: int = 64, native: Literal["cuda"] | None = None) -> list[TraceLevel]:
    """Several levels; those of "cuda" are what pictures of 128 pixels and more are traced by."""
    return march_levels(size, DEFAULT_FOV, threshold=1e-4, steps=100, native=native, lipschitz=1.2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", CUDA_WIDTHS)
@pytest.mark.parametrize("layers", [(3, 2, 1), (1, 1, 0), (7, 1, 1)])
@pytest.mark.parametrize("counts", [[1], [64, 64], [5, 0, 2000, 37], [100_003]])
def test_samples_match_the_reference(precision, width, layers, counts):
    net = RandomNetwork(len(counts), width, layers)
    points, image = some_points(counts)
    expected = net.exact(points, image)
    on_gpu = net.on_cuda(precision)
    actual = ops.film_siren_sample(points.cuda(), image.cuda(), on_gpu)
    alone = ops.film_siren(points.cuda(), image.cuda(), on_gpu)
    tolerance = (1e-6 if precision == "fp32" else 5e-4) * 1.5 ** sum(layers)
    for a, e in zip((*actual, alone), (*expected, expected[0]), strict=True):
        assert (a.cpu().double() - e).abs().max() < tolerance * max(float(e.abs().max()), 1)
    image[0] = -1
    assert ops.film_siren(points.cuda(), image.cuda(), on_gpu)[0].isnan()


def gradient_limit(precision: str, layers: tuple[int, int, int]) -> float:
    """Of the largest number of each gradient, against float64 with operands that are rounded to the precision."""
    return (1e-5 if precision == "fp32" else 2e-3) * 1.5 ** max(sum(layers) - 5, 0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", CUDA_WIDTHS)
@pytest.mark.parametrize("layers", [(3, 1, 1), (1, 1, 0), (2, 2, 3)])
@pytest.mark.parametrize("counts", [[1], [64, 64], [5, 0, 2000, 37], [30_011]])  # the last: several chunks
def test_gradients_match_the_reference(precision, width, layers, counts):
    net = RandomNetwork(len(counts), width, layers)
    points, image = (tensor.cuda() for tensor in some_points(counts))
    grads = [grad.cuda() for grad in some_grads(len(points))]
    for answers in ((0, 1, 2), (0,), (1, 2)):
        some = [grad if i in answers else None for i, grad in enumerate(grads)]
        expected = net.exact_gradients(points, image, some, OPERANDS[precision])
        found = net.gradients_on_cuda(points, image, some, precision)
        assert worst_error(found, expected) < gradient_limit(precision, layers), answers


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("zero", [0.0, 1e-30])
def test_gradients_at_scales_of_zero(precision, zero):
    points, image = (tensor.cuda() for tensor in some_points([20, 900]))
    grads = [grad.cuda() for grad in some_grads(len(points))]
    for rows in ((0, 0, 3), (1, 2), (0,)):
        net = RandomNetwork(2, 128, (2, 1, 1))
        net.rest[3][rows] = zero
        expected = net.exact_gradients(points, image, grads, OPERANDS[precision])
        found = net.gradients_on_cuda(points, image, grads, precision)
        assert worst_error(found, expected) < gradient_limit(precision, net.layers)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e4])
def test_gradients_of_losses_of_any_size(precision, size):
    net = RandomNetwork(2, 64, (3, 1, 1))
    points, image = (tensor.cuda() for tensor in some_points([300, 20]))
    grads = [grad.cuda() for grad in some_grads(len(points), size)]
    found = net.gradients_on_cuda(points, image, grads, precision)
    expected = net.exact_gradients(points, image, grads, OPERANDS[precision])
    assert worst_error(found, expected) < gradient_limit(precision, net.layers)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", CUDA_WIDTHS)
def test_gradients_wait_for_nothing_and_have_the_same_bits(precision, width):
    """Also images in any order and points of none, and in a captured graph."""
    net = RandomNetwork(3, width, (3, 1, 1)).on_cuda(precision)
    points, image = (tensor.cuda() for tensor in some_points([3000, 7, 4000]))
    order = torch.randperm(len(points), device="cuda")
    points, image, grads = points[order], image[order], [grad.cuda() for grad in some_grads(len(points))]
    image[5] = -1

    def run() -> tuple[torch.Tensor, ...]:
        return torch.ops.sdfgan.film_siren_backward(points, image, net.tensors, list(net.layers), *grads)

    expected = run()
    assert expected[0][5].isnan().all() and not any(e.isnan().any() for e in expected[1:])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    graph.replay()
    for results in (again, captured):
        for a, e in zip(results, expected, strict=True):
            assert torch.equal(a.nan_to_num(9.0), e.nan_to_num(9.0))


@pytest.mark.parametrize("name", ["sdf", "sdf_and_gradient", "rgb", "evaluate"])
@pytest.mark.parametrize("width", [64, 80])
def test_a_field_differentiates_natively_as_by_torch(width, name):
    torch.manual_seed(0)
    field = FilmSirenSDF(width=width, latent_size=8).cuda()
    points, image = (t.cuda() for t in some_points([50, 0, 300]))
    latents = torch.randn(3, 8, device="cuda", requires_grad=True)
    own = [points.requires_grad_(), latents, *field.parameters()]

    def gradients(native: bool, autocast: bool) -> list[torch.Tensor]:
        field.native_gradients = native
        with torch.autocast("cuda", torch.float16, enabled=autocast):
            answers = getattr(field, name)(points, field.condition(latents), image)
        answers = [answers] if isinstance(answers, torch.Tensor) else list(answers)
        loss = sum((answer * (1 + answer.detach().cos())).sum() for answer in answers)
        return list(torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True))

    expected = [tensor.double() for tensor in gradients(native=False, autocast=False)]
    assert worst_error(gradients(native=True, autocast=False), expected) < 1e-4
    if TENSOR_CORES:
        assert worst_error(gradients(native=True, autocast=True), expected) < 5e-3


@pytest.mark.parametrize("mirror", [None, ops.Mirror(0.6, -0.8, 0.02)], ids=["plain", "mirrored"])
@pytest.mark.parametrize("width", CUDA_WIDTHS)
@pytest.mark.parametrize(
    "plan",
    [levels(64), levels(44), levels(128, "cuda"), dfr_levels((4, 4, 4), DEFAULT_FOV)],
    ids=["64", "44", "128", "dfr"],
)
def test_fp32_traces_like_the_cpu(width, plan, mirror):
    net = RandomNetwork(3, width, (3, 1, 1))
    network = net.on_cuda("fp32")._replace(mirror=mirror)
    traced = ops.film_siren_trace(some_cameras(3).cuda(), plan, network, DEFAULT_FOV)
    status, distance, nearest, counts = (t.cpu() for t in traced[:4])
    expected = ops.film_siren_trace(some_cameras(3), plan, net.on_cpu()._replace(mirror=mirror), DEFAULT_FOV)
    hit = expected[0] == RayStatus.HIT
    # Where the last bits of a grazing ray decide, one in thousands may differ.
    assert (status != expected[0]).float().mean() < 1e-3 and hit.sum() > 500
    error = (distance - expected[1])[hit & (status == RayStatus.HIT)].abs()
    assert error.quantile(0.99) < 1e-5
    assert (nearest - expected[2])[hit].abs().quantile(0.99) < 1e-5
    assert abs(int(counts[0]) / int(expected[3][0]) - 1) < 1e-3


@pytest.mark.skipif(not TENSOR_CORES, reason="needs sm_80")
@pytest.mark.parametrize("width", CUDA_WIDTHS)
def test_switches_for_measurements_change_only_the_time(monkeypatch, width):
    net = RandomNetwork(4, width, (3, 1, 1)).on_cuda("fp16")

    def trace() -> list[torch.Tensor]:
        *found, counts, _ = ops.film_siren_trace(some_cameras(4).cuda(), levels(128), net, DEFAULT_FOV)
        return [t.cpu() for t in (*found, counts[0])]

    expected = trace()
    for switch in ("WARPS 1", "WARPS 3", "TAIL 0", "TAIL 1", "TAIL 8", "RING 0"):
        with monkeypatch.context() as patch:
            name, value = switch.split()
            patch.setenv(f"SDFGAN_TRACE_{name}", value)
            assert all(map(torch.equal, trace(), expected)), switch


@pytest.mark.skipif(not TENSOR_CORES, reason="needs sm_80")
@pytest.mark.parametrize("width", CUDA_WIDTHS)
def test_fp16_finds_what_fp32_finds(width):
    net = RandomNetwork(4, width, (3, 1, 1))
    traced = {
        precision: ops.film_siren_trace(
            some_cameras(4).cuda(), levels(128, "cuda"), net.on_cuda(precision), DEFAULT_FOV
        )
        for precision in ("fp32", "fp16")
    }
    half, full = (traced[precision][0] == RayStatus.HIT for precision in ("fp16", "fp32"))
    assert (half & full).sum() / (half | full).sum() > 0.999
    assert (traced["fp16"][1] - traced["fp32"][1])[half & full].abs().median() < 1e-4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_runs_are_equal_on_any_stream(precision):
    net, cameras = RandomNetwork(5, 128, (3, 1, 1)).on_cuda(precision), some_cameras(5).cuda()
    expected = ops.film_siren_trace(cameras, levels(), net, DEFAULT_FOV)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # what follows must wait for this
        moved = cameras + 0
        again = ops.film_siren_trace(moved, levels(), net, DEFAULT_FOV)
    stream.synchronize()
    for a, e in zip(again[:3], expected[:3], strict=True):
        assert torch.equal(a, e)
    assert again[3][0] == expected[3][0]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_second_device():
    net, cameras = RandomNetwork(2, 128, (3, 1, 1)), some_cameras(2)
    expected = ops.film_siren_trace(cameras.cuda(), levels(), net.on_cuda("fp32"), DEFAULT_FOV)
    assert torch.cuda.current_device() == 0
    actual = ops.film_siren_trace(cameras.to("cuda:1"), levels(), net.on_cuda("fp32", "cuda:1"), DEFAULT_FOV)
    assert torch.cuda.current_device() == 0
    assert actual[3][0].item() == expected[3][0].item()
    for a, e in zip(actual[:3], expected[:3], strict=True):
        assert a.device.index == 1
        torch.testing.assert_close(a.cpu(), e.cpu())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_trace_waits_for_nothing(precision):
    """Not in Python; that the kernels' launcher does not wait either, its capture in a graph shows (below)."""
    net, cameras = RandomNetwork(2, 256, (3, 1, 1)).on_cuda(precision), some_cameras(2).cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        status, *_ = ops.film_siren_trace(cameras, levels(), net, DEFAULT_FOV)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (status == RayStatus.HIT).any()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_captured_trace_follows_its_cameras(precision):
    net, cameras = RandomNetwork(2, 64, (3, 1, 1)).on_cuda(precision), some_cameras(2).cuda()
    ops.film_siren_trace(cameras, levels(), net, DEFAULT_FOV)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        status, distance, *_ = ops.film_siren_trace(cameras, levels(), net, DEFAULT_FOV)
    for turn in (0, 1):
        cameras.copy_(some_cameras(2).roll(turn, 0))
        graph.replay()
        expected = ops.film_siren_trace(cameras.clone(), levels(), net, DEFAULT_FOV)
        assert torch.equal(status, expected[0]) and torch.equal(distance, expected[1])


@pytest.mark.parametrize("width", [64, 80, 320])
def test_a_field_answers_alike_with_and_without_a_graph(width):
    """Widths between those of the kernels get units that do nothing; wider ones go through torch."""
    torch.manual_seed(0)
    field = FilmSirenSDF(width=width, latent_size=8).cuda()
    points, image = (t.cuda() for t in some_points([50, 3]))
    condition = field.condition(torch.randn(2, 8, device="cuda"))
    with torch.no_grad():
        alone = field.evaluate(points, condition, image)
    for a, e in zip(alone, field.evaluate(points, condition, image), strict=True):
        torch.testing.assert_close(a, e, atol=2e-4, rtol=2e-3)


def test_multiscale_on_a_gpu_sees_what_a_cpu_sees():
    torch.manual_seed(0)
    field, latents = FilmSirenSDF(width=128, latent_size=8), torch.randn(3, 8)
    angles = torch.linspace(-0.5, 0.5, 3)
    axes = rotate_axes((angles, 2 * angles))
    expected = multiscale(axes, (128,), latents, field)
    field.cuda()
    for precision in (None, "fp32"):
        actual = multiscale(axes.cuda(), (128,), latents.cuda(), field, precision=precision)
        pictures = [torch.zeros(samples.mask.shape).cuda() for samples in (actual, expected)]
        for picture, samples in zip(pictures, (actual, expected), strict=True):
            picture[samples.mask.cuda()] = samples.hit.cuda().float()
        both, either = (pictures[0] * pictures[1]).sum(), torch.maximum(*pictures).sum()
        assert both / either > 0.998


def test_wrong_tensors_are_refused():
    net = RandomNetwork(1, 64, (2, 1, 1)).on_cuda("fp32")
    points, image = torch.rand(4, 3).cuda(), torch.zeros(4, dtype=torch.int64).cuda()
    with pytest.raises(ValueError, match=r"film_siren: points must be \[N, 3\] float32"):
        ops.film_siren(points.double(), image, net)
    with pytest.raises(ValueError, match=r"film_siren: first must be .* on cuda:0, got .* on cpu"):
        ops.film_siren(points, image, FilmSirenNetwork(*(t.cpu() for t in net.tensors), net.layers))
    slice_of_more = torch.zeros(65, device="cuda")[1:]
    with pytest.raises(ValueError, match="aligned to 16 bytes"):
        ops.film_siren(points, image, net._replace(sdf_head=slice_of_more))
    assert math.isfinite(float(ops.film_siren(points, image, net).sum()))
