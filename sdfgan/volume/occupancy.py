"""Which cells of a cube hold anything: for not asking a volume where it is empty (Müller et al. 2022, Instant NGP)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_POINTS_AT_ONCE = 2**18


class OccupancyGrid(nn.Module):
    """Densities of resolution^3 cells of the cube [-extent, extent]^3, as they were seen, and which count as occupied.

    Outside the cube nothing is occupied. To begin with everything inside is.

    Args:
        decay: of what was seen before, at each update: a cell must be seen empty again and again to count as empty.
        threshold: least density of an occupied cell; or the mean of all cells, if that is less.
    """

    seen: Tensor
    occupied: Tensor

    def __init__(self, resolution: int = 64, extent: float = 1.0, decay: float = 0.95, threshold: float = 0.1) -> None:
        super().__init__()
        if resolution < 1 or not extent > 0 or not 0 <= decay < 1:
            raise ValueError(
                "OccupancyGrid: resolution must be >= 1, extent > 0 and decay in [0, 1), "
                f"got {resolution}, {extent} and {decay}"
            )
        self.resolution, self.extent, self.decay, self.threshold = resolution, extent, decay, threshold
        self.register_buffer("seen", torch.zeros(resolution**3))
        self.register_buffer("occupied", torch.ones(resolution**3, dtype=torch.bool))

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], generator: torch.Generator | None = None) -> None:
        """Look at `density(points [N, 3]) -> [N]` at one random point of every cell. Not differentiable."""
        device, n = self.seen.device, self.resolution
        for cells in torch.arange(n**3, device=device).split(_POINTS_AT_ONCE):
            corner = torch.stack([cells // n**2, cells // n % n, cells % n], 1)
            inside = torch.rand(len(cells), 3, device=device, generator=generator)
            points = ((corner + inside) * (2 / n) - 1) * self.extent
            self.seen[cells] = torch.maximum(self.seen[cells] * self.decay, density(points).to(self.seen.dtype))
        self.occupied.copy_(self.seen >= self.seen.mean().clamp(max=self.threshold))

    def forward(self, points: Tensor) -> Tensor:
        """Whether points [..., 3] are in occupied cells: [...] bool."""
        n = self.resolution
        cells = ((points / self.extent + 1) * (n / 2)).floor()
        inside = ((cells >= 0) & (cells < n)).all(-1)
        x, y, z = cells.clamp(0, n - 1).long().unbind(-1)
        return inside & self.occupied[(x * n + y) * n + z]
