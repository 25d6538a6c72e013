"""Gradients of fields by position: as an explicit adjoint pass, under autocast, compiled, and by double backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdfgan import fields
from sdfgan.fields.base import Field, eikonal_loss


def some_network(dtype: torch.dtype = torch.float32) -> tuple[fields.FilmSirenSDF, Tensor]:
    torch.manual_seed(0)
    network = fields.FilmSirenSDF(width=32, latent_size=4)
    with torch.no_grad():
        network.sdf_head.mul_(5)
    return network.to(dtype), torch.randn(2, 4, dtype=dtype)


def some_points(count: int = 60) -> tuple[Tensor, Tensor]:
    return 2 * torch.rand(count, 3) - 1, torch.arange(count) * 2 // count


def eikonal_gradients(network: Field, latents: Tensor, points: Tensor, image: Tensor) -> list[Tensor]:
    gradient = network.sdf_and_gradient(points, network.condition(latents), image)[1]
    loss = (gradient.norm(dim=-1) - 1).square().mean()
    own = list(network.parameters())
    return list(torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("native", [True, False])
def test_the_adjoint_pass_is_what_double_backward_gives(native: bool) -> None:
    network, latents = some_network(torch.float64)
    network.native_gradients = native
    points, image = some_points()
    points = points.double()
    condition = network.condition(latents)
    value, gradient = network.sdf_and_gradient(points, condition, image)
    plain_value, plain = Field.sdf_and_gradient(network, points, condition, image)
    torch.testing.assert_close(value, plain_value)
    torch.testing.assert_close(gradient, plain)
    ours = eikonal_gradients(network, latents, points, image)
    loss = (Field.sdf_and_gradient(network, points, network.condition(latents), image)[1].norm(dim=-1) - 1).square()
    twice = torch.autograd.grad(loss.mean(), list(network.parameters()), allow_unused=True, materialize_grads=True)
    for a, b in zip(ours, twice, strict=True):
        torch.testing.assert_close(a, b)


def test_the_graph_of_a_gradient_is_of_first_order() -> None:
    """No node of it is the backward pass of another: autocast and the compiler see ordinary operations."""
    network, latents = some_network()
    network.native_gradients = False
    points, image = some_points()
    gradient = network.sdf_and_gradient(points, network.condition(latents), image)[1]
    waiting, names, seen = [gradient.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.add(type(node).__name__)
        waiting += [parent for parent, _ in node.next_functions]
    assert "BmmBackward0" in names and not any("BackwardBackward" in name for name in names)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_shortens_products_alone(dtype: torch.dtype) -> None:
    network, latents = some_network()
    points, image = some_points()
    condition = network.condition(latents)
    exact = network.evaluate(points, condition, image)
    with torch.autocast("cpu", dtype=dtype):
        short = network.evaluate(points, condition, image)
    tolerance = {torch.bfloat16: 1e-2, torch.float16: 1.5e-3}[dtype]
    for a, b in zip(short, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)
        assert not torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_eikonal_loss_trains_under_autocast(dtype: torch.dtype) -> None:
    network, latents = some_network()
    points, image = some_points(200)
    exact = eikonal_gradients(network, latents, points, image)
    with torch.autocast("cpu", dtype=dtype):
        short = eikonal_gradients(network, latents, points, image)
    a, b = (torch.cat([part.float().flatten() for part in parts]) for parts in (short, exact))
    assert a.isfinite().all() and torch.cosine_similarity(a, b, dim=0) > 0.99


@pytest.mark.parametrize("native", [True, False])
def test_the_adjoint_pass_compiles(native: bool) -> None:
    network, latents = some_network()
    network.native_gradients = native
    points, _ = some_points()
    condition = network.condition(latents)[:1]

    def loss(points: Tensor) -> Tensor:
        return network.sdf_and_gradient(points, condition)[1].norm(dim=-1).sub(1).square().mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    own = [network.weights[1], network.sdf_head]
    for a, b in zip(
        torch.autograd.grad(compiled(points), own, retain_graph=True),
        torch.autograd.grad(loss(points), own, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_the_eikonal_loss() -> None:
    gradients = torch.tensor([[1.0, 0, 0], [0, 3, 0], [0, 0, 0]], requires_grad=True)
    loss = eikonal_loss(gradients)
    assert loss.item() == pytest.approx((0 + 4 + 1) / 3, rel=1e-5)
    loss.backward()
    assert gradients.grad is not None and gradients.grad.isfinite().all()
    assert eikonal_loss(torch.zeros(0, 3)).item() == 0
