"""Any Python function as a field, so that the raycaster has one kind of thing to trace."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor

from sdfgan.fields.base import Field


class FunctionField(Field):
    """The field of `function(points [N, 3]) -> [N] or [N, 1]` or `function(points [N, 3], latents [N, L])`."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"sdf must be a Field or a function of points, got {type(function).__name__}")
        self.function = function
        self._takes_latents = _positional_arguments(function) >= 2

    def condition(self, latents: Tensor | None) -> Tensor | None:
        """The latents [B, L] themselves: what they mean is the function's affair."""
        if self._takes_latents and latents is None:
            raise ValueError("sdf takes points and latents, but no latents were given")
        return latents

    def sdf(self, points: Tensor, condition: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """What the function says at points [N, 3]; ValueError unless that is [N] or [N, 1]."""
        if self._takes_latents:
            assert condition is not None
            rows = condition.expand(len(points), -1) if image is None else condition[image]
            values = self.function(points, rows)
        else:
            values = self.function(points)
        if values.shape not in ((len(points),), (len(points), 1)):
            raise ValueError(f"sdf must return [N] or [N, 1] for N = {len(points)} points, got {list(values.shape)}")
        return values.reshape(len(points))


def as_field(sdf: Field | Callable[..., Tensor]) -> Field:
    """`sdf` itself if it is a field, else the field of the function."""
    return sdf if isinstance(sdf, Field) else FunctionField(sdf)


def _positional_arguments(function: Callable[..., Tensor]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin without a signature
        return 1
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)
