"""The resolutions at which an image is traced, and the rules of each: cones first, then a ray for each pixel.

A cone that holds the rays of all pixels within a coarse one advances so far that nothing in it is ever skipped (cone
marching); where it may touch the surface, its pixel is split, and the finer cones start from the distance it reached.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from sdfgan.cameras import camera_distance
from sdfgan.ops import MarchRules, TraceLevel

_CONE_TOLERANCE = 0.2  # of the cone's radius at the origin: a cone that is so near is split
_CONE_RELAXATION = 0.88  # a cone's step back costs more than it gains
_RELAXATION = 1.0
SLACK = 0.25  # pixel footprints that rays may leave unseen between two samples
_PATIENCE = 8  # evaluations after which that has doubled: a ray that grazes a surface must not take hundreds


class MakeLevels(Protocol):
    """The levels of images whose gradients and balls have these bounds."""

    def __call__(self, *, lipschitz: float, radius: float | Tensor) -> list[TraceLevel]: ...


class _Plan(NamedTuple):
    """Which levels there are below that of the pixels."""

    coarsest: int  # pixels along a side, at least
    factors: tuple[int, ...]  # between the sizes of two levels: the first that leaves as many pixels
    cone_steps: int  # evaluations of a cone, at most

    def coarser(self, size: int) -> int | None:
        """The size of the level before one of `size`, if there is any."""
        sizes = (size // factor for factor in self.factors if size % factor == 0)
        return next((coarser for coarser in sizes if coarser >= self.coarsest), None)


_PLANS: dict[str | None, _Plan] = {
    "cpu": _Plan(coarsest=4, factors=(2,), cone_steps=24),
    # A launch for each level, as long as its longest chain of evaluations: few levels of short chains.
    "cuda": _Plan(coarsest=32, factors=(4, 2), cone_steps=8),
    None: _Plan(coarsest=4, factors=(4,), cone_steps=12),  # a launch for each evaluation
}


def march_levels(
    resolution: int,
    fov: float,
    *,
    threshold: float,
    steps: int,
    margin: float = 0.5,
    inset: float = 0.0,
    refine: int = 8,
    lipschitz: float = 1.0,
    radius: float | Tensor = 1.0,
    native: Literal["cpu", "cuda"] | None = "cpu",
) -> list[TraceLevel]:
    """The coarser levels and that of the pixels; see `multiscale`.

    native: where a native call traces all levels; None: any field, level by level. On a CPU sizes double from 4 or more
    pixels along a side; otherwise, where launches count, they grow fourfold, and cones end sooner; on CUDA from 32 or
    more. The environment may set other levels for native calls (docs/raycasting.md); ValueError if they are none.
    """
    plan = _plan(native)
    distance = camera_distance(fov)
    footprint = 2 / (resolution * distance)  # side of a pixel, per unit of distance along the ray
    slack = SLACK * footprint * distance
    radius = radius + margin * footprint * (distance + radius)  # of the ball that near misses are in as well
    sizes = [resolution]
    while (coarser := plan.coarser(sizes[0])) is not None:
        sizes.insert(0, coarser)
    levels = []
    for size in sizes[:-1]:
        # From the middle of the coarse pixel to that of the farthest fine one, and the misses that count.
        slope = math.sqrt(2) * (1 / size - 1 / resolution) / distance + margin * footprint
        rules = MarchRules(
            threshold=_CONE_TOLERANCE * slope * distance,
            cone_slope=slope * lipschitz,
            lipschitz=lipschitz * (1 + slope),  # the cone widens as it advances
            relaxation=_CONE_RELAXATION,
        )
        # The ray in the middle of a cone may miss the ball that the cone meets.
        levels.append(TraceLevel(size, plan.cone_steps, rules, radius=radius + slope * (distance + radius)))
    last = pixel_level(
        resolution, footprint, slack, radius, threshold=threshold, steps=steps, inset=inset, refine=refine,
        lipschitz=lipschitz,
    )  # fmt: skip
    return [*levels, last]


def pixel_level(
    size: int,
    footprint: float,
    slack: float,
    radius: float | Tensor,
    *,
    threshold: float,
    steps: int,
    inset: float,
    refine: int,
    lipschitz: float,
) -> TraceLevel:
    """The last level, of a ray for each pixel; `footprint`: side of a pixel, per unit of distance."""
    rules = MarchRules(threshold, -inset * footprint * lipschitz, lipschitz, _RELAXATION, slack, refine, footprint)
    # Steps are as much shorter as the bound is larger, so that rays may take as many more before they hurry or give up.
    shorter = max(lipschitz, 1.0)
    return TraceLevel(size, math.ceil(steps * shorter), rules, radius, patience=_PATIENCE * shorter)


def _plan(native: Literal["cpu", "cuda"] | None) -> _Plan:
    plan = _PLANS[native]
    if native is None:
        return plan
    return _Plan(
        _switch("SDFGAN_COARSEST", plan.coarsest),
        (_switch("SDFGAN_FACTOR", plan.factors[0], (2, 4)), 2),
        _switch("SDFGAN_CONE_STEPS", plan.cone_steps),
    )


def _switch(name: str, otherwise: int, allowed: Sequence[int] | None = None) -> int:
    """A whole number from the environment, positive or one of those allowed."""
    value = os.environ.get(name)
    if value is None:
        return otherwise
    number = int(value) if value.isascii() and value.isdigit() else 0
    if number < 1 or (allowed is not None and number not in allowed):
        wanted = "a positive whole number" if allowed is None else " or ".join(map(str, allowed))
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return number
