"""A multiresolution hash grid as a module: points to features that are learnt (`ops.hash_encoding`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.checks import check_whole

_SMALLEST_FEATURE = 1e-4  # features start in +- this, as in Mueller et al. 2022


class _Encoded(torch.autograd.Function):
    """A grid's features at points that need no gradient, with that of its table in a spare; of first order."""

    @staticmethod
    def forward(ctx: Any, unit: Tensor, table: Tensor, grid: HashGrid) -> Tensor:
        ctx.grid = grid
        ctx.save_for_backward(unit)
        return ops.hash_encoding(unit, table, grid.cells, grid.table_size, smooth=grid.smooth)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.grid.table_gradient(*ctx.saved_tensors, gradient.contiguous()), None


class HashGrid(nn.Module):
    """Features of points in the cube [-bound, bound]^dims, on grids from coarse to fine.

    Cells along an axis grow geometrically from `coarsest` to `finest`; a level of more than 2^log2_size corners is
    hashed. Differentiable twice in points and `table`; `smooth` gives the gradient by the points no jumps.

    `spares` is None, or a list of gradients of the table that are all zero: those of `forward` by the table, where the
    points need none, are added to one of them instead of to new memory, and are then of first order. An optimiser that
    leaves gradients at zero gives them back (`training.optim.GridAdam`).

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
        self.spares: list[Tensor] | None = None

    def forward(self, points: Tensor, active: int | None = None) -> Tensor:
        """Features [N, levels * features] at points [N, dims]; beyond the cube, those of its faces.

        Those of levels from `active` on are zero, and are not evaluated.
        """
        table, cells = self._part(active)
        unit = self.unit(points)
        if self.spares is not None and table is self.table and torch.is_grad_enabled() and not unit.requires_grad:
            known: Tensor = _Encoded.apply(unit, table, self)
            return known
        found = ops.hash_encoding(unit, table, cells, self.table_size, smooth=self.smooth)
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

    def table_gradient(
        self, unit: Tensor, gradient: Tensor, mapper: Callable[..., Iterable[None]] | None = None
    ) -> Tensor:
        """What a gradient [N, levels * features] by the features at `unit` points means for the table; in a spare.

        `mapper`, if given, calls a function for each level, as `map` does; levels do not depend on each other.
        """
        found = self._zeros()

        def add(part: Tensor, out: Tensor, cells: list[int]) -> None:
            ops.hash_table_gradient(unit, part, out, cells, self.table_size, smooth=self.smooth)

        if mapper is None:
            add(gradient, found, self.cells)
        else:
            parts = [part.contiguous() for part in gradient.split(self.table.shape[1], 1)]
            outs = found.split([end - begin for begin, end in pairwise(self.begins)])
            list(mapper(add, parts, outs, [[cells] for cells in self.cells]))
        return found

    def _zeros(self) -> Tensor:
        """Like the table, all zero. Threads may ask at the same time."""
        try:
            spare = self.spares.pop() if self.spares else None
        except IndexError:  # another thread was faster
            spare = None
        if spare is None or (spare.dtype, spare.device) != (self.table.dtype, self.table.device):
            return torch.zeros_like(self.table, requires_grad=False)
        return spare

    def unit(self, points: Tensor) -> Tensor:
        """Points [N, dims] where `ops.hash_encoding` has them."""
        return (points / (2 * self.bound) + 0.5).contiguous()

    def _part(self, active: int | None) -> tuple[Tensor, list[int]]:
        """The table and the cells of the levels before `active`."""
        if active is None or active == len(self.cells):
            return self.table, self.cells
        cells = self.cells[:active]
        return self.table[: self.begins[active]], cells
