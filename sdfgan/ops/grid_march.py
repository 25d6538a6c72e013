"""Stepping along rays through a grid that knows where a scene is empty (Mueller et al. 2022, arXiv:2201.05989).

Samples of a field in three operations, none of which waits for a GPU: how many steps of each ray lie in occupied cells,
these steps, and, once their densities are known, how many of them light reaches. All of it once, or in rounds of a few
samples of each ray, of which only those go on that have light left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._library import REAL, Checker, native, refuse_gradient, register

_MAX_RESOLUTION = 2**16


class GridMarch(NamedTuple):
    """R rays and the cells that they step through.

    Step i of a ray is at d(low + i), low = n(near) + jitter, where d(x) is the distance after x steps and n its
    inverse; its length is that to step i + 1. It counts if low + i < n(far) and its cell is occupied.
    """

    origins: Tensor  # [R, 3] float32 or float64
    directions: Tensor  # [R, 3] unit
    near: Tensor  # [R]
    far: Tensor  # [R]
    jitter: Tensor  # [R] in [0, 1]
    occupied: Tensor  # [resolution^3] bool, cells of [-1, 1]^3, x slowest; points beyond are in the nearest one
    resolution: int
    step: float  # length of a step
    even: float = float("inf")
    """Finite: the cells are those of contracted space over 2 (mip-NeRF 360, eq. 10), and steps grow with the distance
    from this one on; before it, and else, they are even."""


class MarchSamples(NamedTuple):
    """N steps, one ray after the other."""

    points: Tensor  # [N, 3]
    directions: Tensor  # [N, 3] of their rays
    distances: Tensor  # [N]
    deltas: Tensor  # [N] lengths of the steps


def march_count(march: GridMarch, most: int, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How many steps of each ray lie in occupied cells, beginning with step `first` [R] int32 or 0, `most` at most.

    Returns:
        offsets [R+1] int64: ray r's are to be the samples offsets[r] to offsets[r+1]; and next [R] int32: the step at
        which to go on. No ray has more than 2^24 steps. Not differentiable.
    """
    refuse_gradient("march_count", **_tensors(march))
    counts, following = _count(*march[:6], first, *march[6:], most)
    return counts.cumsum(0), following


def march_samples(march: GridMarch, offsets: Tensor, total: int, first: Tensor | None = None) -> MarchSamples:
    """As many steps in occupied cells, from step `first` on, as offsets [R+1] int64 give each ray; total = offsets[R].

    Steps that a ray does not have are at its origin, with length 0. Not differentiable.
    """
    refuse_gradient("march_samples", **_tensors(march))
    return MarchSamples(*_samples(*march[:6], first, *march[6:], offsets, total))


def march_reached(
    densities: Tensor, deltas: Tensor, offsets: Tensor, depth: Tensor, reached: Tensor, following: Tensor, limit: float
) -> None:
    """Go on along rays through samples in front of which the optical depth is less than `limit`.

    Args:
        densities, deltas: [N] of the samples; offsets: [R+1] int64 of the rays.
        depth: [R] optical depth so far; updated.
        reached: [R+1] int64, 0 and then how many samples of each ray light has reached so far; updated.
        following: [R] int32 step at which each ray goes on; beyond all steps where no light is left; updated.
    """
    refuse_gradient("march_reached", densities=densities, deltas=deltas)
    _reached(densities, deltas, offsets, depth, reached, following, limit)


def _tensors(march: GridMarch) -> dict[str, Tensor]:
    return dict(zip(GridMarch._fields[:5], march[:5], strict=True))


def _check(op: str, *march: Any) -> Checker:
    """Checks the members of a GridMarch, with `first` after the grid."""
    origins, directions, near, far, jitter, occupied, first, resolution, step, even = march
    check = Checker(op)
    check("origins", origins, ("R", 3), REAL)
    check("directions", directions, ("R", 3), (origins.dtype,))
    for name, tensor in (("near", near), ("far", far), ("jitter", jitter)):
        check(name, tensor, ("R",), (origins.dtype,))
    if not 1 <= resolution <= _MAX_RESOLUTION or not step > 0 or not even > 0:
        raise ValueError(
            f"{op}: resolution must be 1 to {_MAX_RESOLUTION}, step and even > 0, got {resolution}, {step}, {even}"
        )
    check("occupied", occupied, (resolution**3,), (torch.bool,))
    if first is not None:
        check("first", first, ("R",), (torch.int32,))
    return check


def _native(*march: Any) -> dict:
    """`GridMarch` of csrc/kernels/grid_march.h."""
    names = (*GridMarch._fields[:6], "first", *GridMarch._fields[6:])
    return {**dict(zip(names, march, strict=True)), "rays": len(march[0])}


def _count_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    *march, most = arguments
    _check("march_count", *march)
    if most < 0:
        raise ValueError(f"march_count: most must be >= 0, got {most}")
    origins = march[0]
    rays = origins.shape[0]
    return origins.new_empty(rays + 1, dtype=torch.int64), origins.new_empty(rays, dtype=torch.int32)


def _count_kernel(*arguments: Any) -> tuple[Tensor, Tensor]:
    counts, following = _count_fake(*arguments)
    *march, most = arguments
    if len(counts) == 1:
        counts.zero_()
    native(march[0]).march_count(march=_native(*march), counts=counts, next=following, most=most)
    return counts, following


def _samples_fake(*arguments: Any) -> tuple[Tensor, ...]:
    *march, offsets, total = arguments
    check = _check("march_samples", *march)
    check.sizes["R+1"] = check.sizes["R"] + 1
    check("offsets", offsets, ("R+1",), (torch.int64,))
    torch._check(total >= 0, lambda: f"march_samples: total must be >= 0, got {total}")
    new = march[0].new_empty
    return new((total, 3)), new((total, 3)), new(total), new(total)


def _samples_kernel(*arguments: Any) -> tuple[Tensor, ...]:
    results = _samples_fake(*arguments)
    *march, offsets, total = arguments
    points, directions, distances, deltas = results
    native(march[0]).march_samples(
        march=_native(*march),
        at={"offsets": offsets, "rays": len(offsets) - 1, "samples": total},
        points=points,
        directions=directions,
        distances=distances,
        deltas=deltas,
    )
    return results


def _reached_fake(
    densities: Tensor, deltas: Tensor, offsets: Tensor, depth: Tensor, reached: Tensor, following: Tensor, limit: float
) -> None:
    check = Checker("march_reached")
    check("densities", densities, ("N",), REAL)
    check("deltas", deltas, ("N",), (densities.dtype,))
    check("offsets", offsets, ("R+1",), (torch.int64,))
    check("reached", reached, ("R+1",), (torch.int64,))
    check.sizes["R"] = check.sizes["R+1"] - 1
    check("depth", depth, ("R",), (densities.dtype,))
    check("following", following, ("R",), (torch.int32,))


def _reached_kernel(*given: Any) -> None:
    _reached_fake(*given)
    densities, deltas, offsets, depth, reached, following, limit = given
    native(densities).march_reached(
        at={"offsets": offsets, "rays": len(depth), "samples": len(densities)},
        densities=densities,
        deltas=deltas,
        depth=depth,
        reached=reached,
        next=following,
        limit=limit,
    )


_MARCH = (
    "Tensor origins, Tensor directions, Tensor near, Tensor far, Tensor jitter, Tensor occupied, Tensor? first,"
    " int resolution, float step, float even"
)
_count = register(f"march_count({_MARCH}, int most) -> (Tensor, Tensor)", _count_kernel, _count_fake)
_samples = register(
    f"march_samples({_MARCH}, Tensor offsets, SymInt total) -> (Tensor, Tensor, Tensor, Tensor)",
    _samples_kernel,
    _samples_fake,
)
_reached = register(
    "march_reached(Tensor densities, Tensor deltas, Tensor offsets, Tensor(a!) depth, Tensor(b!) reached,"
    " Tensor(c!) following, float limit) -> ()",
    _reached_kernel,
    _reached_fake,
)
