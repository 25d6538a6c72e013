"""A surface that is learnt from photographs: its signed distance in a hash grid, and its colour as seen from anywhere.

The sphere that it begins as is a term of its own; normals are an adjoint pass written as ordinary operations, so that
a loss on them needs derivatives of first order alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.fields.base import Field, FieldSample
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.fields.radiance_grid import DIRECTION_LEVELS
from sdfgan.fields.small_mlp import SmallMlp, can_fuse

_FEATURES = 15  # that the colour network gets besides place, normal and direction
_SOFTNESS = 0.01  # under the root of the sphere's distance, so that it is smooth at the origin
_FIRST_OUTPUT = 1e-2  # scale of the last layer's weights, so that an untrained surface is the sphere
_SLOPE_POINTS, _SLOPE_QUANTILE = 20_000, 0.99


class SurfaceGrid(Field):
    """sdf(x) = sqrt(|x|^2 + 0.01) - radius + net(x, grid(x)), and a colour by place, normal, direction and features.

    A condition [B, 3] holds the places that each image's points are seen from; without one, they are seen along the
    normal.

    Args:
        width, layers: units and hidden layers of both networks (the colour's has one layer more).
        levels, features, log2_size, finest: of the grid (`HashGrid`).
        radius: of the sphere that an untrained surface is.
    """

    active: Tensor
    detail: Tensor

    def __init__(
        self,
        width: int = 64,
        layers: int = 1,
        levels: int = 16,
        features: int = 2,
        log2_size: int = 19,
        finest: int = 2048,
        radius: float = 0.5,
    ) -> None:
        super().__init__()
        self.grid = HashGrid(
            levels=levels,
            features=features,
            log2_size=log2_size,
            coarsest=min(16, finest),
            finest=finest,
        )
        self.radius = radius
        self.distance_net = SmallMlp(3 + self.grid.width, width, layers, 1 + _FEATURES)
        with torch.no_grad():
            self._layers[-1].weight.mul_(_FIRST_OUTPUT)
        directions = 2 * (2**DIRECTION_LEVELS - 1 + DIRECTION_LEVELS)
        self.color_net = SmallMlp(7 + directions + _FEATURES, width, layers + 1, 3)
        self.register_buffer("active", torch.tensor(levels))  # `_levels`, in checkpoints
        self._levels = levels
        self.register_buffer("detail", torch.ones(()))  # factor of the features that colours get
        self.view_dependence = 1.0  # the same of directions; who trains sets it from the step

    @property
    def _layers(self) -> list[nn.Linear]:
        return [layer for layer in self.distance_net if isinstance(layer, nn.Linear)]

    def use(self, levels: int) -> None:
        """Of the hash grid, the coarsest so many, at least one, and at most all: for learning from coarse to fine."""
        self._levels = min(max(levels, 1), len(self.grid.cells))
        self.active.fill_(self._levels)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.use(int(self.active))

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """See `Field.sdf`."""
        x = self._encoded(points)
        layers = self._layers
        if not torch.is_grad_enabled() and can_fuse(x):
            weights = [layer.weight for layer in layers[:-1]] + [layers[-1].weight[:1]]
            biases = [layer.bias for layer in layers[:-1]] + [layers[-1].bias[:1]]
            value = ops.perceptron(x, weights, biases)[:, 0]
        else:
            hidden = x
            for layer in layers[:-1]:
                hidden = F.relu(layer(hidden))
            value = F.linear(hidden, layers[-1].weight[:1], layers[-1].bias[:1])[:, 0].float()
        return _length(points) - self.radius + value

    def sdf_and_gradient(
        self, points: Tensor, condition: Any = None, image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Field.sdf_and_gradient`."""
        return self._geometry(points)[:2]

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Colours [N, 3] as they are seen; see the class."""
        return self.evaluate(points, condition, image).rgb

    def evaluate(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> FieldSample:
        """See `Field.evaluate`."""
        value, gradient, features = self._geometry(points)
        if condition is None:
            directions = -F.normalize(gradient, dim=1)
        else:
            eyes = condition.expand(len(points), 3) if image is None else condition[image]
            directions = F.normalize(points - eyes, dim=1)
        return FieldSample(value, gradient, self.color(points, directions, gradient, features))

    def seen(self, points: Tensor, directions: Tensor) -> FieldSample:
        """Everything at points [N, 3] on rays of unit directions [N, 3]."""
        value, gradient, features = self._geometry(points)
        return FieldSample(value, gradient, self.color(points, directions, gradient, features))

    def color(self, points: Tensor, directions: Tensor, gradient: Tensor, features: Tensor) -> Tensor:
        """Colours [N, 3] on rays of unit directions [N, 3], of what `_geometry` gave."""
        smooth = torch.zeros_like(directions[:, 0])
        encoded = ops.integrated_directional_encoding(directions.contiguous(), smooth, DIRECTION_LEVELS)
        normals = F.normalize(gradient, dim=1)
        facing = (normals * directions).sum(1, keepdim=True)  # as Ref-NeRF has it (Verbin et al. 2022, sec. 3.2)
        x = torch.cat((points, normals, facing, self.view_dependence * encoded, self.detail * features), 1)
        return self.color_net(x).float().sigmoid()

    @torch.no_grad()
    def measure_slope(self, points: int = _SLOPE_POINTS) -> None:
        """Set `lipschitz` to the gradient's length that is exceeded nearly nowhere, at least 1; at so many places."""
        generator = torch.Generator().manual_seed(0)
        places = 2 * torch.rand(points, 3, generator=generator) - 1
        _, gradient = self.sdf_and_gradient(places.to(self.active.device))
        self.lipschitz = max(gradient.norm(dim=1).quantile(_SLOPE_QUANTILE).item(), 1.0)

    def _encoded(self, points: Tensor) -> Tensor:
        """What the network gets [N, 3 + W]."""
        return torch.cat((points, self.grid(points, self._levels)), 1)

    def _geometry(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances [N], their gradients [N, 3], and features [N, F]."""
        x = self._encoded(points)
        layers = self._layers
        kept = []
        for layer in layers[:-1]:
            x = F.relu(layer(x))
            kept.append(x)
        out = layers[-1](x)
        adjoint = layers[-1].weight[:1].expand(len(points), -1)
        for layer, values in zip(layers[-2::-1], kept[::-1], strict=True):
            adjoint = (adjoint * (values > 0)) @ layer.weight
        length = _length(points)
        towards = points / length[:, None]
        gradient = towards + adjoint[:, :3].float() + self.grid.gradient(points, adjoint[:, 3:].float(), self._levels)
        return length - self.radius + out[:, 0].float(), gradient, out[:, 1:]


def _length(points: Tensor) -> Tensor:
    """sqrt(|x|^2 + 0.01) of points [N, 3]; by coordinates, since a sum over rows of three is slow."""
    x, y, z = points.unbind(1)
    return torch.addcmul(torch.addcmul(x * x + _SOFTNESS, y, y), z, z).sqrt()
