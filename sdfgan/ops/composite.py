"""Compositing along rays: emission and absorption, piecewise constant (Max 1995; NeRF, eq. 3)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Composited(NamedTuple):
    """R rays, composited. What was not asked for is None."""

    weights: Tensor  # as densities: share of the ray's light that each sample sends
    opacity: Tensor  # [R] sum of the weights
    colors: Tensor | None  # [R, C] sum of weights times colors: on black
    depth: Tensor | None  # [R] sum of weights times distances: not divided by the opacity


def composite(
    densities: Tensor,
    deltas: Tensor | None = None,
    colors: Tensor | None = None,
    distances: Tensor | None = None,
    *,
    offsets: Tensor | None = None,
) -> Composited:
    """Weights w_i = a_i prod_{j<i} (1 - a_j) with a_i = 1 - exp(-density_i delta_i), and sums under them.

    Rays are dense, all of S samples, or packed: ray r has the samples offsets[r] to offsets[r+1].

    Args:
        densities: [R, S], or [N] packed; per unit of length, >= 0. Without `deltas` they are the opacities a_i
            themselves, in [0, 1].
        deltas: like densities: the lengths of the samples' pieces of the ray; infinity is allowed.
        colors: [R, S, C] or [N, C], any number of channels.
        distances: like densities, for the depth.
        offsets: [R+1] int64, ascending, from 0 to N.

    Returns:
        `Composited`. Differentiable in everything but offsets. Half types are computed and returned in float32.
    """
    from . import reference_volume

    return reference_volume.composite(densities, deltas, colors, distances, offsets=offsets)
