"""sdfgan.ops.perceptron: against the reference, its gradients, as an operator, and as the fields' way on a CPU."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sdfgan.fields.coordinate import CoordinateSDF, Perceptron
from sdfgan.fields.small_mlp import SmallMlp
from sdfgan.ops import perceptron, perceptron_gradients, reference

OP = torch.ops.sdfgan.perceptron.default
BACKWARD = torch.ops.sdfgan.perceptron_backward.default
KINDS = [(False, 0.0), (False, 0.01), (True, 1.5)]


def layers(sizes: tuple[int, ...], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases."""
    random = torch.Generator().manual_seed(len(sizes))
    weights = [torch.randn(b, a, generator=random) / a**0.5 for a, b in pairwise(sizes)]
    biases = [torch.randn(size, generator=random) for size in sizes[1:]]
    return [w.to(dtype).requires_grad_() for w in weights], [b.to(dtype).requires_grad_() for b in biases]


def inputs(count: int, size: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(count)).to(dtype).requires_grad_()


def gradients(function, x: Tensor, weights: list[Tensor], biases: list[Tensor], **kind) -> list[Tensor]:
    """The outputs, and the gradients of a loss that is different at each of them."""
    out = function(x, weights, biases, **kind)
    random = torch.Generator().manual_seed(1)
    along = torch.randn(out.shape, generator=random).to(out) / max(len(out), 1)
    return [out, *torch.autograd.grad(out, (x, *weights, *biases), along)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sizes", [(3, 1), (3, 8, 1), (16, 16, 16), (31, 32, 32, 3), (5, 33, 70, 9, 2), (6, 64, 64, 64, 64, 64, 4)]
)
def test_matches_reference(assert_close, sizes, kind, dtype):
    weights, biases = layers(sizes, dtype)
    sine, constant = kind
    for count in (0, 1, 47, 48, 49, 1000):
        x = inputs(count, sizes[0], dtype)
        doubled = [[t.detach().double().requires_grad_() for t in group] for group in ([x], weights, biases)]
        found = gradients(perceptron, x, weights, biases, sine=sine, constant=constant)
        wanted = gradients(reference.perceptron, *doubled[0], *doubled[1:], sine=sine, constant=constant)
        for actual, expected in zip(found, wanted, strict=True):
            assert_close(actual, expected.to(dtype))


@pytest.mark.parametrize("width", [128, 256])
def test_wide_layers(assert_close, width):
    weights, biases = layers((3, width, width, 1), torch.float32)
    x = inputs(200, 3, torch.float32)
    doubled = [[t.detach().double().requires_grad_() for t in group] for group in ([x], weights, biases)]
    found, wanted = (
        gradients(perceptron, x, weights, biases),
        gradients(reference.perceptron, *doubled[0], *doubled[1:]),
    )
    for actual, expected in zip(found, wanted, strict=True):
        assert_close(actual, expected.float())


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind):
    weights, biases = layers((3, 9, 5, 2), torch.float64)
    x = inputs(7, 3, torch.float64)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return perceptron(x, parameters[:3], parameters[3:], sine=kind[0], constant=kind[1])

    assert torch.autograd.gradcheck(call, (x, *weights, *biases))
    assert torch.autograd.gradgradcheck(call, (x, *weights, *biases)), "made of torch's products"


def test_no_second_derivative_of_the_kernel(assert_close):
    """Gradients for those who know the outputs are those of the operator, and refuse to carry one themselves."""
    weights, biases = layers((3, 8, 2), torch.float32)
    x = inputs(60, 3, torch.float32)
    along = torch.randn(60, 2)
    expected = torch.autograd.grad(perceptron(x, weights, biases), (x, *weights, *biases), along)
    plain = [[t.detach() for t in group] for group in (weights, biases)]
    by_x, by_weights, by_biases = perceptron_gradients(x.detach(), *plain, along)
    for actual, wanted in zip((by_x, *by_weights, *by_biases), expected, strict=True):
        assert torch.equal(actual, wanted)
    for given in ((x, *plain, along), (x.detach(), weights, biases, along), (x.detach(), *plain, along + x[:, :2])):
        with pytest.raises(RuntimeError, match=r"perceptron_gradients: not differentiable, but .* requires grad"):
            perceptron_gradients(*given)


def test_what_needs_no_gradient_gets_none():
    weights, biases = layers((3, 8, 2), torch.float32)
    x = inputs(60, 3, torch.float32)
    plain = [[t.detach() for t in group] for group in (weights, biases)]
    (by_x,) = torch.autograd.grad(perceptron(x, *plain).sum(), x)
    perceptron(x.detach(), weights, biases).sum().backward()
    perceptron(x, weights, biases).sum().backward()
    assert torch.equal(x.grad, by_x) and weights[0].grad.abs().sum() > 0


def test_a_field_without_a_graph(assert_close):
    torch.manual_seed(0)
    for activation in ("relu", "leaky-relu", "siren"):
        net = Perceptron(3, (20, 12), activation)
        x = torch.rand(100, 3)
        expected = net(x).detach()  # by layers
        with torch.no_grad():
            assert_close(net(x), expected)


def test_a_small_network_is_its_layers(assert_close):
    torch.manual_seed(0)
    net = SmallMlp(3, 20, 2, 5)
    x = torch.rand(100, 3, requires_grad=True)
    found, expected = ([out, *torch.autograd.grad(out.square().sum(), [x, *net.parameters()])] for out in
                       (net(x), torch.nn.Sequential.forward(net, x)))  # fmt: skip
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(actual, wanted)
    with torch.no_grad():
        assert torch.equal(net(x), found[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x).dtype == torch.bfloat16, "torch's layers"


def test_a_written_parameter_is_seen():
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
    weights, biases = layers((3, 16, 1), torch.float32)
    x = torch.randn(5000, 3)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            results.append(gradients(perceptron, x.requires_grad_(), weights, biases))
        assert all(torch.equal(a, b) for other in results for a, b in zip(results[0], other, strict=True))
        x = x.detach().clone()
        x[7, 1] = math.nan
        assert perceptron(x, weights, biases).isnan().nonzero()[:, 0].tolist() == [7]
    finally:
        torch.set_num_threads(threads)


def test_opcheck_and_compile(assert_close):
    weights, biases = layers((3, 16, 2), torch.float32)
    x = inputs(50, 3, torch.float32)
    torch.library.opcheck(OP, (x, weights, biases, False, 0.0))
    plain = [[t.detach() for t in group] for group in ([x], weights, biases)]
    torch.library.opcheck(BACKWARD, (*plain[0], *plain[1:], True, 1.5, torch.randn(50, 2), True, True))
    compiled = torch.compile(perceptron, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(
        gradients(compiled, x, weights, biases), gradients(perceptron, x, weights, biases), strict=True
    ):
        assert_close(actual, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 2)}, r"perceptron: weights\[0\] must be \[8, 2\] float32, got \[8, 3\]"),
        ({"x": torch.zeros(4, 3, dtype=torch.float16)}, r"x must be \[N, I\] float32 or float64, got \[4, 3\] float16"),
        ({"biases": [torch.zeros(8), torch.zeros(2)]}, r"biases\[1\] must be \[1\] float32, got \[2\]"),
        ({"biases": [torch.zeros(8)]}, "weights and biases must be of as many layers, at least one, got 2 and 1"),
        ({"weights": [], "biases": []}, "at least one, got 0 and 0"),
        ({"weights": [torch.zeros(0, 3), torch.zeros(1, 0)], "biases": [torch.zeros(0), torch.zeros(1)]}, "got sizes"),
        ({"constant": math.inf}, "constant must be finite"),
    ],
)
def test_rejects(change, message):
    weights, biases = layers((3, 8, 1), torch.float32)
    arguments = {"x": torch.zeros(4, 3), "weights": weights, "biases": biases} | change
    with pytest.raises(ValueError, match=message):
        perceptron(**arguments)
