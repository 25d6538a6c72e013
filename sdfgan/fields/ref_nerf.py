"""Ref-NeRF (Verbin et al. 2022, arXiv:2112.03907): light by the reflected direction, spread by a roughness, around
normals that the network predicts and that the density's gradient keeps honest.

A `VolumeField`; the normals of its density, for the loss that ties the two, are `density_normals` of it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.fields.nerf import Encoder, SkipMlp, softplus_density
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
        raw = self.trunk(self.encoder(places), self.density_head, fuse=not places.points.requires_grad)
        return softplus_density(raw, _DENSITY_SHIFT)

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """See `VolumeField`; `normals` are the predicted ones.

        The condition is the random generator of the bottleneck's noise, or None for no noise.
        """
        heads = self.density_head, self.normal_head, self.diffuse_head, self.tint_head, self.roughness_head
        raw = self.trunk(self.encoder(places), *heads, self.bottleneck)
        density, normal, diffuse, tint, rough, bottleneck = raw.split((1, 3, 3, 3, 1, self.bottleneck.out_features), 1)
        normals = -F.normalize(normal.float(), dim=-1, eps=1e-8)
        against = (normals * places.directions).sum(-1, keepdim=True)  # cosine of the angle to the ray
        reflected = F.normalize(places.directions - 2 * against * normals, dim=-1)
        roughness = F.softplus(rough[:, 0].float() - _ROUGHNESS_SHIFT)
        encoded = ops.integrated_directional_encoding(reflected, roughness, self.directional_levels)
        if condition is not None:
            noise = torch.randn(bottleneck.shape, generator=condition, device=bottleneck.device)
            bottleneck = bottleneck + self.noise * noise
        specular = self.specular_net(torch.cat((bottleneck, encoded, against), -1), self.specular_head)
        diffuse = (diffuse.float() - _DIFFUSE_SHIFT).sigmoid()
        color = diffuse + tint.float().sigmoid() * specular.float().sigmoid()
        color = linear_to_srgb(color) if self.srgb else color
        return Radiance(softplus_density(density, _DENSITY_SHIFT), color, normals)


def linear_to_srgb(color: Tensor) -> Tensor:
    """Linear light as sRGB (IEC 61966-2-1); values above 1 go on along the curve."""
    safe = color.clamp(min=0.0031308)
    return torch.where(color <= 0.0031308, 12.92 * color, 1.055 * safe ** (1 / 2.4) - 0.055)
