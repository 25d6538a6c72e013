"""sdfgan.ops.perceptron: against the reference, as an operator, and as the field's way without a graph."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sdfgan.fields.coordinate import CoordinateSDF, Perceptron
from sdfgan.ops import pack_perceptron, perceptron, reference

OP = torch.ops.sdfgan.perceptron.default


def packed(sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    random = torch.Generator().manual_seed(len(sizes))
    weights = [torch.randn(b, a, generator=random) / a**0.5 for a, b in pairwise(sizes)]
    biases = [torch.randn(size, generator=random) for size in sizes[1:]]
    return pack_perceptron(weights, biases).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [(False, 0.0), (False, 0.01), (True, 1.5)])
@pytest.mark.parametrize("sizes", [(3, 1), (3, 8, 1), (5, 33, 70, 9, 1)])
def test_matches_reference(assert_close, sizes, kind, dtype):
    parameters = packed(sizes, dtype)
    sine, constant = kind
    for count in (0, 1, 47, 48, 49, 1000):
        x = torch.randn(count, sizes[0], generator=torch.Generator().manual_seed(count)).to(dtype)
        expected = reference.perceptron(x.double(), parameters.double(), sizes, sine=sine, constant=constant).to(dtype)
        assert_close(perceptron(x, parameters, sizes, sine=sine, constant=constant), expected)


def test_packing_is_that_of_the_layers(assert_close):
    torch.manual_seed(0)
    for activation in ("relu", "leaky-relu", "siren"):
        net = Perceptron(3, (20, 12), activation)
        x = torch.rand(100, 3)
        expected = net(x).detach()  # by layers
        with torch.no_grad():
            assert_close(net(x), expected)


def test_a_written_parameter_is_packed_again():
    field = CoordinateSDF(Perceptron(3, (8,)))
    x = torch.rand(5, 3)
    with torch.no_grad():
        before = field(x)
        field.net.layers[1].bias.add_(1)
        assert torch.allclose(field(x), before + 1)
    bias = field.net.layers[1].bias
    bias.grad = torch.ones_like(bias)
    torch.optim.SGD([bias], 1.0, fused=True).step()  # which counts no version
    with torch.no_grad():
        assert torch.allclose(field(x), before)


def test_threads_and_not_a_number():
    parameters = packed((3, 16, 1), torch.float32)
    x = torch.randn(5000, 3)
    x[7, 1] = math.nan
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(perceptron(x, parameters, (3, 16, 1)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0].nan_to_num(9), other.nan_to_num(9)) for other in results)
    assert results[0].isnan().nonzero().flatten().tolist() == [7]


def test_opcheck_and_compile(assert_close):
    parameters, x = packed((3, 16, 1), torch.float32), torch.randn(50, 3)
    torch.library.opcheck(OP, (x, parameters, [3, 16, 1], False, 0.0))
    compiled = torch.compile(perceptron, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, parameters, (3, 16, 1)), perceptron(x, parameters, (3, 16, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 2)}, r"perceptron: x must be \[N, 3\] float32 or float64, got \[4, 2\]"),
        ({"parameters": torch.zeros(9)}, r"parameters must be \[104\] float32, got \[9\]"),
        ({"sizes": (3, 8, 2)}, "sizes must be at least two positive numbers, the last 1"),
        ({"constant": math.inf}, "constant must be finite"),
    ],
)
def test_rejects(change, message):
    arguments = {"x": torch.zeros(4, 3), "parameters": packed((3, 8, 1), torch.float32), "sizes": (3, 8, 1)} | change
    with pytest.raises(ValueError, match=message):
        perceptron(**arguments)


def test_refuses_a_gradient():
    with pytest.raises(RuntimeError, match="not differentiable, but x requires grad"):
        perceptron(torch.zeros(4, 3, requires_grad=True), packed((3, 8, 1), torch.float32), (3, 8, 1))
