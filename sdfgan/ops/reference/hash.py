"""Multiresolution hash grids in plain torch: what `sdfgan.ops.hash` means."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..hash import hash_table_begins


def hash_encoding(
    points: Tensor, table: Tensor, cells: Sequence[int], table_size: int, *, smooth: bool = False
) -> Tensor:
    """Each level in turn: the corners of the cells, their entries, and the sum of weights times features."""
    dims = points.shape[1]
    primes = (1, 2654435761, 805459861)
    begins = hash_table_begins(dims, cells, table_size)
    levels = []
    for level, n in enumerate(cells):
        scaled = points.clamp(0, 1) * n + 0.5
        first = scaled.detach().floor()
        t = scaled - first
        weight = t * t * (3 - 2 * t) if smooth else t
        features = table.new_zeros(len(points), table.shape[1])
        for corner in itertools.product((0, 1), repeat=dims):
            at = [first[:, axis].nan_to_num().long() + end for axis, end in enumerate(corner)]
            if (n + 2) ** dims <= table_size:
                entry = sum(at[axis] * (n + 2) ** axis for axis in range(dims))
            else:
                hashed = at[0]
                for axis in range(1, dims):
                    hashed = hashed ^ (at[axis] * primes[axis])
                entry = hashed % table_size
            ends = [weight[:, axis] if end else 1 - weight[:, axis] for axis, end in enumerate(corner)]
            features = features + torch.stack(ends, 1).prod(1, keepdim=True) * table[begins[level] + entry]
        levels.append(features)
    return torch.cat(levels, dim=1)
