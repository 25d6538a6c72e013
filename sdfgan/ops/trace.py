"""One evaluation of many marching rays, with stable compaction of the rays that go on."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _C
from ._library import REAL, Checker, native, refuse_gradient, register

Step = tuple[Tensor, Tensor, Tensor]


class RayStatus(IntEnum):
    """What became of a ray. REFINING + n: it has hit, and n evaluations are left to move it onto the surface."""

    MARCHING = 0
    HIT = 1  # t is where
    LEFT = 2  # t reached far
    INVALID = 3  # the field answered NaN
    REFINING = 8


class MarchRules(NamedTuple):
    """How rays march.

    Plain sphere tracing (Hart 1996) steps by the field's value over its Lipschitz bound. With `relaxation`, the slope
    between the last two samples predicts how much farther a locally flat field lets one go (Balint and Valasek 2018);
    a ray goes back where the spheres of both samples leave more than `slack` between them unseen (Keinert et al.
    2014). Close to the surface, steps are secants that leave at most `slack` unseen.
    """

    threshold: float  # a ray hits where the traced function falls to this
    cone_slope: float = 0.0  # the traced function is sdf - cone_slope t: > 0 a cone, < 0 a level set inside
    lipschitz: float = 1.0  # the largest |gradient| of the sdf
    relaxation: float = 0.0  # how much of the prediction is believed, in [0, 1]
    slack: float = 0.0  # world units
    refine: int = -1  # most evaluations that move a hit by secants onto sdf = 0, to about the threshold; -1: none do


def trace_step(
    values: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    far: Tensor,
    state: Tensor,
    status: Tensor,
    rules: MarchRules,
) -> Step:
    """Apply a field's answers to the rays that are alive, and give the points to ask for next.

    Entry k < count is ray r = alive[k] with the answer values[k] at its distance t; later entries are ignored, so a
    launch may be larger than the (device-side) count. `csrc/core/march.h` is what happens to a ray; `MarchRules` says
    it in words. A NaN ends a ray as INVALID.

    Mutates state and status. Nothing waits for the device.

    Args:
        values: [K] float32 or float64; all real tensors have this dtype.
        alive: [K] int32, each ray at most once; entries that are no ray are dropped.
        count: [1] int32.
        origins, directions: [N, 3].
        far: [N] where rays end.
        state: [5, N]: distance t; smallest value of the traced function so far, and where; the value before this one,
            and how far back that was. 0 there means none, and the value is a guess of the slope of -sdf along the ray
            (also left by a hit that is not refined). `start_march` makes the first.
        status: [N] uint8, `RayStatus`.

    Returns:
        points [K, 3], alive [K] int32 and count [1] int32 of the rays that go on, in their old order for any
        number of threads. Rows past the new count are zero: harmless to evaluate and to index with.
        Not differentiable: RuntimeError when a tensor requires grad.
    """
    refuse_gradient(
        "trace_step",
        values=values,
        alive=alive,
        count=count,
        origins=origins,
        directions=directions,
        far=far,
        state=state,
        status=status,
    )
    return _op(values, alive, count, origins, directions, far, state, status, *rules)


def start_march(start: Tensor, far: Tensor, slope: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """State [5, N] and status [N] of rays that begin at `start` [N]; those with far <= start have LEFT.

    slope: how fast the field is guessed to fall along each ray there; 1 does no harm.
    """
    state = start.new_zeros(5, len(start))
    state[0] = state[2] = start
    state[1] = 1e10
    state[3] = slope
    status = torch.where(far > start, int(RayStatus.MARCHING), int(RayStatus.LEFT))
    return state, status.to(torch.uint8)


def _fake(
    values: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    far: Tensor,
    state: Tensor,
    status: Tensor,
    *rules: float,
) -> Step:
    check = Checker("trace_step")
    real = (values.dtype,)
    check("values", values, ("K",), REAL)
    check("alive", alive, ("K",), (torch.int32,))
    check("count", count, (1,), (torch.int32,))
    check("origins", origins, ("N", 3), real)
    check("directions", directions, ("N", 3), real)
    check("far", far, ("N",), real)
    check("state", state, (5, "N"), real)
    check("status", status, ("N",), (torch.uint8,))
    return values.new_empty((values.shape[0], 3)), torch.empty_like(alive), torch.empty_like(count)


def _kernel(
    values: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    far: Tensor,
    state: Tensor,
    status: Tensor,
    *rules: float,
) -> Step:
    points, alive_out, count_out = _fake(values, alive, count, origins, directions, far, state, status)
    launch = native("trace_step", values)
    entries, rays = values.shape[0], far.shape[0]
    size = _C.trace_step_workspace(values.device.index, entries) if values.is_cuda else 0
    workspace = values.new_empty(size, dtype=torch.uint8)
    tensors = (
        values, alive, count, origins, directions, far, state, status, points, alive_out, count_out, workspace,
    )  # fmt: skip
    launch(*(tensor.data_ptr() for tensor in tensors), size, entries, rays, rules)
    return points, alive_out, count_out


_op = register(
    "trace_step(Tensor values, Tensor alive, Tensor count, Tensor origins, Tensor directions, Tensor far,"
    " Tensor(a!) state, Tensor(b!) status, float threshold, float cone_slope, float lipschitz, float relaxation,"
    " float slack, int refine) -> (Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
)
