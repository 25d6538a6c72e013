"""What can be asked of a signed-distance field at a point: the interface of everything in `sdfgan.fields`.

Points are flat, [N, 3], so that a tracer may drop finished rays; `image` says which row of the condition each point
belongs to and is sorted, so that the points of one shape lie together.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdfgan import ops


class FieldSample(NamedTuple):
    """A field's answer at N points."""

    sdf: Tensor  # [N] world units, negative inside
    gradient: Tensor  # [N, 3] of the sdf by position; its length is 1 for a true distance
    rgb: Tensor  # [N, 3] linear albedo in [0, 1]


class Field(nn.Module):
    """A signed-distance field with colour, for one shape or for one shape per latent.

    A subclass defines `sdf` and, where it has them, `condition` and `rgb`. Everything is differentiable in points,
    condition and parameters.
    """

    latent_size: int = 0
    lipschitz: float = 1.0  # an upper bound of |gradient|; tracers divide their steps by it

    @property
    def extent(self) -> float:
        """No surface is farther from the origin: rays are clipped to that ball. Unless it knows better: the cube's."""
        return math.sqrt(3)

    def condition(self, latents: Tensor | None) -> Any:
        """What depends on the latents [B, latent_size] alone; computed once per image, never per point."""
        return None

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Signed distances [N] at points [N, 3]. `image` [N] int64, sorted: each point's row of the condition."""
        raise NotImplementedError

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Linear albedo [N, 3] at points [N, 3]; mid-grey unless the field has a colour."""
        return torch.full_like(points, 0.7)

    def sdf_and_gradient(
        self, points: Tensor, condition: Any = None, image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distances [N] and their gradients [N, 3], by reverse-mode autograd unless a field knows better."""
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            if not points.requires_grad:
                points = points.detach().requires_grad_()
            value = self.sdf(points, condition, image)
            (gradient,) = torch.autograd.grad(value.sum(), points, create_graph=create_graph)
        return (value, gradient) if create_graph else (value.detach(), gradient)

    def evaluate(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> FieldSample:
        """Everything shading needs at points [N, 3]."""
        value, gradient = self.sdf_and_gradient(points, condition, image)
        return FieldSample(value, gradient, self.rgb(points, condition, image))

    def network(self, condition: Any, precision: str | None = "fp32") -> ops.FilmSirenNetwork | None:
        """The field as the fused kernels take it, without a graph; None for a field that they do not know, or not here.

        precision: of the matrices, "fp32", "bf16" or "fp16" (`ops.pack_matrices`), or None for what is fast and good
        enough to trace with.
        """
        return None

    def forward(self, points: Tensor, latents: Tensor | None = None) -> Tensor:
        """Signed distances [N] at points [N, 3], all of one shape (latents None or [1, L]) or of latents [N, L]."""
        condition = self.condition(latents)
        image = None if latents is None or len(latents) == 1 else torch.arange(len(points), device=points.device)
        return self.sdf(points, condition, image)
