"""sdfgan.ops.positional_encoding: against the reference, its derivatives, and torch's checks of operators."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan.ops import positional_encoding, reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
OP = torch.ops.sdfgan.positional_encoding.default


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    octaves=st.integers(0, 8),
    include_input=st.booleans(),
    times_pi=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_matches_reference(device, assert_close, shape, octaves, include_input, times_pi, dtype):
    x = torch.randn(shape, dtype=torch.float64).to(device, dtype)
    options = {"include_input": include_input, "times_pi": times_pi}
    expected = reference.positional_encoding(x, octaves, **options)
    actual = positional_encoding(x, octaves, **options)
    assert actual.is_contiguous()
    assert_close(actual, expected)


def test_matches_reference_on_many_points(device, assert_close):
    x = torch.randn(4099, 3, device=device)
    assert_close(positional_encoding(x, 10), reference.positional_encoding(x, 10))


def test_layout(device):
    x = torch.tensor([[0.25, 0.5]], device=device)
    encoded = positional_encoding(x, 2, include_input=True, times_pi=True)[0].tolist()
    half = math.sqrt(0.5)
    assert encoded == pytest.approx([0.25, 0.5, half, 1, half, 0, 1, 0, 0, -1], abs=1e-6)


@pytest.mark.parametrize("x", [1e4, -3e7, 1e30])
def test_large_inputs_stay_on_the_unit_circle(device, x):
    encoding = positional_encoding(torch.full((1, 1), x, device=device), 1).double()
    assert encoding.square().sum().item() == pytest.approx(1, abs=1e-6)


def test_times_pi_keeps_its_digits_at_high_octaves(device, assert_close):
    x = torch.rand(1000, 1, device=device)
    sine = positional_encoding(x, 21, times_pi=True)[:, 40]
    turns = x[:, 0].double() * 2**19  # exact
    assert_close(sine, (2 * math.pi * (turns - turns.round())).sin().float())


def test_not_finite_gives_nan(device):
    x = torch.tensor([[math.inf], [math.nan]], device=device)
    assert positional_encoding(x, 3).isnan().all()
    assert positional_encoding(x, 3, times_pi=True).isnan().all()


def test_any_strides(device, assert_close):
    x = torch.randn(3, 7, device=device)
    assert_close(positional_encoding(x.t(), 3), positional_encoding(x.t().contiguous(), 3))


@pytest.mark.parametrize("times_pi", [False, True])
@pytest.mark.parametrize("include_input", [False, True])
def test_gradients(device, include_input, times_pi):
    x = torch.randn(4, 3, dtype=torch.float64, device=device, requires_grad=True)

    def encode(x):
        return positional_encoding(x, 3, include_input=include_input, times_pi=times_pi)

    assert torch.autograd.gradcheck(encode, x)
    assert torch.autograd.gradgradcheck(encode, x)


def test_third_derivative(device, assert_close):
    x = torch.randn(5, 1, dtype=torch.float64, device=device, requires_grad=True)
    y = positional_encoding(x, 3)[:, 4]  # sin(4 x)
    for _ in range(3):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        y = y[:, 0]
    assert_close(y, -64 * (4 * x[:, 0]).cos())


def test_half_precision_gradient(device):
    x = torch.rand(64, 3, device=device)
    grad = torch.randn(64, 60, device=device)
    gradients = []
    for dtype in (torch.float16, torch.float32):
        leaf = x.half().to(dtype).requires_grad_()
        positional_encoding(leaf, 10).backward(grad.half().to(dtype))
        gradients.append(leaf.grad.float())
    relative = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert relative < 2e-3


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(device, requires_grad):
    x = torch.randn(2, 5, 3, device=device, requires_grad=requires_grad)
    torch.library.opcheck(OP, (x, 4, True, False))
    torch.library.opcheck(OP, (x.transpose(0, 1), 2, False, True))


def test_compiles_with_its_gradient(device, assert_close):
    def loss(x):
        return positional_encoding(x, 4, include_input=True).square().sum()

    x = torch.randn(6, 3, device=device, requires_grad=True)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), loss(x))
    assert_close(*(torch.autograd.grad(f(x), x)[0] for f in (compiled, loss)))


def test_rejections():
    expected = r"positional_encoding: x must be \[\.\.\., D\] float16, bfloat16, float32 or float64, got "
    with pytest.raises(ValueError, match=expected + r"\[4, 3\] int64 on cpu"):
        positional_encoding(torch.zeros(4, 3, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match=expected + r"\[\] float32 on cpu"):
        positional_encoding(torch.tensor(1.0), 2)
    with pytest.raises(ValueError, match="positional_encoding: octaves must be 0 to 64, got -1"):
        positional_encoding(torch.zeros(4, 3), -1)
    with pytest.raises(TypeError, match="positional_encoding: x must be a Tensor, got list"):
        positional_encoding([1.0], 2)
