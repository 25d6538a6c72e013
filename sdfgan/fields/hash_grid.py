"""A multiresolution hash grid as a module: points to features that are learnt (`ops.hash_encoding`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.checks import check_whole

_SMALLEST_FEATURE = 1e-4  # features start in +- this, as in Mueller et al. 2022


class HashGrid(nn.Module):
    """Features of points in the cube [-bound, bound]^dims, on grids from coarse to fine.

    Cells along an axis grow geometrically from `coarsest` to `finest`; a level of more than 2^log2_size corners is
    hashed. Differentiable twice in points and `table`; `smooth` gives the gradient by the points no jumps.

    Args:
        levels: number of grids, at most 32.
        features: of each level, 1, 2, 4 or 8.
        log2_size: logarithm of the most entries of a level.
        coarsest, finest: cells along an axis of the first and of the last grid.
    """

    bound: Tensor

    def __init__(
        self,
        dims: int = 3,
        levels: int = 8,
        features: int = 4,
        log2_size: int = 15,
        coarsest: int = 8,
        finest: int = 256,
        smooth: bool = False,
        bound: float = 1.0,
    ) -> None:
        super().__init__()
        check_whole("HashGrid", 1, dims=dims, features=features, log2_size=log2_size)
        if levels < 1 or not 1 <= coarsest <= finest:
            raise ValueError(
                "HashGrid: levels must be at least 1 and finest at least coarsest, "
                f"got {levels} levels of {coarsest} to {finest} cells"
            )
        growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
        self.cells = [round(coarsest * growth**level) for level in range(levels)]
        self.table_size, self.smooth = 2**log2_size, smooth
        self.register_buffer("bound", torch.tensor(float(bound)))
        self.begins = ops.hash_table_begins(dims, self.cells, self.table_size)
        self.table = nn.Parameter(
            torch.empty(self.begins[-1], features).uniform_(-_SMALLEST_FEATURE, _SMALLEST_FEATURE)
        )
        self.width = levels * features

    def forward(self, points: Tensor, active: int | None = None) -> Tensor:
        """Features [N, levels * features] at points [N, dims]; beyond the cube, those of its faces.

        Those of levels from `active` on are zero, and are not evaluated.
        """
        table, cells = self._part(active)
        found = ops.hash_encoding(self.unit(points), table, cells, self.table_size, smooth=self.smooth)
        return found if found.shape[1] == self.width else F.pad(found, (0, self.width - found.shape[1]))

    def gradient(self, points: Tensor, weights: Tensor, active: int | None = None) -> Tensor:
        """By the points [N, dims] of the sum of features under weights [N, levels * features]: [N, dims].

        Differentiable in points, weights and `table`, to first order.
        """
        table, cells = self._part(active)
        weights = weights[:, : len(cells) * table.shape[1]].contiguous()
        found = ops.hash_encoding_gradient(
            self.unit(points), table, weights, cells, self.table_size, smooth=self.smooth
        )
        return found / (2 * self.bound)

    def table_gradient(self, unit: Tensor, gradient: Tensor, mapper: Callable[..., Iterable[Tensor]] = map) -> Tensor:
        """What a gradient [N, levels * features] by the features at `unit` points means for the table.

        `mapper` calls a function for each level, as `map` does; levels do not depend on each other.
        """
        features = self.table.shape[1]

        def of_level(cells: int, part: Tensor) -> Tensor:
            return ops.hash_table_gradient(
                unit, part.contiguous(), features, [cells], self.table_size, smooth=self.smooth
            )

        return torch.cat(list(mapper(of_level, self.cells, gradient.split(features, 1))))

    def unit(self, points: Tensor) -> Tensor:
        """Points [N, dims] where `ops.hash_encoding` has them."""
        return (points / (2 * self.bound) + 0.5).contiguous()

    def _part(self, active: int | None) -> tuple[Tensor, list[int]]:
        """The table and the cells of the levels before `active`."""
        if active is None or active == len(self.cells):
            return self.table, self.cells
        cells = self.cells[:active]
        return self.table[: self.begins[active]], cells
