"""The interface of volumes that emit and absorb light."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class RaySamples(NamedTuple):
    """Where a volume is evaluated: N pieces of rays."""

    points: Tensor  # [N, 3] world: their middles, or the means of their Gaussians
    directions: Tensor  # [N, 3] unit, of the rays
    covariances: Tensor | None = None  # [N, 3] diagonals or [N, 3, 3], of cones
    image: Tensor | None = None  # [N] int64: each one's row of the condition; None: as many for each row in turn
    lengths: Tensor | None = None  # [N] of the pieces; None: the volume is evaluated at their middles alone
    known: tuple[Tensor, ...] | None = None  # [N, ...] what this volume's `survey` found here


class Radiance(NamedTuple):
    """Values of a volume at N samples."""

    density: Tensor  # [N] >= 0, per world unit
    rgb: Tensor  # [N, 3] linear, in [0, 1]
    normals: Tensor | None = None  # [N, 3] unit, outwards
    extras: Tensor | None = None  # [N, E] anything else that is to be composited


class VolumeField(Protocol):
    """A volume that emits and absorbs light; what a field's `condition(latents)` gave goes with every question."""

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """[N] alone: for deciding where to look closer."""
        ...

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """Everything."""
        ...


@runtime_checkable
class SurveyedField(VolumeField, Protocol):
    """A volume that need not evaluate again where it was asked for its density."""

    def survey(self, places: RaySamples) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The density [N], and what goes as `known` with the same places to `radiance`. Without a graph."""
        ...
