"""Random FiLM-SIRENs for the tests of CUDA kernels, emulated and real."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdfgan import cameras, ops
from sdfgan.ops import FilmSirenNetwork, reference


class RandomNetwork:
    """Weights of the size that an initialised FiLM-SIREN has; the sdf is near that of a ball."""

    def __init__(self, images: int, width: int, layers: tuple[int, int, int], seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(shape, generator=g) - 1

        self.layers = layers
        self.matrices = uniform(sum(layers) - 1, width, width) * (6 / width) ** 0.5 / 10
        self.first = uniform(width, 3) / 3
        self.rest = (
            uniform(width) * 0.3 / width**0.5,
            uniform(3, width) / width**0.5,
            torch.tensor([0.01, -0.5]),
            10 + 3 * uniform(images, sum(layers), width),
            3 * uniform(images, sum(layers), width),
        )

    def on_cpu(self) -> FilmSirenNetwork:
        hidden = ops.pack_matrices(self.matrices)
        transposed = ops.pack_matrices(self.matrices.transpose(1, 2).contiguous())
        return FilmSirenNetwork(self.first, hidden, transposed, *self.rest, layers=self.layers)

    def for_cuda(self, precision: str) -> FilmSirenNetwork:
        """As CUDA kernels take it, but on the CPU."""
        hidden = ops.pack_matrices(self.matrices, precision, "cuda")
        return FilmSirenNetwork(self.first, hidden, self.matrices, *self.rest, layers=self.layers)

    def on_cuda(self, precision: str, device: str = "cuda") -> FilmSirenNetwork:
        network = self.for_cuda(precision)
        return FilmSirenNetwork(*(tensor.to(device) for tensor in network.tensors), network.layers)

    def exact(self, points: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, gradients and textures in float64."""
        double = FilmSirenNetwork(*(tensor.double() for tensor in self.on_cpu().tensors), self.layers)
        return reference.film_siren_sample(points.double(), image, double)

    def exact_gradients(
        self,
        points: Tensor,
        image: Tensor,
        grads: Sequence[Tensor | None],
        rounded: Callable[[Tensor], Tensor] | None = None,
    ) -> list[Tensor]:
        """In float64, from gradients by the three answers: by points, first, matrices, heads, constants and FiLM.

        With `rounded`, one of OPERANDS, those of products are rounded as by the CUDA kernels; sums never are.
        """
        given = (points, self.first, self.matrices, *self.rest)
        own = [tensor.detach().to(points.device, torch.float64).requires_grad_() for tensor in given]
        if rounded is not None:
            loss = _loss_of_tangents(own, self.layers, image, grads, rounded)
            return list(torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True))
        packed = ops.pack_matrices(own[2], device="cpu")
        network = FilmSirenNetwork(own[1], packed, packed, *own[3:], layers=self.layers)
        answers = reference.film_siren_sample(own[0], image, network)
        loss = sum((a * g.double()).sum() for a, g in zip(answers, grads, strict=True) if g is not None)
        return list(torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True))  # type: ignore[arg-type]

    def gradients_on_cuda(
        self, points: Tensor, image: Tensor, grads: Sequence[Tensor | None], precision: str
    ) -> list[Tensor]:
        """The same by the kernels of a GPU, where the other tensors are."""
        hidden = self.on_cuda(precision).hidden
        given = (points, self.first, self.matrices, *self.rest)
        own = [tensor.detach().to("cuda").requires_grad_() for tensor in given]
        network = FilmSirenNetwork(own[1], hidden, own[2], *own[3:], layers=self.layers)
        answers = ops.film_siren_sample(own[0], image, network)
        some = [(answer, grad) for answer, grad in zip(answers, grads, strict=True) if grad is not None]
        given_grads = [grad for _, grad in some]
        return list(torch.autograd.grad([a for a, _ in some], own, given_grads, materialize_grads=True))


def _loss_of_tangents(
    own: Sequence[Tensor],
    layers: tuple[int, int, int],
    image: Tensor,
    grads: Sequence[Tensor | None],
    rounded: Callable[[Tensor], Tensor],
) -> Tensor:
    """What gradients by the answers are the gradient of, with one tangent per point (csrc/cuda/differentiator.cuh):
    operands of the hidden layers' products, forward and back, are rounded before."""
    points, first, matrices, sdf_head, texture_head, constants, scale, shift = own
    by_sdf, by_gradient, by_texture = (0.0 if grad is None else grad.to(points) for grad in grads)
    trunk, sdf, texture = layers

    def layer(index: int, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        def product(operand: Tensor) -> Tensor:
            return operand @ first.T if index == 0 else _Product.apply(operand, matrices[index - 1], rounded)

        phase = scale[image, index] * product(x) + shift[image, index]
        return phase.sin(), phase.cos() * (scale[image, index] * product(tangent))

    direction = torch.zeros_like(points) + by_gradient
    x, tangent = points, direction
    for index in range(trunk):
        x, tangent = layer(index, x, tangent)
    colour = x
    for index in range(trunk, trunk + sdf):
        x, tangent = layer(index, x, tangent)
    for index in range(trunk + sdf, trunk + sdf + texture):
        colour, _ = layer(index, colour, torch.zeros_like(colour))
    radius = (points.square().sum(-1) + constants[0]).sqrt()
    along = tangent @ sdf_head + (points * direction).sum(-1) / radius
    value = x @ sdf_head + radius + constants[1]
    return (along + by_sdf * value).sum() + (by_texture * (colour @ texture_head.T)).sum()


class _Product(torch.autograd.Function):
    """x [N, W] @ matrix^T, all of whose products have rounded operands."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, rounded: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.rounded, x, matrix = rounded, rounded(x), rounded(matrix)
        ctx.save_for_backward(x, matrix)
        return x @ matrix.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (x, matrix), grad = ctx.saved_tensors, ctx.rounded(grad)
        return grad @ matrix, grad.T @ x, None


def rounded_to_half(x: Tensor) -> Tensor:
    """The nearest numbers of 11 bits: float16 whatever the size, for the kernels divide by powers of two before."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**11).round(), exponent - 11)


OPERANDS = {"fp32": None, "fp16": rounded_to_half}  # by precision


def some_grads(count: int, size: float = 1.0) -> list[Tensor]:
    """Gradients by the three answers at `count` points."""
    random = torch.Generator().manual_seed(2)
    shapes = ((count,), (count, 3), (count, 3))
    return [size * (2 * torch.rand(shape, generator=random) - 1) for shape in shapes]


def worst_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Of some tensors, the largest error against the largest number of the same tensor."""
    worst = 0.0
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape and a.isfinite().all()
        if e.numel() and (size := e.abs().max()) > 0:
            worst = max(worst, ((a.detach().to(e) - e).abs().max() / size).item())
        else:
            assert (a == 0).all()
    return worst


def some_points(counts: list[int]) -> tuple[Tensor, Tensor]:
    """Points of [-1, 1]^3, and the image of each."""
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return 2 * torch.rand(len(image), 3, generator=torch.Generator().manual_seed(1)) - 1, image


def some_cameras(count: int) -> Tensor:
    angles = torch.linspace(0, 1, count)
    return cameras.orbit_camera(cameras.rotate_axes((2 * angles - 0.8, 5 * angles))).contiguous()
