"""The layers of rays, found between samples of a march: minima of the sdf, and where rays enter a surface."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._library import REAL, Checker, at_least_float32, named, native, refuse_gradient, register, workspace

Step = tuple[Tensor, Tensor, Tensor]

LAYER_STEPS = 5 + 3  # evaluations of a layer, at most: of its minimum and of its entry
_NUMBERS = 24  # kLayerNumbers of csrc/kernels/layers.h


class LayerSearch(NamedTuple):
    """The search for N layers; see `layer_step`. The first columns of the state are its results."""

    state: Tensor  # [N, 24] `LayerSearch` of csrc/core/layers.h
    stage: Tensor  # [N] uint8: evaluations so far of the minimum; 16 + those of the entry; 255: found

    @property
    def t(self) -> Tensor:
        """[N] where the sdf is to be evaluated next; of what has been found, where the ray enters the surface
        (`nearest` < 0), or passes nearest to it."""
        return self.state[:, 0]

    @property
    def edge(self) -> Tensor:
        """[N, 2] just before and after the minimum, where the sdf's derivatives are to be taken."""
        return self.state[:, 1:3]

    @property
    def share(self) -> Tensor:
        """[N] of the first of these in how the minimum moves, in [0, 1]."""
        return self.state[:, 3]

    @property
    def nearest(self) -> Tensor:
        """[N] sdf at the minimum."""
        return self.state[:, 4]

    @property
    def normal(self) -> Tensor:
        """[N, 3] gradient of the sdf at the minimum."""
        return self.state[:, 5:8]


def start_layers(guess: Tensor, reach: Tensor, enter: Tensor, pixel_size: Tensor) -> LayerSearch:
    """Searches of N layers, all arguments [N]: where the minimum may be, how far it can be from there,
    and where the ray was seen to enter the surface, or NaN; and the side of a pixel there (world units).

    What is never stepped stays where it is, with both edges there and -1 as its sdf: a surface that is known.
    """
    zero, infinite = torch.zeros_like(guess), torch.full_like(guess, torch.inf)
    unknown = [infinite, zero, zero, zero, zero]  # value, slope and gradient of an end
    result = [guess, guess, guess, zero, zero - 1, zero, zero, zero]
    ends = [guess - reach, *unknown, guess + reach, *unknown]
    state = torch.stack([*result, pixel_size, enter, zero, zero, *ends], -1)
    return LayerSearch(state, torch.zeros_like(guess, dtype=torch.uint8))


def layer_step(
    values: Tensor,
    gradients: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    search: LayerSearch,
) -> Step:
    """Apply a field's answers to the layers that are sought, and give the points to evaluate next.

    Entry k < count is layer r = alive[k], with the sdf values[k] and its gradient at origins[r] + t[r] directions[r];
    later entries are ignored, so a launch may be larger than the (device-side) count. `csrc/core/layers.h` is what
    happens to a layer: its bracket is narrowed until the tangents at both ends leave little doubt of the minimum (a
    fiftieth of a pixel, or 5 evaluations); where that is below 0, up to 3 Newton steps find the entry before it. What
    is NaN narrows no bracket.

    Mutates the search. Nothing waits for the device.

    Args:
        values, gradients: [K] and [K, 3] float32 or float64; also half precision, beside float32.
        alive: [K] int32, each layer at most once; entries that are none, and what has been found, are dropped.
        count: [1] int32.
        origins, directions: [N, 3] of the layers' rays, of the state's dtype.

    Returns:
        points [K, 3], alive [K] int32 and count [1] int32 of the searches that go on, as `trace_step`.
        Not differentiable: RuntimeError when a tensor requires grad.
    """
    given = {"values": values, "gradients": gradients, "alive": alive, "count": count}
    state, stage = search
    refuse_gradient("layer_step", **given, origins=origins, directions=directions, state=state, stage=stage)
    values, gradients = at_least_float32(values), at_least_float32(gradients)
    return _op(values, gradients, alive, count, origins, directions, state, stage)


def _fake(
    values: Tensor,
    gradients: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    state: Tensor,
    stage: Tensor,
) -> Step:
    check = Checker("layer_step")
    real = (values.dtype,)
    check("values", values, ("K",), REAL)
    check("gradients", gradients, ("K", 3), real)
    check("alive", alive, ("K",), (torch.int32,))
    check("count", count, (1,), (torch.int32,))
    check("origins", origins, ("N", 3), real)
    check("directions", directions, ("N", 3), real)
    check("state", state, ("N", _NUMBERS), real)
    check("stage", stage, ("N",), (torch.uint8,))
    return torch.empty_like(gradients), torch.empty_like(alive), torch.empty_like(count)


def _kernel(*given: Tensor) -> Step:
    points, alive_out, count_out = _fake(*given)
    values, stage = given[0], given[-1]
    scratch = workspace(values, "trace_step", len(values))
    native(values).layer_step(
        **named(_op, given),
        points=points,
        alive_out=alive_out,
        count_out=count_out,
        workspace=scratch,
        workspace_size=len(scratch),
        entries=len(values),
        layers=len(stage),
    )
    return points, alive_out, count_out


_op = register(
    "layer_step(Tensor values, Tensor gradients, Tensor alive, Tensor count, Tensor origins, Tensor directions,"
    " Tensor(a!) state, Tensor(b!) stage) -> (Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
)
