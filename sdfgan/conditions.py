"""Arithmetic on conditions: what a mapping network makes of latents is the space (w, FiLM codes) to move shapes in.

A condition is a `Condition`, whichever generator it belongs to; None, of a field without latents, is of one shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

C = TypeVar("C", bound="Condition")


@dataclass(frozen=True)
class Condition:
    """The base of conditions: tensors [B, ...], one row per shape, and maybe more that does not depend on it."""

    def detach(self: C) -> C:
        """The same numbers without a graph."""
        return with_tensors(self, {name: tensor.detach() for name, tensor in tensors_of(self).items()})

    def __len__(self) -> int:
        return count(self)

    def __getitem__(self: C, index: Tensor | slice) -> C:
        return rows(self, index)


def tensors_of(condition: Any) -> dict[str, Tensor]:
    """The tensors [B, ...] of a condition by name."""
    if condition is None:
        return {}
    values = {field.name: getattr(condition, field.name) for field in dataclasses.fields(condition)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def with_tensors(condition: Any, tensors: dict[str, Tensor]) -> Any:
    """A condition of the same kind with other tensors."""
    return dataclasses.replace(condition, **tensors) if tensors else condition


def count(condition: Any) -> int:
    """How many shapes it is of."""
    return next((len(tensor) for tensor in tensors_of(condition).values()), 1)


def rows(condition: Any, index: Tensor | slice) -> Any:
    """Some of its rows."""
    return with_tensors(condition, {name: tensor[index] for name, tensor in tensors_of(condition).items()})


def cat(parts: Sequence[Any]) -> Any:
    """The rows of several, one behind the other."""
    names = tensors_of(parts[0])
    return with_tensors(parts[0], {name: torch.cat([tensors_of(part)[name] for part in parts]) for name in names})


def lerp(a: Any, b: Any, share: float | Tensor) -> Any:
    """(1 - share) a + share b; a single row goes with many. A tensor `share` [B] gives each row its own."""

    def mix(x: Tensor, y: Tensor) -> Tensor:
        weight = share.view(-1, *[1] * (x.ndim - 1)).to(x) if isinstance(share, Tensor) else share
        return x + weight * (y - x)

    others = tensors_of(b)
    return with_tensors(a, {name: mix(tensor, others[name]) for name, tensor in tensors_of(a).items()})
