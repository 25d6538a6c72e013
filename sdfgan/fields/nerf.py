"""Radiance fields of ordinary networks: NeRF (Mildenhall et al. 2020, arXiv:2003.08934), mip-NeRF (Barron et al. 2021,
arXiv:2103.13415) and the proposals of mip-NeRF 360 (Barron et al. 2022, arXiv:2111.12077).

They are `VolumeField`s: they give `density` and `radiance` at `RaySamples`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.fields.base import map_tensors, ordinary
from sdfgan.fields.contraction import contract, contract_gaussians
from sdfgan.fields.small_mlp import can_fuse, sparse_perceptron
from sdfgan.fields.volume import Radiance, RaySamples, VolumeField

_DIRECTION_OCTAVES = 4
_DENSITY_SHIFT = 1.0  # softplus(x - shift): an untrained field is thin (mip-NeRF, section 3.4)
_COLOUR_MARGIN = 0.001  # colours reach past [0, 1] by this, so that black and white are not at infinity


class Encoder(nn.Module):
    """Points, or Gaussians where the places have covariances, by frequency; octaves from 1 to 2^(octaves - 1).

    In a contracted scene space is first drawn into the ball of radius 2 (`contract`), halved.
    """

    def __init__(self, octaves: int, contracted: bool = False) -> None:
        super().__init__()
        self.octaves, self.contracted = octaves, contracted
        self.width = 3 + 6 * octaves

    def forward(self, places: RaySamples) -> Tensor:
        """Features [N, 3 + 6 octaves]."""
        points, covariances = places.points, places.covariances
        if self.contracted and covariances is not None:
            points, full = contract_gaussians(points, covariances)
            points, covariances = points / 2, full.diagonal(dim1=-2, dim2=-1) / 4
        elif self.contracted:
            points = contract(points) / 2
        if covariances is None:
            return ops.positional_encoding(points.contiguous(), self.octaves, include_input=True)
        encoded = ops.integrated_positional_encoding(points.contiguous(), covariances.contiguous(), self.octaves)
        return torch.cat((points, encoded), -1)


class SkipMlp(nn.Module):
    """ReLU layers, and linear heads on them; the input enters again in the middle, from five layers on."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.skip_at = layers // 2 if layers > 4 else 0
        sizes = [inputs, *[width] * (layers - 1)]
        self.layers = nn.ModuleList(
            nn.Linear(size + (inputs if 0 < i == self.skip_at else 0), width) for i, size in enumerate(sizes)
        )
        for layer in self.layers:
            nn.init.kaiming_uniform_(layer.get_parameter("weight"), nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, x: Tensor, *heads: nn.Linear, fuse: bool = True) -> Tensor:
        """What the heads make of the features [N, width], one beside the other: [N, sum of their outputs]."""
        layers: list[tuple[Tensor, Tensor]] = [
            (layer.get_parameter("weight"), layer.get_parameter("bias")) for layer in self.layers
        ]
        layers.append((torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])))
        if not self.skip_at:
            return perceptron(x, layers, fuse)
        features = F.relu(perceptron(x, layers[: self.skip_at], fuse))
        return perceptron(torch.cat((features, x), -1), layers[self.skip_at :], fuse)


def perceptron(x: Tensor, layers: Sequence[tuple[Tensor, Tensor]], fuse: bool = True) -> Tensor:
    """Layers of weights and biases with ReLU between, on a CPU as one kernel.

    Without `fuse` by torch: it has to be where the gradient is differentiated again, as a loss on normals does.
    """
    if fuse and can_fuse(x):
        return sparse_perceptron(x.contiguous(), *zip(*layers, strict=True))
    for weight, bias in layers[:-1]:
        x = F.relu(F.linear(x, weight, bias))
    return F.linear(x, *layers[-1])


def softplus_density(raw: Tensor, shift: float = _DENSITY_SHIFT) -> Tensor:
    """A network's output [N, 1] as density [N]."""
    return F.softplus(raw[:, 0].float() - shift)


class ProposalField(nn.Module):
    """A small network that knows densities only, and so where a larger one is to look."""

    def __init__(self, width: int = 256, layers: int = 4, octaves: int = 10, contracted: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(octaves, contracted)
        self.trunk = SkipMlp(self.encoder.width, width, layers)
        self.head = nn.Linear(width, 1)

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """See `VolumeField`."""
        return softplus_density(self.trunk(self.encoder(places), self.head, fuse=not places.points.requires_grad))

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """Mid-grey of that density."""
        return Radiance(self.density(places), torch.full_like(places.points, 0.5))


class NerfField(nn.Module):
    """The network of NeRF: density by place, colour by place and direction. With covariances mip-NeRF's.

    Args:
        width, layers: of the part before the density.
        octaves: of places; directions have 4.
        contracted: whether the scene is unbounded.
    """

    def __init__(self, width: int = 256, layers: int = 8, octaves: int = 10, contracted: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(octaves, contracted)
        self.trunk = SkipMlp(self.encoder.width, width, layers)
        self.density_head = nn.Linear(width, 1)
        self.bottleneck = nn.Linear(width, width)
        self.color_layer = nn.Linear(width + 3 + 6 * _DIRECTION_OCTAVES, max(width // 2, 8))
        self.color_head = nn.Linear(max(width // 2, 8), 3)

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """See `VolumeField`."""
        raw = self.trunk(self.encoder(places), self.density_head, fuse=not places.points.requires_grad)
        return softplus_density(raw)

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """See `VolumeField`."""
        raw = self.trunk(self.encoder(places), self.density_head, self.bottleneck)
        directions = ops.positional_encoding(places.directions.contiguous(), _DIRECTION_OCTAVES, include_input=True)
        layers = [(layer.weight, layer.bias) for layer in (self.color_layer, self.color_head)]
        color = perceptron(torch.cat((raw[:, 1:], directions), -1), layers)
        color = color.float().sigmoid() * (1 + 2 * _COLOUR_MARGIN) - _COLOUR_MARGIN
        return Radiance(softplus_density(raw), color)


def density_normals(
    density: Callable[[RaySamples], Tensor], places: RaySamples, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Densities [N], and normals [N, 3]: minus their normalised gradients by place; also in inference mode."""
    with torch.inference_mode(False), torch.enable_grad():
        places = map_tensors(ordinary, places)
        points = places.points.detach().requires_grad_()
        value = density(places._replace(points=points))
        (gradient,) = torch.autograd.grad(value.sum(), points, create_graph=create_graph, retain_graph=True)
    return value, -F.normalize(gradient.float(), dim=-1, eps=1e-8)


class WithNormals:
    """A field that also has normals, of its density; for images, without a graph."""

    def __init__(self, field: VolumeField) -> None:
        self.field = field

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """See `VolumeField`."""
        return self.field.density(places, condition)

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """See `VolumeField`."""
        answer = self.field.radiance(places, condition)
        if answer.normals is None:
            _, normals = density_normals(lambda p: self.field.density(p, condition), places, create_graph=False)
            answer = answer._replace(normals=normals)
        return answer
