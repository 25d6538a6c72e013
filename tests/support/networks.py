"""Random FiLM-SIRENs for the tests of CUDA kernels, emulated and real."""

from __future__ import annotations

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
        return FilmSirenNetwork(self.first, hidden, hidden, *self.rest, layers=self.layers)

    def on_cuda(self, precision: str, device: str = "cuda") -> FilmSirenNetwork:
        network = self.for_cuda(precision)
        return FilmSirenNetwork(*(tensor.to(device) for tensor in network[:-1]), network.layers)

    def exact(self, points: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, gradients and textures in float64."""
        double = FilmSirenNetwork(*(tensor.double() for tensor in self.on_cpu()[:-1]), self.layers)
        return reference.film_siren_sample(points.double(), image, double)


def some_points(counts: list[int]) -> tuple[Tensor, Tensor]:
    """Points of [-1, 1]^3, and the image of each."""
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return 2 * torch.rand(len(image), 3, generator=torch.Generator().manual_seed(1)) - 1, image


def some_cameras(count: int) -> Tensor:
    angles = torch.linspace(0, 1, count)
    return cameras.orbit_camera(cameras.rotate_axes((2 * angles - 0.8, 5 * angles))).contiguous()
