"""Graphs in pieces: the gradient of one graph, whatever the function uses, in less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdfgan import cameras, fields
from sdfgan.raycast import Lighting, evaluate, render
from sdfgan.raycast.memory import in_pieces, map_tensors

SMALL = 500_000  # bytes


def some_network() -> tuple[fields.FilmSirenSDF, Tensor]:
    torch.manual_seed(0)
    network = fields.FilmSirenSDF(width=16, latent_size=4, mapping_width=8)
    with torch.no_grad():
        network.sdf_head.mul_(5)
    return network.double(), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("edge", ["exact", "neighbour", "dfr"])
def test_pieces_give_the_gradient_of_one_graph(edge) -> None:
    """In the network, the latents, the cameras and the light; from pictures and the eikonal loss on their samples."""
    network, latents = some_network()
    angles = torch.tensor([[0.2, 0.5], [0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    towards = torch.tensor([0.3, 0.4, 0.5], dtype=torch.float64, requires_grad=True)
    inputs = [*network.parameters(), latents, angles, towards]

    def gradients(**memory) -> tuple[Tensor, list[Tensor]]:
        picture = render(
            sdf=network, axes=cameras.rotate_axes((angles[0], angles[1])), latents=latents, resolution=32, edge=edge,
            light=Lighting(0.1, 0.4, 0.5, towards), **memory,
        )  # fmt: skip
        eikonal = (picture.field.gradient.norm(dim=-1) - 1).square().mean()
        depth = torch.where(picture.alpha > 0, picture.depth, 0.0)
        loss = (picture.rgba - 0.3).square().sum() + eikonal + 0.1 * depth.sum()
        return picture.rgba, list(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))

    whole, expected = gradients(memory="unbounded")
    pieced, actual = gradients(memory="bounded", budget=SMALL)
    automatic, also = gradients(budget=SMALL)
    torch.testing.assert_close(pieced, whole)
    for a, b, c in zip(actual, expected, also, strict=True):
        assert b.norm() > 0 or a.norm() == 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(c, b, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(automatic, whole)


def test_what_a_function_holds_gets_its_gradient() -> None:
    """Tensors in a closure, and what they were computed from."""
    radii = torch.tensor([0.25, 0.3], requires_grad=True)
    doubled = 2 * radii

    def ball(points: Tensor) -> Tensor:
        return points.norm(dim=-1) - doubled[0]

    axes = cameras.rotate_axes((torch.tensor([0.2]), torch.zeros(1)))
    parts = []
    for memory in ("unbounded", "bounded"):
        area = render(sdf=ball, axes=axes, resolution=64, memory=memory, budget=100_000).alpha.sum()
        parts.append(torch.autograd.grad(area, radii, retain_graph=True)[0])
    assert parts[0][0] > 0
    torch.testing.assert_close(parts[0], parts[1])


def test_points_are_evaluated_in_pieces() -> None:
    network, latents = some_network()
    points = 2 * torch.rand(400, 3, dtype=torch.float64) - 1
    image = torch.arange(400) // 200
    gradients = []
    for memory in ("unbounded", "bounded"):
        answer = evaluate(network, points, network.condition(latents), image, memory=memory, budget=SMALL)
        loss = (answer.gradient.norm(dim=-1) - 1).square().mean() + answer.sdf.abs().mean() + answer.rgb.mean()
        gradients.append(torch.autograd.grad(loss, [*network.parameters(), latents]))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_pieces_are_as_large_as_the_budget_allows() -> None:
    sizes: list[int] = []
    weight = torch.ones((), requires_grad=True)

    def function(given: object, samples: Tensor) -> tuple[Tensor]:
        sizes.append(len(samples))
        return (samples * weight,)

    samples = torch.rand(1000)
    (out,) = in_pieces(function, (), samples, lambda: torch.arange(1001), "bounded", 4 * 2 * 300)
    probe, *forward = sizes
    assert probe == 256 and 200 < max(forward) <= 300 and sum(forward) == 1000
    out.sum().backward()
    assert sizes == [probe, *forward, *forward]
    assert weight.grad is not None and weight.grad.item() == pytest.approx(samples.sum().item(), rel=1e-5)


def test_images_of_nothing() -> None:
    away = fields.Sphere(torch.tensor([0.3], requires_grad=True)).translated((0.0, 5.0, 0.0))
    for memory in ("auto", "bounded", "unbounded"):
        assert render(sdf=away, axes=torch.eye(3)[None], resolution=16, memory=memory).alpha.sum() == 0
    assert evaluate(away, torch.zeros(0, 3), None, memory="bounded").sdf.shape == (0,)


def test_structures_keep_their_kind() -> None:
    condition = fields.FilmSirenSDF(width=16, latent_size=2).condition(torch.zeros(1, 2))
    mapped = map_tensors(lambda t: t + 1, {"a": [condition, (torch.zeros(2), 3)]})
    assert type(mapped["a"][0]) is type(condition) and mapped["a"][1][1] == 3
    assert torch.equal(mapped["a"][0].scales, condition.scales + 1)


def test_bad_budgets_are_named() -> None:
    axes = cameras.rotate_axes((torch.zeros(1), torch.zeros(1)))
    with pytest.raises(ValueError, match="budget must be a positive number of bytes, got 0"):
        render(sdf=fields.Sphere(0.5), axes=axes, resolution=8, budget=0)
    with pytest.raises(ValueError, match="memory must be 'auto', 'bounded' or 'unbounded', got 'some'"):
        render(sdf=fields.Sphere(0.5), axes=axes, resolution=8, memory="some")  # type: ignore[arg-type]
