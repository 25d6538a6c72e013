"""Which cells of a cube hold anything: a volume need not be evaluated elsewhere (Müller et al. 2022, Instant NGP)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sdfgan.fields.contraction import contract, expand

_POINTS_AT_ONCE = {"cpu": 2**16, "cuda": 2**20}
_FARTHEST = 1.999  # of the contracted ball of radius 2
_ROUNDING = 1e-5  # of the mean of equal densities, relative


class OccupancyGrid(nn.Module):
    """Densities of resolution^3 cells, as they were seen, and which count as occupied: to begin with all.

    Args:
        extent: the cells are those of the cube [-extent, extent]^3, outside of which nothing is occupied.
        threshold: least density of an occupied cell; or the mean of all cells, if that is less.
        contracted: the cells are those of `contract`ed space, in which the ball of radius `extent` stays as it is;
            there is no outside.
    """

    density: Tensor
    occupied: Tensor
    seen: Tensor  # what is not stays empty
    updates: Tensor

    def __init__(
        self, resolution: int = 64, extent: float = 1.0, threshold: float = 0.1, contracted: bool = False
    ) -> None:
        super().__init__()
        if resolution < 1 or not extent > 0:
            raise ValueError(f"OccupancyGrid: resolution must be >= 1 and extent > 0, got {resolution} and {extent}")
        self.resolution, self.extent, self.threshold, self.contracted = resolution, extent, threshold, contracted
        self.register_buffer("density", torch.zeros(resolution**3))
        self.register_buffer("occupied", torch.ones(resolution**3, dtype=torch.bool))
        self.register_buffer("seen", torch.ones(resolution**3, dtype=torch.bool))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, points: Tensor) -> Tensor:
        """Whether points [..., 3] are in occupied cells: [...] bool."""
        unit = self._unit(points)
        return ((unit >= -1) & (unit < 1)).all(-1) & self.occupied[self.cells(points)]

    def cells(self, points: Tensor) -> Tensor:
        """The cell [...] int64 of each point [..., 3], or the nearest one."""
        index = ((self._unit(points) + 1) * (self.resolution / 2)).long().clamp_(0, self.resolution - 1)
        return (index[..., 0] * self.resolution + index[..., 1]) * self.resolution + index[..., 2]

    def points(self, cells: Tensor, inside: Tensor | float = 0.5) -> Tensor:
        """A place [N, 3] in each of some cells [N], `inside` [N, 3] from its lower corner in units of its side."""
        n = self.resolution
        corner = torch.stack((cells // n**2, cells // n % n, cells % n), 1)
        unit = (corner + inside) * (2 / n) - 1
        if self.contracted:
            # The corners of the cube [-2, 2]^3 are beyond space: they count as what is very far away.
            unit = 2 * unit
            unit = expand(unit * (_FARTHEST / unit.norm(dim=1, keepdim=True)).clamp(max=1))
        return unit * self.extent

    def _unit(self, points: Tensor) -> Tensor:
        """Points [..., 3] where the cells are those of [-1, 1]^3."""
        points = points / self.extent
        return contract(points) / 2 if self.contracted else points

    @torch.no_grad()
    def update(
        self,
        density: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
        share: float = 1.0,
        decay: float = 0.95,
    ) -> None:
        """Look at `density(points [N, 3]) -> [N]` at a random point of every cell. Not differentiable.

        Args:
            generator: of the random numbers; on any device.
            share: of the cells that can be seen; less than 1: that many, at random, maybe some of them twice.
            decay: of what was seen before in these cells: one must be seen empty again and again to count as empty.
        """
        if not 0 < share <= 1 or not 0 <= decay < 1:
            raise ValueError(f"OccupancyGrid.update: share must be in (0, 1], decay in [0, 1), got {share}, {decay}")
        here = self.density.device
        there = here if generator is None else generator.device
        cells = self.seen.nonzero()[:, 0].to(there)
        if share < 1 and len(cells):
            chosen = torch.randint(len(cells), (math.ceil(share * len(cells)),), device=there, generator=generator)
            cells = cells[chosen]
        self.density[cells.to(here)] = decay * self.density[cells.to(here)]  # once, also of those that come twice
        for some in cells.split(_POINTS_AT_ONCE[here.type]):
            inside = torch.rand(len(some), 3, device=there, generator=generator)
            found = density(self.points(some, inside).to(here)).to(self.density)
            self.density.scatter_reduce_(0, some.to(here), found, "amax")
        # While everything is thin, what is not thinner than the average counts.
        mean = (self.density * self.seen).sum() / self.seen.sum().clamp(min=1)
        least = mean.clamp(max=self.threshold) * (1 - _ROUNDING)
        self.occupied.copy_((self.density >= least) & (self.density > 0) & self.seen)
        self.updates += 1
