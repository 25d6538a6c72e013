"""sdfgan.ops.composite: against the reference, its derivatives, and what light does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan.ops import composite, reference

OP = torch.ops.sdfgan.composite.default


def random_rays(rays, samples, channels, dtype=torch.float64, device="cpu"):
    """Densities (some 0), deltas, colors, distances."""
    shape = (rays, samples)
    densities = 4 * torch.rand(shape, dtype=dtype, device=device)
    densities = densities * (torch.rand_like(densities) > 0.2)
    deltas, distances = torch.rand_like(densities), torch.rand_like(densities)
    return densities, deltas, torch.rand(*shape, channels, dtype=dtype, device=device), distances


@settings(max_examples=40, deadline=None)
@given(
    rays=st.integers(0, 5),
    samples=st.integers(0, 140),
    channels=st.integers(0, 4),
    given_opacities=st.booleans(),
    packed=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_matches_reference(device, assert_close, rays, samples, channels, given_opacities, packed, dtype):
    densities, deltas, colors, distances = random_rays(rays, samples, channels, dtype, device)
    tensors = [densities / 4, None, colors, distances] if given_opacities else [densities, deltas, colors, distances]
    offsets = None
    if packed:
        total = rays * samples
        inner = torch.randint(0, total + 1, (3,), device=device).sort().values
        offsets = torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), total)])
        tensors = [None if x is None else x.reshape(total, *x.shape[2:]) for x in tensors]
    expected = reference.composite(*tensors, offsets=offsets)
    for actual, wanted in zip(composite(*tensors, offsets=offsets), expected, strict=True):
        assert_close(actual, wanted)


def test_a_uniform_medium_follows_beer_and_lambert(device):
    """Whatever the steps: opacity 1 - exp(-density length), and the depth of an exponential distribution."""
    random = torch.Generator(device).manual_seed(0)
    edges = torch.cat(
        [torch.rand(4, 399, generator=random, device=device), torch.tensor([[0.0, 9.0]] * 4).to(device)], 1
    )
    edges = edges.sort(1).values.double()
    densities = torch.full((4, 400), 1.5, dtype=torch.float64, device=device)
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    result = composite(densities, edges.diff(dim=1), None, middles)
    assert result.colors is None and result.depth is not None
    assert torch.allclose(result.opacity, torch.full_like(result.opacity, 1 - math.exp(-1.5 * 9)), atol=1e-12)
    assert torch.allclose(result.weights[:, :-1].sum(1), 1 - (-1.5 * edges[:, -2]).exp(), atol=1e-12)


@pytest.mark.parametrize("packed", [False, True])
def test_gradients(device, packed):
    offsets = torch.tensor([0, 2, 2, 12], device=device) if packed else None
    inputs = [x.flatten(0, 1) if packed else x for x in random_rays(3, 4, 2, device=device)]
    inputs = [(x + 0.1).requires_grad_() for x in inputs]

    def densities(*tensors):
        return tuple(composite(*tensors, offsets=offsets))

    def opacities(a, colors):
        result = composite(a / 5, None, colors, offsets=offsets)
        return result.weights, result.opacity, result.colors

    for function, arguments in ((densities, inputs), (opacities, [inputs[0], inputs[2]])):
        assert torch.autograd.gradcheck(function, arguments)
        assert torch.autograd.gradgradcheck(function, arguments)


@pytest.mark.parametrize("wanted", [(0,), (2,), (0, 1), (0, 2), (1, 3)])
def test_gradients_of_some_inputs(device, wanted):
    inputs = [x + 0.1 for x in random_rays(2, 4, 2, device=device)]

    def function(*tensors):
        everything = list(inputs)
        for index, tensor in zip(wanted, tensors, strict=True):
            everything[index] = tensor
        return tuple(composite(*everything))

    leaves = [inputs[index].clone().requires_grad_() for index in wanted]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_gradients_at_opaque_samples(device):
    alphas = torch.tensor([[0.3, 1.0, 0.2, 1.0, 0.5]], dtype=torch.float64, device=device, requires_grad=True)
    colors = torch.rand(1, 5, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, c: composite(a, None, c).colors, (alphas, colors))


def test_gradient_of_a_long_ray(device, assert_close):
    """More samples than a block, and more channels than fit in registers: against the gradient of the reference."""
    for channels in (3, 5):
        inputs = [x.requires_grad_() for x in random_rays(3, 150, channels, device=device)]
        gradients = []
        for function in (composite, reference.composite):
            result = function(*inputs)
            loss = result.colors.square().sum() + (result.weights**2).sum() + result.depth.sum() + result.opacity.sum()
            gradients.append(torch.autograd.grad(loss, inputs))
        for actual, expected in zip(*gradients, strict=True):
            assert_close(actual, expected)


def test_an_infinite_last_piece(device):
    densities = torch.tensor([[0.5, 2.0], [0.5, 0.0]], device=device, requires_grad=True)
    deltas = torch.tensor([[1.0, math.inf]] * 2, device=device)
    result = composite(densities, deltas)
    assert result.opacity.tolist() == pytest.approx([1, 1 - math.exp(-0.5)])
    (gradient,) = torch.autograd.grad(result.weights[:, 0].sum(), densities)
    assert gradient[:, 0].tolist() == pytest.approx([math.exp(-0.5)] * 2) and (gradient[:, 1] == 0).all()


def test_half_types_are_computed_in_float32(device, assert_close):
    inputs = [x.half() for x in random_rays(3, 4, 2, torch.float32, device)]
    for actual, expected in zip(composite(*inputs), composite(*(x.float() for x in inputs)), strict=True):
        assert actual.dtype == torch.float32
        assert_close(actual, expected)


def test_offsets_of_nowhere_touch_nothing(device):
    offsets = torch.tensor([-5, 2, 9, 3], device=device)
    result = composite(torch.rand(4, device=device), offsets=offsets)
    assert result.weights.isfinite().all() and result.opacity[2] == 0


def test_opcheck(device):
    densities, deltas, colors, distances = (x.requires_grad_() for x in random_rays(3, 4, 3, device=device))
    torch.library.opcheck(OP, (densities, deltas, colors, distances, None))
    offsets = torch.tensor([0, 5, 12], device=device)
    torch.library.opcheck(OP, (densities.detach().flatten() / 4, None, None, None, offsets))


def test_compiles_with_its_gradient(device, assert_close):
    densities, deltas, colors, _ = random_rays(3, 6, 3, torch.float32, device)
    densities.requires_grad_()

    def loss(x):
        return composite(x, deltas, colors).colors.square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(*(torch.autograd.grad(f(densities), densities)[0] for f in (compiled, loss)))


def test_rejections():
    densities, deltas, colors, _ = random_rays(3, 6, 3, torch.float32)
    with pytest.raises(ValueError, match=r"composite: deltas must be \[R, S\] float32, got \[3, 5\] float32 on cpu"):
        composite(densities, deltas[:, :5].contiguous())
    with pytest.raises(ValueError, match=r"composite: colors must be \[R, S, C\] float32, got \[18, 3\]"):
        composite(densities, deltas, colors.flatten(0, 1))
    with pytest.raises(ValueError, match=r"composite: offsets must be \[R\+1\] int64, got \[2\] int32"):
        composite(densities.flatten(), offsets=torch.tensor([0, 18], dtype=torch.int32))
    with pytest.raises(TypeError, match="composite: densities must be a Tensor, got list"):
        composite([1.0])
