"""Ref-NeRF (Verbin et al. 2022, arXiv:2112.03907): light by the reflected direction, spread by a roughness, around
normals that the network predicts and that the density's gradient keeps honest.

A `VolumeField` whose `extras` are the normals of its density, for the loss that ties the two.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.fields.nerf import Encoder, SkipMlp, density_normals, softplus_density
from sdfgan.fields.volume import Radiance, RaySamples

_BOTTLENECK = 128
_DENSITY_SHIFT = -0.5  # the authors' code has it; their paper does not tell
_ROUGHNESS_SHIFT = 1.0  # softplus(x - shift)
_DIFFUSE_SHIFT = math.log(3.0)  # diffuse colours begin dark: a quarter


class RefNerfField(nn.Module):
    """Colour = diffuse + tint * specular(reflected direction, roughness, normal . direction), in linear light.

    Args:
        width, layers, octaves, contracted: as `NerfField`; the second network is as large as the first.
        directional_levels: of the integrated directional encoding.
        noise: standard deviation of noise on the bottleneck between the networks, in training.
        srgb: whether the sum is converted to sRGB, as images are.
    """

    def __init__(
        self,
        width: int = 256,
        layers: int = 8,
        octaves: int = 16,
        contracted: bool = False,
        directional_levels: int = 5,
        noise: float = 0.02,
        srgb: bool = True,
    ) -> None:
        super().__init__()
        self.directional_levels, self.noise, self.srgb = directional_levels, noise, srgb
        self.encoder = Encoder(octaves, contracted)
        self.trunk = SkipMlp(self.encoder.width, width, layers)
        self.density_head = nn.Linear(width, 1)
        self.normal_head, self.diffuse_head, self.tint_head = (nn.Linear(width, 3) for _ in range(3))
        self.roughness_head = nn.Linear(width, 1)
        bottleneck = min(_BOTTLENECK, width)
        self.bottleneck = nn.Linear(width, bottleneck)
        directional = 2 * (2**directional_levels - 1 + directional_levels)
        self.specular_net = SkipMlp(bottleneck + directional + 1, width, layers)
        self.specular_head = nn.Linear(width, 3)

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """See `VolumeField`."""
        return softplus_density(self.density_head(self.trunk(self.encoder(places))), _DENSITY_SHIFT)

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """See `VolumeField`; `normals` are the predicted ones, `extras` [N, 3] those of the density.

        The condition is the random generator of the bottleneck's noise, or None for no noise.
        """
        features: list[Tensor] = []

        def density(at: RaySamples) -> Tensor:
            features.append(self.trunk(self.encoder(at)))
            return softplus_density(self.density_head(features[0]), _DENSITY_SHIFT)

        value, true_normals = density_normals(density, places, create_graph=torch.is_grad_enabled())
        if not torch.is_grad_enabled():
            value, features[0] = value.detach(), features[0].detach()
        x = features[0]
        normals = -F.normalize(self.normal_head(x).float(), dim=-1, eps=1e-8)
        against = (normals * places.directions).sum(-1, keepdim=True)  # cosine of the angle to the ray
        reflected = F.normalize(places.directions - 2 * against * normals, dim=-1)
        roughness = F.softplus(self.roughness_head(x)[:, 0].float() - _ROUGHNESS_SHIFT)
        encoded = ops.integrated_directional_encoding(reflected, roughness, self.directional_levels)
        bottleneck = self.bottleneck(x)
        if condition is not None:
            noise = torch.randn(bottleneck.shape, generator=condition, device=bottleneck.device)
            bottleneck = bottleneck + self.noise * noise
        specular = self.specular_head(self.specular_net(torch.cat((bottleneck, encoded, against), -1)))
        diffuse = (self.diffuse_head(x).float() - _DIFFUSE_SHIFT).sigmoid()
        color = diffuse + self.tint_head(x).float().sigmoid() * specular.float().sigmoid()
        return Radiance(value, linear_to_srgb(color) if self.srgb else color, normals, true_normals)


def linear_to_srgb(color: Tensor) -> Tensor:
    """Linear light as sRGB (IEC 61966-2-1); values above 1 go on along the curve."""
    safe = color.clamp(min=0.0031308)
    return torch.where(color <= 0.0031308, 12.92 * color, 1.055 * safe ** (1 / 2.4) - 0.055)
