"""One step of sphere tracing (Hart 1996) for many rays, with stable compaction of the rays that go on."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from .. import _C
from ._library import REAL, Checker, native, refuse_gradient, register

Step = tuple[Tensor, Tensor, Tensor]


class RayStatus(IntEnum):
    """What became of a ray."""

    MARCHING = 0
    HIT = 1  # the value fell to the threshold; t is where
    LEFT = 2  # t reached far
    INVALID = 3  # the field answered NaN


def trace_step(
    values: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    t: Tensor,
    far: Tensor,
    best_value: Tensor,
    best_t: Tensor,
    status: Tensor,
    *,
    threshold: float,
    cone_slope: float = 0.0,
    step_scale: float = 1.0,
) -> Step:
    """Apply a field's answers to the rays that are alive, and give the points to ask for next.

    Entry k < count is ray r = alive[k] with the answer values[k] at distance t[r]; later entries are ignored,
    so a launch may be larger than the (device-side) count. Let v = values[k] - cone_slope * t[r].

    - v NaN: the ray ends as INVALID. Otherwise a v below best_value[r] is kept there, its t in best_t[r].
    - v <= threshold: the ray ends as HIT.
    - Else t[r] grows by v * step_scale. Reaching far[r] ends the ray as LEFT, with t = far.

    A cone_slope > 0 marches a cone of that radius per unit of distance, < 0 traces an inner level set.

    Mutates t, best_value, best_t and status. Nothing waits for the device.

    Args:
        values: [K] float32 or float64; all real tensors have this dtype.
        alive: [K] int32, each ray at most once; entries that are no ray are dropped.
        count: [1] int32.
        origins, directions: [N, 3].
        t, far, best_value, best_t: [N].
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
        t=t,
        far=far,
        best_value=best_value,
        best_t=best_t,
        status=status,
    )
    return _op(
        values, alive, count, origins, directions, t, far, best_value, best_t, status,
        threshold, cone_slope, step_scale,
    )  # fmt: skip


def _fake(
    values: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    t: Tensor,
    far: Tensor,
    best_value: Tensor,
    best_t: Tensor,
    status: Tensor,
    threshold: float,
    cone_slope: float,
    step_scale: float,
) -> Step:
    check = Checker("trace_step")
    real = (values.dtype,)
    check("values", values, ("K",), REAL)
    check("alive", alive, ("K",), (torch.int32,))
    check("count", count, (1,), (torch.int32,))
    check("origins", origins, ("N", 3), real)
    check("directions", directions, ("N", 3), real)
    for name, tensor in (("t", t), ("far", far), ("best_value", best_value), ("best_t", best_t)):
        check(name, tensor, ("N",), real)
    check("status", status, ("N",), (torch.uint8,))
    return values.new_empty((values.shape[0], 3)), torch.empty_like(alive), torch.empty_like(count)


def _kernel(
    values: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    t: Tensor,
    far: Tensor,
    best_value: Tensor,
    best_t: Tensor,
    status: Tensor,
    threshold: float,
    cone_slope: float,
    step_scale: float,
) -> Step:
    points, alive_out, count_out = _fake(
        values, alive, count, origins, directions, t, far, best_value, best_t, status,
        threshold, cone_slope, step_scale,
    )  # fmt: skip
    launch = native("trace_step", values)
    entries, rays = values.shape[0], t.shape[0]
    size = _C.trace_step_workspace(values.device.index, entries) if values.is_cuda else 0
    workspace = values.new_empty(size, dtype=torch.uint8)
    tensors = (
        values, alive, count, origins, directions, far, t, best_value, best_t, status,
        points, alive_out, count_out, workspace,
    )  # fmt: skip
    addresses = (tensor.data_ptr() for tensor in tensors)
    launch(*addresses, size, entries, rays, threshold, cone_slope, step_scale)
    return points, alive_out, count_out


_op = register(
    "trace_step(Tensor values, Tensor alive, Tensor count, Tensor origins, Tensor directions, Tensor(a!) t,"
    " Tensor far, Tensor(b!) best_value, Tensor(c!) best_t, Tensor(d!) status, float threshold,"
    " float cone_slope, float step_scale) -> (Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
)
