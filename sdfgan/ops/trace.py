"""The rays of an image, and one evaluation of many that march, with stable compaction of those that go on."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._library import REAL, Checker, at_least_float32, named, native, refuse_gradient, register, workspace
from .rays import one_radius_or_each

Step = tuple[Tensor, Tensor, Tensor]


class RayStatus(IntEnum):
    """What became of a ray. REFINING + n: it has hit, and n evaluations are left to move it onto the surface."""

    MARCHING = 0
    HIT = 1  # t is where
    LEFT = 2  # t reached far
    INVALID = 3  # the field answered NaN
    REFINING = 8  # + evaluations left
    UNTRACED = 255  # no ray: its pixel was not split, or it misses the ball


class MarchRules(NamedTuple):
    """How rays march.

    Plain sphere tracing (Hart 1996) steps by the field's value over its Lipschitz bound. With `relaxation`, the slope
    between the last two samples predicts how much farther a locally flat field lets one go (Balint and Valasek 2018);
    a ray goes back where the spheres of both samples leave more than `slack` between them unseen (Keinert et al.
    2014). Close to the surface, steps are secants that leave at most `slack` unseen; none is shorter than `slack`.
    Where a level set inside the surface is traced, spheres overlap, so that no thinner part hides where they touch.
    """

    threshold: float  # a ray hits where the traced function falls to this
    cone_slope: float = 0.0  # the traced function is sdf - cone_slope t: > 0 a cone, < 0 a level set inside
    lipschitz: float = 1.0  # the largest |gradient| of the sdf
    relaxation: float = 0.0  # how much of the prediction is believed, in [0, 1]
    slack: float = 0.0  # world units
    refine: int = -1  # most evaluations that move a hit by secants onto sdf = 0, to about the threshold; -1: none do
    footprint: float = 0.0  # side of a pixel per unit of distance; matters only where layers are collected


class LayerState(NamedTuple):
    """The layers of N rays: local minima of the sdf along them, which may cover a pixel in part.

    A ray that collects layers is a hit only where the traced function falls to the threshold, and is then moved back
    to where it entered the surface; minima less than about a pixel (`MarchRules.footprint`) from the surface, or not
    so deep inside, become layers: the sdf must rise by a quarter of a pixel before the next one. Layers are counted
    when they are complete; a ray with as many as there is room for has LEFT.
    """

    layers: Tensor  # [K, 4, N]: estimates of where the minimum is and of the sdf there; how far it can be from there;
    # where the ray entered the surface, NaN if no sample was inside. Undefined beyond the number of those
    complete: Tensor  # [N] uint8: how many
    open: Tensor  # [5, N]: what is known of a layer that is not complete

    @staticmethod
    def none(most: int, like: Tensor) -> LayerState:
        """No layers yet, and room for `most` of each ray, for rays with distances `like` [N]."""
        rays = len(like)
        open_layer = like.new_zeros(5, rays)
        open_layer[4] = math.nan
        return LayerState(like.new_zeros(most, 4, rays), like.new_zeros(rays, dtype=torch.uint8), open_layer)


class TraceLevel(NamedTuple):
    """One resolution of a trace: see `sdfgan.raycast.levels`."""

    size: int  # pixels along a side; a multiple of the level before
    steps: int  # most evaluations of a ray
    rules: MarchRules
    radius: float | Tensor = 1.0  # of the ball that rays are clipped to; for `start_level` also [B], one per image
    start: float = 0.0  # rays start that far behind where they enter the ball
    reach: float = 0.0  # 0: cones, split where they end. Else a ray is split if its smallest value is at most
    # sqrt((reach t)^2 / 2 + 1/1024), with t where that was
    patience: float = math.inf  # evaluations of a ray after which its slack has doubled; it grows linearly


class LevelRays(NamedTuple):
    """The rays of all pixels of a level, in their order, and a list of those to be evaluated."""

    origins: Tensor  # [N, 3]
    directions: Tensor  # [N, 3], of unit length
    start: Tensor  # [N] distance at which tracing begins
    far: Tensor  # [N] distance at which it ends
    state: Tensor  # [5, N], see `trace_step`
    status: Tensor  # [N] uint8: MARCHING, or UNTRACED
    points: Tensor  # [N, 3] where to evaluate first, as after a `trace_step`
    alive: Tensor  # [N] int32
    alive_count: Tensor  # [1] int32


def start_level(
    cameras: Tensor,
    level: TraceLevel,
    fov: float,
    parent: tuple[TraceLevel, Tensor, Tensor] | None = None,
    jitter: Tensor | None = None,
) -> LevelRays:
    """The rays of a level of square images: of all pixels, or of those within a split pixel of the level before.

    Nothing waits for the device.

    Args:
        cameras: [B, 3, 4] camera to world, float32 or float64.
        fov: field of view, radians.
        parent: the level before, with the state [5, B s^2] and status [B s^2] that its march left.
        jitter: [B, R, R] added to the start.

    Returns:
        `LevelRays` of N = B R^2 rays. Not differentiable: RuntimeError when a tensor requires grad.
    """
    refuse_gradient("start_level", cameras=cameras)
    radius, radii = one_radius_or_each("start_level", level.radius)
    if parent is None:
        numbers = level.size, 1, fov, radius, level.start, 0.0
        return LevelRays(*_start_op(cameras, None, None, jitter, *numbers, radii))
    coarse, state, status = parent
    numbers = level.size, coarse.size, fov, radius, level.start, coarse.reach
    return LevelRays(*_start_op(cameras, state, status, jitter, *numbers, radii))


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
    layers: LayerState | None = None,
    last: bool = False,
) -> Step:
    """Apply a field's values to the rays that are alive, and give the points to evaluate next.

    Entry k < count is ray r = alive[k] with the value values[k] at its distance t; later entries are ignored, so a
    launch may be larger than the (device-side) count. `csrc/core/march.h` is what happens to a ray; `MarchRules` says
    it in words. A NaN ends a ray as INVALID.

    Mutates state, status and layers. Nothing waits for the device.

    Args:
        values: [K] float32 or float64; a field's values may also be in half precision, beside float32.
        alive: [K] int32, each ray at most once; entries that are no ray are dropped.
        count: [1] int32.
        origins, directions: [N, 3] float32 or float64, as all that follow.
        far: [N] where rays end.
        state: [5, N]: distance t; smallest value of the traced function so far (for a level set inside: of the sdf),
            and where; the value before this one, and how far back that was. 0 there means none, and the value is a
            guess of the slope of -sdf along the ray
            (also left by a hit that is not refined). `start_march` makes the first.
        status: [N] uint8, `RayStatus`.
        layers: what layers the rays have met, to be collected.
        last: no step will follow: the layers that rays are in end, and no ray goes on.

    Returns:
        points [K, 3], alive [K] int32 and count [1] int32 of the rays that go on, in their old order for any
        number of threads. Rows past the new count are harmless: the last ray again, with a point at the origin.
        Not differentiable: RuntimeError when a tensor requires grad.
    """
    rays = {"alive": alive, "count": count, "origins": origins, "directions": directions, "far": far}
    refuse_gradient("trace_step", values=values, **rays, state=state, status=status)
    own = (None, None, None) if layers is None else layers
    return _op(at_least_float32(values), *rays.values(), state, status, *own, last, *rules)


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


def _start_fake(
    cameras: Tensor,
    state: Tensor | None,
    status: Tensor | None,
    jitter: Tensor | None,
    size: int,
    parent_size: int,
    fov: float,
    radius: float,
    offset: float,
    parent_reach: float,
    radii: Tensor | None,
) -> tuple[Tensor, ...]:
    check = Checker("start_level")
    check("cameras", cameras, ("B", 3, 4), REAL)
    real = (cameras.dtype,)
    images = cameras.shape[0]
    rays = images * size * size
    if size < 1 or parent_size < 1 or size % parent_size:
        raise ValueError(f"start_level: the size must be a multiple of the level before, got {size} and {parent_size}")
    if state is not None and status is not None:
        check("state", state, (5, images * parent_size * parent_size), real)
        check("status", status, (images * parent_size * parent_size,), (torch.uint8,))
    if jitter is not None:
        check("jitter", jitter, ("B", size, size), real)
    if radii is not None:
        check("radius", radii, ("B",), real)
    new = cameras.new_empty
    return (
        new(rays, 3), new(rays, 3), new(rays), new(rays), new(5, rays), new(rays, dtype=torch.uint8), new(rays, 3),
        new(rays, dtype=torch.int32), new(1, dtype=torch.int32),
    )  # fmt: skip


def _start_kernel(cameras: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    level = _start_fake(cameras, *rest)
    given = named(_start_op, (cameras, *rest))
    plane_distance = 1 / math.tan(given.pop("fov") / 2)
    origins, directions, start, far, state, status, points, alive, count = level
    scratch = workspace(cameras, "start_level", len(origins))
    native(cameras).start_level(
        **given,
        origins=origins,
        directions=directions,
        start=start,
        far=far,
        state=state,
        status=status,
        points=points,
        alive=alive,
        count=count,
        workspace=scratch,
        workspace_size=len(scratch),
        images=cameras.shape[0],
        plane_distance=plane_distance,
    )
    return level


_start_op = register(
    "start_level(Tensor cameras, Tensor? parent_state, Tensor? parent_status, Tensor? jitter, int size,"
    " int parent_size, float fov, float radius, float offset, float parent_reach, Tensor? radii)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _start_kernel,
    _start_fake,
)


def _fake(
    values: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    far: Tensor,
    state: Tensor,
    status: Tensor,
    layers: Tensor | None,
    layer_count: Tensor | None,
    open_layer: Tensor | None,
    *rest: float,
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
    if layers is not None and layer_count is not None and open_layer is not None:
        check("layers", layers, ("L", 4, "N"), real)
        check("layer count", layer_count, ("N",), (torch.uint8,))
        check("open layer", open_layer, (5, "N"), real)
    return values.new_empty((values.shape[0], 3)), torch.empty_like(alive), torch.empty_like(count)


def _kernel(*given: Any) -> Step:
    points, alive_out, count_out = _fake(*given)
    *rays, layers, layer_count, open_layer, last = given[: -len(MarchRules._fields)]
    values, status = rays[0], rays[-1]
    scratch = workspace(values, "trace_step", len(values))
    native(values).trace_step(
        **named(_op, rays),
        points=points,
        alive_out=alive_out,
        count_out=count_out,
        workspace=scratch,
        workspace_size=len(scratch),
        entries=len(values),
        rays=len(status),
        rules=native_rules(MarchRules(*given[-len(MarchRules._fields) :])),
        layers=native_layers(layers, layer_count, open_layer),
        last=last,
    )
    return points, alive_out, count_out


def native_rules(rules: MarchRules) -> dict:
    """`MarchRules` of csrc/core/march.h."""
    values = rules._asdict()
    inverse = 1 / values.pop("lipschitz")
    return {**values, "inverse_lipschitz": inverse, "refine": int(rules.refine)}


def native_layers(layers: Tensor | None, count: Tensor | None, open_layer: Tensor | None) -> dict:
    """`LayerArrays` of csrc/kernels/trace.h."""
    return {"layers": layers, "count": count, "open": open_layer, "most": 0 if layers is None else len(layers)}


_op = register(
    "trace_step(Tensor values, Tensor alive, Tensor count, Tensor origins, Tensor directions, Tensor far,"
    " Tensor(a!) state, Tensor(b!) status, Tensor(c!)? layers, Tensor(d!)? layer_count, Tensor(e!)? open_layer,"
    " bool last, float threshold, float cone_slope, float lipschitz, float relaxation, float slack, int refine,"
    " float footprint) -> (Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
)
