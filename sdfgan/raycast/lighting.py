"""Light: how bright a surface is, from its normal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan.checks import check_axes, check_direction, check_number

_ELEVATED = 0.3  # least cosine between a random light and the camera's axis: it comes from the viewer's side


@dataclass(frozen=True)
class Lighting:
    """Brightness, which multiplies colours: ambient + headlight lambert(n . view) + fixed lambert(n . direction).

    lambert(c) = max(c + wrap, 0) / (1 + wrap): Lambert's law for wrap 0, light that reaches all round (half Lambert)
    for 1. Strengths are numbers or tensors [] or [B], the direction [3] or [B, 3]; differentiable in all of them.
    """

    ambient: float | Tensor = 0.0
    headlight: float | Tensor = 1.0  # along the camera's axis
    fixed: float | Tensor = 0.0
    direction: Sequence[float] | Tensor = (0.0, 1.0, 0.0)  # towards the fixed light, world, of any length
    wrap: float = 1.0

    def __post_init__(self) -> None:
        check_direction("Lighting: direction", self.direction)
        for name in ("ambient", "headlight", "fixed", "wrap"):
            if not isinstance(getattr(self, name), Tensor):
                check_number(f"Lighting: {name}", getattr(self, name))

    @staticmethod
    def towards(direction: Sequence[float] | Tensor) -> Lighting:
        """One fixed light that reaches all round, [3] or [B, 3]."""
        return Lighting(headlight=0.0, fixed=1.0, direction=direction)

    @staticmethod
    def random(axes: Tensor, generator: torch.Generator | None = None) -> Lighting:
        """For each camera of `axes` [B, 3, 3] a fixed light anywhere on its side, and ambient light for the rest.

        So that an image's shading cannot be mistaken for its colours: for training.
        """
        check_axes("Lighting.random", axes)
        count, device = len(axes), None if generator is None else generator.device
        cosine = _ELEVATED + (1 - _ELEVATED) * torch.rand(count, generator=generator, device=device)
        angle = 2 * torch.pi * torch.rand(count, generator=generator, device=device)
        ambient = 0.5 * torch.rand(count, generator=generator, device=device)
        sine = (1 - cosine.square()).sqrt()
        own = torch.stack([sine * angle.cos(), sine * angle.sin(), cosine], -1).to(axes)
        direction = (own[:, :, None] * axes.detach()).sum(1)
        ambient = ambient.to(axes)
        return Lighting(ambient, 0.0, 1 - ambient, direction)

    def of_images(self, axes: Tensor) -> tuple[float | Tensor, float | Tensor, float | Tensor, Tensor]:
        """Strengths (numbers or [B]) and directions [B, 3] of all lights, for cameras `axes` [B, 3, 3]; without a fixed
        light its direction means nothing. Raises ValueError."""
        count = len(axes)

        def strength(name: str) -> float | Tensor:
            value = getattr(self, name)
            if not isinstance(value, Tensor):
                return value
            if value.shape not in ((), (count,)):
                raise ValueError(f"render: light.{name} must be [] or [{count}], got {list(value.shape)}")
            return value.to(axes).expand(count)

        ambient, headlight, fixed = strength("ambient"), strength("headlight"), strength("fixed")
        shape = np.shape(self.direction) if not isinstance(self.direction, Tensor) else self.direction.shape
        if shape not in ((3,), (count, 3)):
            raise ValueError(f"render: light must be [3] or [{count}, 3], got {list(shape)}")
        if not self.wrap >= 0:
            raise ValueError(f"render: light.wrap must not be negative, got {self.wrap}")
        if not isinstance(fixed, Tensor) and fixed == 0:
            return ambient, headlight, fixed, axes[:, 2]
        return ambient, headlight, fixed, F.normalize(tensor_like(axes, self.direction), dim=-1).expand(count, 3)

    def brightness(self, normals: Tensor, axes: Tensor, image: Tensor) -> Tensor:
        """[N, 1] of unit normals [N, 3] in the images `image` [N]."""
        ambient, headlight, fixed, direction = self.of_images(axes)

        def of(strength: float | Tensor) -> float | Tensor:
            return strength[image] if isinstance(strength, Tensor) else strength

        def lambert(towards: Tensor) -> Tensor:
            return ((normals * towards).sum(-1) + self.wrap).clamp(min=0) / (1 + self.wrap)

        total = normals.new_zeros(len(normals)) + of(ambient)
        if isinstance(headlight, Tensor) or headlight != 0:
            total = total + of(headlight) * lambert(axes[:, 2][image])
        if isinstance(fixed, Tensor) or fixed != 0:
            total = total + of(fixed) * lambert(direction[image])
        return total[:, None]


def as_lighting(light: Lighting | Tensor | Sequence[float] | None) -> Lighting:
    """A headlight for None; a direction is a light that reaches all round."""
    if isinstance(light, Lighting):
        return light
    if light is None:
        return Lighting()
    check_direction("render: light", light)
    return Lighting.towards(light)


def tensor_like(like: Tensor, value: float | Sequence[float] | Tensor) -> Tensor:
    """Numbers as a tensor of the same type on the same device. The host does not wait, as it would to copy them."""
    if isinstance(value, Tensor):
        return value.to(like)
    numbers = np.asarray(value, dtype=np.float64)
    if numbers.ndim > 1:
        return torch.as_tensor(numbers).to(like)
    filled = [like.new_full((), number) for number in numbers.ravel().tolist()]
    return torch.stack(filled) if numbers.ndim else filled[0]
