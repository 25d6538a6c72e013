"""Any Python function or module as a field, so that the raycaster has one kind of thing to trace."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sdfgan.fields.base import Field

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class FunctionField(Field):
    """The field of a function or module, called as one of

        function(points [N, 3])                                    of one shape for all latents
        function(points [N, 3], latents [N, L])                    if it has a second positional parameter
        function(points, latents [B, L], mask [N], geomOnly=True)  if it has a `mask` or `geomOnly`, as dfr's networks

    and answering [N] or [N, 1]. `mask` is the row of the latents that each point belongs to. A second parameter that
    has a default keeps it where no latents are given.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"sdf must be a Field or a function of points, got {type(function).__name__}")
        self.function = function
        parameters = _parameters(function)
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        required = [p.name for p in positional if p.default is inspect.Parameter.empty]
        names = {p.name for p in parameters if p.kind in (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)}
        self._geometry_only = {"geomOnly": True} if "geomOnly" in names else {}
        self._as_dfr = bool({"mask", "geomOnly"} & names) and len(positional) >= 3
        if len(required) > 2 and not (self._as_dfr and set(required[2:]) <= {"mask", "geomOnly"}):
            raise TypeError(f"sdf must take points, or points and latents, but requires {', '.join(required)}")
        several = any(p.kind == inspect.Parameter.VAR_POSITIONAL for p in parameters)
        self._takes_latents = len(positional) >= 2 or several
        self._requires_latents = len(required) >= 2

    def condition(self, latents: Tensor | None) -> Tensor | None:
        """The latents [B, L] themselves: what they mean is the function's affair."""
        if self._requires_latents and latents is None:
            raise ValueError("sdf takes points and latents, but no latents were given")
        return latents

    def sdf(self, points: Tensor, condition: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """What the function says at points [N, 3]; ValueError unless that is [N] or [N, 1]."""
        function = _uncompiled(self.function) if torch.is_grad_enabled() else self.function
        if condition is None or not self._takes_latents:
            values = function(points)
        elif image is None and len(condition) != 1:
            raise ValueError(f"sdf: image indices are needed to choose among {len(condition)} latents")
        elif self._as_dfr:
            mask = torch.zeros(len(points), dtype=torch.int64, device=points.device) if image is None else image
            values = function(points, condition, mask, **self._geometry_only)
        else:
            values = function(points, condition.expand(len(points), -1) if image is None else condition[image])
        if not isinstance(values, Tensor):
            raise TypeError(f"sdf must return a Tensor, got {type(values).__name__}")
        if values.shape not in ((len(points),), (len(points), 1)):
            raise ValueError(f"sdf must return [N] or [N, 1] for N = {len(points)} points, got {list(values.shape)}")
        return values.reshape(len(points)).to(points.dtype)


def as_field(sdf: Field | Callable[..., Tensor]) -> Field:
    """`sdf` itself if it is a field, also a compiled one, else the field of the function."""
    original = _uncompiled(sdf)
    return original if isinstance(original, Field) else FunctionField(sdf)


def _uncompiled(function: Any) -> Any:
    """What torch.compile was given: what it gives cannot be differentiated twice, and takes anything."""
    return getattr(function, "_orig_mod", getattr(function, "_torchdynamo_orig_callable", function))


def _parameters(function: Any) -> list[inspect.Parameter]:
    """Of a function; of a module, also one that is compiled or partly applied, those of its `forward`."""
    if isinstance(function, functools.partial):
        target = _called(function.func)
        function = functools.partial(target, *function.args, **function.keywords)
    try:
        return list(inspect.signature(_called(function)).parameters.values())
    except ValueError:  # a builtin without a signature
        return [inspect.Parameter("points", inspect.Parameter.POSITIONAL_ONLY)]


def _called(function: Any) -> Any:
    """What does the work of a module: its own `__call__` takes anything."""
    function = _uncompiled(function)
    return function.forward if isinstance(function, nn.Module) else function
