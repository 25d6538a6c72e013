"""Multiresolution hash grids (Mueller et al. 2022, "Instant Neural Graphics Primitives", section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ._library import LIBRARY, REAL, Checker, native, refuse_gradient, register, require_tensors

_MAX_LEVELS = 32  # kMostHashLevels of csrc/kernels/hash.h
_MAX_CELLS = 2**20  # finer than float32 can tell points of the unit cube apart


def hash_encoding(
    points: Tensor, table: Tensor, cells: Sequence[int], table_size: int, *, smooth: bool = False
) -> Tensor:
    """Features of a multiresolution hash grid over the unit cube, interpolated at points.

    Level l is a grid of cells[l] + 2 corners along each axis, shifted by half a cell: x is at x * cells[l] + 1/2. Its
    features lie one after the other, x fastest, where they fit into `table_size` entries, else at a hash of the corner.
    Weights are linear in each coordinate or, if `smooth`, t^2 (3 - 2 t), which has a continuous slope. Beyond the cube
    features stay what they are at its faces, without a slope.

    Args:
        points: [N, D] float32 or float64, D = 2 or 3.
        table: [E, F] of the same dtype, F = 1, 2, 4 or 8, and E the last of `hash_table_begins`.
        cells: of each level, 1 to 2^20; at most 32 levels.
        table_size: most entries of a level; a power of two up to 2^28.

    Returns:
        [N, L * F], a level's features together. Differentiable twice in points and table; on a CPU without dependence
        on the number of threads, on CUDA sums of the table's gradient are in any order.
    """
    require_tensors("hash_encoding", points=points, table=table)
    return _encoding(points, table, None, list(cells), table_size, smooth)


def hash_encoding_gradient(
    points: Tensor, table: Tensor, weights: Tensor, cells: Sequence[int], table_size: int, *, smooth: bool = False
) -> Tensor:
    """The gradient [N, D] by the points of the sum of `hash_encoding`'s features under weights [N, L * F].

    As autograd gives it, but without a graph of the features. Differentiable in points, table and weights, once.
    """
    require_tensors("hash_encoding_gradient", points=points, table=table, weights=weights)
    return _points_gradient(points, table, None, weights, list(cells), table_size, smooth)


def hash_table_gradient(
    points: Tensor, gradient: Tensor, out: Tensor, cells: Sequence[int], table_size: int, *, smooth: bool = False
) -> None:
    """Add what a gradient [N, L * F] by `hash_encoding`'s features means for the table to `out` [E, F].

    As autograd gives it, for those who know the features already, or have memory for it. Refuses tensors that require
    grad.
    """
    refuse_gradient("hash_table_gradient", points=points, gradient=gradient, out=out)
    _add_table_gradient(points, gradient, out, list(cells), table_size, smooth)


def hash_table_begins(dims: int, cells: Sequence[int], table_size: int) -> list[int]:
    """The first entry of each level in a table, and then the number of all entries."""
    return [0, *accumulate(min((n + 2) ** dims, table_size) for n in cells)]


def _check(
    op: str, points: Tensor, features: Tensor, direction: Tensor | None, cells: list[int], table_size: int
) -> Checker:
    """Everything but the tables; `features` gives F."""
    check = Checker(op)
    check("points", points, ("N", "D"), REAL)
    if check.sizes["D"] not in (2, 3):
        raise ValueError(f"{op}: points must be [N, 2] or [N, 3], got {list(points.shape)}")
    if direction is not None:
        check("direction", direction, tuple(points.shape), (points.dtype,))
    if not 1 <= len(cells) <= _MAX_LEVELS or not all(1 <= n <= _MAX_CELLS for n in cells):
        raise ValueError(f"{op}: cells must be 1 to {_MAX_LEVELS} numbers from 1 to {_MAX_CELLS}, got {cells}")
    if not 1 <= table_size <= 2**28 or table_size & (table_size - 1):
        raise ValueError(f"{op}: table_size must be a power of two up to 2^28, got {table_size}")
    count = features.shape[-1] if features.dim() == 2 else 0
    if count not in (1, 2, 4, 8):
        raise ValueError(f"{op}: a level must have 1, 2, 4 or 8 features, got {count}")
    return check


def _check_table(
    op: str,
    points: Tensor,
    table: Tensor,
    direction: Tensor | None,
    cells: list[int],
    table_size: int,
    name: str = "table",
) -> Checker:
    check = _check(op, points, table, direction, cells, table_size)
    entries = hash_table_begins(points.shape[1], cells, table_size)[-1]
    check(name, table, (entries, "F"), (points.dtype,))
    return check


def _grid(
    points: Tensor,
    table: Tensor | None,
    direction: Tensor | None,
    features: int,
    cells: list[int],
    size: int,
    smooth: bool,
) -> dict:
    """`HashGrid` of csrc/kernels/hash.h."""
    count, dims = points.shape
    return {
        "points": points,
        "table": table,
        "direction": direction,
        "count": count,
        "dims": dims,
        "features": features,
        "levels": len(cells),
        "smooth": smooth,
        "cells": cells,
        "mask": [size - 1 if (n + 2) ** dims > size else 0 for n in cells],
        "begin": hash_table_begins(dims, cells, size),
    }


# ---------------------------------------------------------------- features, or their derivatives along a direction


def _encoding_fake(
    points: Tensor, table: Tensor, direction: Tensor | None, cells: list[int], table_size: int, smooth: bool
) -> Tensor:
    _check_table("hash_encoding", points, table, direction, cells, table_size)
    return points.new_empty(len(points), len(cells) * table.shape[1])


def _encoding_kernel(*arguments: Any) -> Tensor:
    out = _encoding_fake(*arguments)
    points, table, direction, *settings = arguments
    grid = _grid(points, table, direction, table.shape[1], *settings)
    native(points).hash_encoding(grid=grid, out=out)
    return out


def _encoding_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


def _encoding_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    points, table, direction = ctx.saved_tensors
    gradient = gradient.contiguous()
    by_points = by_table = by_direction = None
    if ctx.needs_input_grad[0]:
        by_points = _points_gradient(points, table, direction, gradient, *ctx.settings)
    if ctx.needs_input_grad[1]:
        by_table = _table_gradient(points, direction, gradient, table.shape[1], *ctx.settings)
    if direction is not None and ctx.needs_input_grad[2]:
        by_direction = _points_gradient(points, table, None, gradient, *ctx.settings)
    return by_points, by_table, by_direction, None, None, None


# ------------------------------------------------------------- what a gradient by the features means for the points


def _points_gradient_fake(
    points: Tensor,
    table: Tensor,
    direction: Tensor | None,
    gradient: Tensor,
    cells: list[int],
    table_size: int,
    smooth: bool,
) -> Tensor:
    check = _check_table("hash_encoding_points_gradient", points, table, direction, cells, table_size)
    check("gradient", gradient, ("N", len(cells) * table.shape[1]), (points.dtype,))
    return torch.empty_like(points)


def _points_gradient_kernel(*arguments: Any) -> Tensor:
    out = _points_gradient_fake(*arguments)
    points, table, direction, gradient, *settings = arguments
    grid = _grid(points, table, direction, table.shape[1], *settings)
    native(points).hash_points_gradient(grid=grid, gradient=gradient, out=out)
    return out


def _points_gradient_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]


def _points_gradient_backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
    points, table, direction, gradient = ctx.saved_tensors
    if direction is not None:
        raise RuntimeError("hash_encoding: has no third derivative")
    along = along.contiguous()
    by_points = by_table = by_gradient = None
    if ctx.needs_input_grad[0]:
        by_points = _points_gradient(points, table, along, gradient, *ctx.settings)
    if ctx.needs_input_grad[1]:
        by_table = _table_gradient(points, along, gradient, table.shape[1], *ctx.settings)
    if ctx.needs_input_grad[3]:
        by_gradient = _encoding(points, table, along, *ctx.settings)
    return by_points, by_table, None, by_gradient, None, None, None


# ------------------------------------------------------------------------------------------ and for the table


def _table_gradient_fake(
    points: Tensor,
    direction: Tensor | None,
    gradient: Tensor,
    features: int,
    cells: list[int],
    table_size: int,
    smooth: bool,
) -> Tensor:
    op = "hash_encoding_table_gradient"
    check = _check(op, points, points.new_empty(0, features), direction, cells, table_size)
    check("gradient", gradient, ("N", len(cells) * features), (points.dtype,))
    return points.new_empty(hash_table_begins(points.shape[1], cells, table_size)[-1], features)


def _table_gradient_kernel(*arguments: Any) -> Tensor:
    out = _table_gradient_fake(*arguments).zero_()
    points, direction, gradient, *settings = arguments
    grid = _grid(points, None, direction, *settings)
    native(points).hash_table_gradient(grid=grid, gradient=gradient, out=out)
    return out


def _add_table_gradient_fake(
    points: Tensor, gradient: Tensor, out: Tensor, cells: list[int], table_size: int, smooth: bool
) -> None:
    check = _check_table("hash_table_gradient", points, out, None, cells, table_size, "out")
    check("gradient", gradient, ("N", len(cells) * out.shape[1]), (points.dtype,))


def _add_table_gradient_kernel(*arguments: Any) -> None:
    _add_table_gradient_fake(*arguments)
    points, gradient, out, *settings = arguments
    grid = _grid(points, None, None, out.shape[1], *settings)
    native(points).hash_table_gradient(grid=grid, gradient=gradient, out=out)


def _table_gradient_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[4:]


def _table_gradient_backward(ctx: Any, table: Tensor) -> tuple[Tensor | None, ...]:
    # The inner product of its result and `table` is that of `gradient` and the features that `table` would give.
    points, direction, gradient = ctx.saved_tensors
    table = table.contiguous()
    by_points = by_direction = by_gradient = None
    if ctx.needs_input_grad[0]:
        by_points = _points_gradient(points, table, direction, gradient, *ctx.settings)
    if direction is not None and ctx.needs_input_grad[1]:
        by_direction = _points_gradient(points, table, None, gradient, *ctx.settings)
    if ctx.needs_input_grad[2]:
        by_gradient = _encoding(points, table, direction, *ctx.settings)
    return by_points, by_direction, by_gradient, None, None, None, None


_SETTINGS = "int[] cells, int table_size, bool smooth"
_encoding = register(
    f"hash_encoding(Tensor points, Tensor table, Tensor? direction, {_SETTINGS}) -> Tensor",
    _encoding_kernel,
    _encoding_fake,
)
_points_gradient = register(
    "hash_encoding_points_gradient"
    f"(Tensor points, Tensor table, Tensor? direction, Tensor gradient, {_SETTINGS}) -> Tensor",
    _points_gradient_kernel,
    _points_gradient_fake,
)
_table_gradient = register(
    "hash_encoding_table_gradient"
    f"(Tensor points, Tensor? direction, Tensor gradient, int features, {_SETTINGS}) -> Tensor",
    _table_gradient_kernel,
    _table_gradient_fake,
)
_add_table_gradient = register(
    f"hash_table_gradient(Tensor points, Tensor gradient, Tensor(a!) out, {_SETTINGS}) -> ()",
    _add_table_gradient_kernel,
    _add_table_gradient_fake,
)
for _name, _backward, _context in (
    ("hash_encoding", _encoding_backward, _encoding_context),
    ("hash_encoding_points_gradient", _points_gradient_backward, _points_gradient_context),
    ("hash_encoding_table_gradient", _table_gradient_backward, _table_gradient_context),
):
    torch.library.register_autograd(f"sdfgan::{_name}", _backward, setup_context=_context, lib=LIBRARY)
