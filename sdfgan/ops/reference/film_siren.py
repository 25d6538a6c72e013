"""FiLM-SIRENs in plain torch: what `sdfgan.ops.film_siren` means."""

from __future__ import annotations

import torch
from torch import Tensor

from ..film_siren import FilmSirenNetwork


def film_siren(points: Tensor, image: Tensor, network: FilmSirenNetwork) -> Tensor:
    """See `film_siren_sample`."""
    return film_siren_sample(points, image, network)[0]


def film_siren_sample(points: Tensor, image: Tensor, network: FilmSirenNetwork) -> tuple[Tensor, Tensor, Tensor]:
    """One layer at a time; the gradient by autograd. Differentiable to any order where gradients are enabled."""
    graph = torch.is_grad_enabled()
    hidden = network.hidden.to(points.dtype)
    if hidden.dim() == 5:  # pairs of bfloat16
        hidden = hidden.transpose(2, 3).flatten(3).transpose(2, 3)
    matrices = hidden.transpose(2, 3).flatten(1, 2)  # [layers - 1, W, W]
    trunk_layers, sdf_layers, _ = network.layers

    def layer(index: int, x: Tensor) -> Tensor:
        product = x @ (network.first if index == 0 else matrices[index - 1]).T
        return torch.sin(network.scale[image, index] * product + network.shift[image, index])

    with torch.enable_grad():
        x = points if graph and points.requires_grad else points.detach().requires_grad_()
        asked = _mirrored(x, network)
        trunk = asked
        for index in range(trunk_layers):
            trunk = layer(index, trunk)
        features = trunk
        for index in range(trunk_layers, trunk_layers + sdf_layers):
            features = layer(index, features)
        prior = (asked.square().sum(-1) + network.constants[0]).sqrt() + network.constants[1]
        sdf = features @ network.sdf_head + prior
        (gradient,) = torch.autograd.grad(sdf.sum(), x, retain_graph=True, create_graph=graph)
        features = trunk
        for index in range(trunk_layers + sdf_layers, sum(network.layers)):
            features = layer(index, features)
        texture = features @ network.texture_head.T
    return (sdf, gradient, texture) if graph else (sdf.detach(), gradient, texture.detach())


def _mirrored(points: Tensor, network: FilmSirenNetwork) -> Tensor:
    if network.mirror is None:
        return points
    x, z, softness = network.mirror
    normal = points.new_tensor((x, 0.0, z))
    distance = points @ normal
    return points + (torch.sqrt(distance**2 + softness**2) - distance)[:, None] * normal
