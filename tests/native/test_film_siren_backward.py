"""The gradient of FiLM-SIRENs by the CUDA kernels, run on the CPU by tests/native/emulated: against float64."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from emulation import AMPERE, HOPPER, TURING, needs_emulation, on_gpu
from networks import OPERANDS, RandomNetwork, some_grads, some_points, worst_error
from sdfgan.fields import FilmSirenSDF, film_siren
from sdfgan.ops.film_siren import for_cuda_gradient, native_network

pytestmark = needs_emulation

# Of the largest number of each gradient, against float64 with operands rounded to the precision. Rounding to fp16
# moves the gradient of a single point by 1 to 5e-3, as chance has it. Left here is fp32's rounding, 1e-6, and operands
# that it has turned over to the next fp16 number, one in hundreds: each moves what it is a factor of by at most 1e-3.
LIMITS = {"fp32": 1e-5, "fp16": 1e-3}


def gradients(
    emulated: ModuleType,
    net: RandomNetwork,
    points: Tensor,
    image: Tensor,
    grads: list[Tensor | None],
    precision: str,
    device: int = HOPPER,
) -> list[Tensor]:
    """By points, first, matrices, heads, constants and FiLM, as `exact_gradients`; memory is full of NaN before."""
    network, layers = net.for_cuda(precision).tensors, list(net.layers)
    results = [torch.full_like(t, torch.nan) for t in (points, net.first, net.matrices, *net.rest)]
    names = ("points", "first", "hidden", "sdf_head", "texture_head", "constants", "scale", "shift")
    with on_gpu(emulated, device):
        network, on_cuda = for_cuda_gradient(points, image, network)
    assert on_cuda["workspace"] is not None
    on_cuda["workspace"].fill_(255)
    emulated.f32.film_siren_backward(
        (device, 0, 0),
        network=native_network(network, layers),
        points=points,
        image=image,
        **dict(zip(("grad_sdf", "grad_gradient", "grad_texture"), grads, strict=True)),
        **{f"grad_{name}": result for name, result in zip(names, results, strict=True)},
        **on_cuda,
        count=len(points),
    )
    return results


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("width", "layers", "device", "counts"),
    [
        (64, (3, 1, 1), HOPPER, [70, 3, 0, 190]),  # more tiles than are processed at once
        (64, (1, 1, 0), HOPPER, [1]),
        (64, (1, 1, 1), AMPERE, [8, 9]),
        (64, (2, 1, 3), HOPPER, [0, 0, 17]),
        (128, (2, 2, 0), HOPPER, [9, 0, 8]),
        (128, (1, 1, 2), AMPERE, [17]),
        (256, (1, 1, 1), AMPERE, [3, 0, 9]),
    ],
)
def test_matches_float64(emulated, precision, width, layers, device, counts):
    net = RandomNetwork(len(counts), width, layers)
    points, image = some_points(counts)
    grads = some_grads(len(points))
    expected = net.exact_gradients(points, image, grads, OPERANDS[precision])
    found = gradients(emulated, net, points, image, grads, precision, device)
    assert worst_error(found, expected) < LIMITS[precision]


@pytest.mark.parametrize(("precision", "layers"), [("fp16", (2, 1, 1)), ("fp32", (1, 1, 0))])
@pytest.mark.parametrize("answers", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_losses_of_some_answers(emulated, precision, answers, layers):
    net = RandomNetwork(2, 64, layers)
    points, image = some_points([5, 12])
    grads = [grad if i in answers else None for i, grad in enumerate(some_grads(len(points)))]
    expected = net.exact_gradients(points, image, grads, OPERANDS[precision])
    assert worst_error(gradients(emulated, net, points, image, grads, precision), expected) < LIMITS[precision]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("zero", [0.0, 1e-30])
def test_scales_of_zero(emulated, precision, zero):
    """Of one feature, of a whole layer, and of everything."""
    points, image = some_points([7, 9])
    grads = some_grads(len(points))
    for rows in ((0, 0, 3), (1, 2), (0,)):
        net = RandomNetwork(2, 64, (1, 1, 1))
        net.rest[3][rows] = zero
        expected = net.exact_gradients(points, image, grads, OPERANDS[precision])
        assert worst_error(gradients(emulated, net, points, image, grads, precision), expected) < LIMITS[precision]


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e4, 1e30])
def test_fp16_does_not_mind_the_size_of_the_loss(emulated, size):
    """Nor that of single points: here each is a hundred times smaller than the one before."""
    net = RandomNetwork(3, 64, (2, 1, 1))
    points, image = some_points([6, 5, 7])
    grads = some_grads(len(points), size)
    expected = net.exact_gradients(points, image, grads, OPERANDS["fp16"])
    assert worst_error(gradients(emulated, net, points, image, grads, "fp16"), expected) < LIMITS["fp16"]
    for grad in grads:
        grad.mul_(0.01 ** torch.arange(float(len(points))).view(-1, *[1] * (grad.dim() - 1)).clamp(max=3))
    expected = net.exact_gradients(points, image, grads, OPERANDS["fp16"])
    found = gradients(emulated, net, points, image, grads, "fp16")
    assert worst_error(found, expected) < LIMITS["fp16"]
    for own, exact in zip(found[0], expected[0], strict=True):  # each by itself
        assert worst_error([own], [exact]) < LIMITS["fp16"]


def test_images_in_any_order(emulated):
    net = RandomNetwork(3, 64, (1, 1, 1))
    points, image = some_points([40, 3, 27])
    grads = some_grads(len(points))
    expected = gradients(emulated, net, points, image, grads, "fp32")
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    found = gradients(emulated, net, points[order], image[order], [g[order] for g in grads], "fp32")
    assert worst_error(found, [expected[0][order].double(), *(e.double() for e in expected[1:])]) < 1e-6


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_points_of_no_image_add_nothing(emulated, precision):
    net = RandomNetwork(2, 64, (2, 1, 1))
    points, image = some_points([5, 6])
    grads = some_grads(len(points))
    expected = gradients(emulated, net, points, image, grads, precision)
    points, image = torch.cat([torch.ones(2, 3), points]), torch.cat([torch.tensor([-1, 2]), image])
    grads = [torch.cat([1e9 * torch.ones(2, *grad.shape[1:]), grad]) for grad in grads]
    found = gradients(emulated, net, points, image, grads, precision)
    assert found[0][:2].isnan().all() and torch.equal(found[0][2:], expected[0])
    assert all(map(torch.equal, found[1:], expected[1:]))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("images", [0, 2])
def test_without_points_all_is_zero(emulated, precision, images):
    net = RandomNetwork(images, 64, (2, 1, 1))
    points, image = some_points([0] * images) if images else (torch.rand(4, 3), torch.zeros(4, dtype=torch.int64))
    by_points, *others = gradients(emulated, net, points, image, some_grads(len(points)), precision)
    assert by_points.isnan().all() and all((other == 0).all() for other in others)


def test_the_same_bits_in_any_schedule(emulated, monkeypatch):
    net = RandomNetwork(3, 64, (1, 1, 1))
    points, image = some_points([20, 3, 7])
    for precision in LIMITS:
        results = []
        for schedule in ("0", "1", "2"):
            monkeypatch.setenv("SDFGAN_EMULATED_SCHEDULE", schedule)
            results.append(gradients(emulated, net, points, image, some_grads(30), precision))
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))


def test_a_nan_spoils_its_own_points_alone(emulated):
    net = RandomNetwork(2, 64, (2, 1, 1))
    points, image = some_points([10, 10])
    grads = some_grads(20)
    expected = gradients(emulated, net, points, image, grads, "fp16")
    for spoiled in (points, grads[0], grads[1]):
        before = spoiled[3].clone()
        spoiled[3] = torch.nan
        found = gradients(emulated, net, points, image, grads, "fp16")
        spoiled[3] = before
        kept = torch.arange(20) != 3
        assert found[0][3].isnan().all() and found[2].isnan().any()
        assert torch.equal(found[0][kept], expected[0][kept])


def test_tensor_cores_are_asked_for_in_vain(emulated):
    net, (points, image) = RandomNetwork(1, 64, (1, 1, 1)), some_points([3])
    with pytest.raises(RuntimeError, match=r"film_siren_backward: fp16 needs compute capability 8\.0"):
        gradients(emulated, net, points, image, some_grads(3), "fp16", TURING)
    found = gradients(emulated, net, points, image, some_grads(3), "fp32", TURING)
    assert worst_error(found, net.exact_gradients(points, image, some_grads(3))) < LIMITS["fp32"]


@pytest.mark.parametrize("name", ["sdf", "evaluate"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_field_differentiates_by_these_kernels(emulated, monkeypatch, name, precision):
    """Its tensors say that they are on a GPU; under autocast products are those of fp16."""
    torch.manual_seed(0)
    field = FilmSirenSDF(width=48, latent_size=4, mapping_width=8, trunk_layers=2)
    with torch.no_grad():
        field.sdf_head.mul_(30)
    points, image = some_points([9, 0, 4])
    latents = torch.randn(3, 4, requires_grad=True)
    own = [points.requires_grad_(), latents, *field.parameters()]

    def by_everything() -> list[Tensor]:
        with torch.autocast("cpu", enabled=precision == "fp16" and field.native_gradients is True):
            answers = getattr(field, name)(points, field.condition(latents), image)
        answers = [answers] if isinstance(answers, Tensor) else list(answers)
        loss = sum((answer * (1 + answer.detach().cos())).sum() for answer in answers)
        return list(torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True))

    field.native_gradients = False
    expected = [tensor.double() for tensor in by_everything()]
    field.native_gradients = True
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(film_siren._C, "cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with on_gpu(emulated):
        found = by_everything()
    monkeypatch.undo()
    assert worst_error(found, expected) < (2e-5 if precision == "fp32" else 5e-3)
